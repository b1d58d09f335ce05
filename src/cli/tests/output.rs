//! Output options: log lines, timestamps on console lines, statistics, metrics.

use super::*;
use crate::config::{Output, SocketAddress, StatsTarget};
use crate::report::log_lines::LogFormat;
use crate::report::message::Message;

fn output_of(args: &[&str]) -> Result<Output, String> {
    let args = ["tender"].iter().chain(args).chain(&["app.hvt"]);
    match parse(args.map(Into::into)) {
        Ok(Command::Run(config)) => Ok(config.output),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(Message::of(&error).to_string()),
    }
}

#[test]
fn a_name_is_printable_and_short() {
    let name = |name: &str| config(&[&format!("--name={name}"), "/srv/web.hvt"]).name();
    for valid in ["a", "web 2 \"x\"", &"x".repeat(64)] {
        assert_eq!(name(valid), valid);
    }
    assert_eq!(config(&["/srv/web.hvt"]).name(), "web");
    for invalid in ["", " a", "a ", "a\u{1b}", "ä", &"x".repeat(65)] {
        let error = command(&[&format!("--name={invalid}"), "app"]).expect_err("an error");
        assert!(
            Message::of(&error).to_string().contains("not a name"),
            "{invalid:?}: {error}"
        );
    }
}

#[test]
fn json_is_for_reports() {
    assert!(
        matches!(command(&["--json", "--check", "app"]), Ok(Command::Check(config)) if config.output.json)
    );
    let json = |json| Ok(Command::Version { json });
    assert_eq!(command(&["--json", "-V"]), json(true));
    assert_eq!(command(&["-V"]), json(false));
    assert_eq!(command(&["--json", "app"]), Err(Error::JsonWithoutReport));
}

#[test]
fn without_options_there_are_messages_only() {
    assert_eq!(output_of(&[]), Ok(Output::default()));
    assert_eq!(output_of(&["--log-format=text"]), Ok(Output::default()));
}

#[test]
fn each_option_is_parsed() {
    let options = [
        "--log-format=journald",
        "--console-timestamps",
        "--stats",
        "/x/s.json",
        "--metrics=unix:/run/m",
    ];
    let output = output_of(&options).unwrap();
    assert_eq!(
        (output.log_format, output.console_timestamps),
        (LogFormat::Journald, true)
    );
    assert_eq!(output.stats, Some(StatsTarget::File("/x/s.json".into())));
    assert_eq!(output.metrics, Some(SocketAddress::Path("/run/m".into())));
    let output = output_of(&["--stats=-", "--metrics=unix:@app", "--log-format=json"]).unwrap();
    assert_eq!(output.stats, Some(StatsTarget::Stderr));
    assert_eq!(
        output.metrics,
        Some(SocketAddress::Abstract(b"app".to_vec()))
    );
    assert_eq!(output.log_format, LogFormat::Json);
    assert_eq!(
        output_of(&["--stats=./-"]).unwrap().stats,
        Some(StatsTarget::File("./-".into()))
    );
}

#[test]
fn invalid_values_are_refused() {
    for (option, args) in [
        ("--log-format=syslog", "text, json or journald"),
        ("--stats=", "the path is empty"),
        ("--metrics=/run/m", "not a socket; write unix:PATH"),
        ("--metrics=unix:", "not a socket; write unix:PATH"),
        ("--metrics=unix:@", "not a socket; write unix:PATH"),
        (
            &format!("--metrics=unix:{}", "x".repeat(108)),
            "the limit is 107 bytes",
        ),
        (
            &format!("--metrics=unix:@{}", "x".repeat(108)),
            "the limit is 107 bytes",
        ),
        (
            "--metrics=tcp:0.0.0.0:9100",
            "not a socket; write unix:PATH",
        ),
    ] {
        let error = output_of(&[option]).unwrap_err();
        assert!(error.contains(args), "{error}");
    }
    assert!(
        output_of(&["--stats=a", "--stats=b"])
            .unwrap_err()
            .contains("given twice")
    );
    assert!(output_of(&["--stats", "-"]).is_ok());
    assert!(
        output_of(&["--console-timestamps=yes"])
            .unwrap_err()
            .contains("takes no value")
    );
}
