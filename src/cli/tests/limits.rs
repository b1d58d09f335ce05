//! Resource limits of a run: time, output, and memory allocated in advance.

use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::config::Limits;
use crate::report::message::Message;

fn limits_of(args: &[&str]) -> Result<Limits, Error> {
    let args = ["tender"].iter().chain(args).chain(&["app.hvt"]);
    match parse(args.map(Into::into))? {
        Command::Run(config) => Ok(config.limits),
        other => panic!("{other:?}"),
    }
}

fn timeout(text: &str) -> Result<Option<u32>, String> {
    let limits = limits_of(&[&format!("--timeout={text}")]);
    limits
        .map(|limits| limits.timeout.map(NonZeroU32::get))
        .map_err(|error| Message::of(&error).to_string())
}

fn console_rate(text: &str) -> Result<Option<u64>, String> {
    let limits = limits_of(&[&format!("--console-rate={text}")]);
    limits
        .map(|limits| limits.console_rate.map(NonZeroU64::get))
        .map_err(|error| Message::of(&error).to_string())
}

#[test]
fn without_options_there_are_none() {
    assert_eq!(
        limits_of(&[]),
        Ok(Limits {
            timeout: None,
            console_rate: None,
            lock_memory: false
        })
    );
    assert!(
        limits_of(&["--lock-memory", "--lock-memory"])
            .unwrap()
            .lock_memory
    );
}

#[test]
fn times_are_whole_seconds_minutes_or_hours() {
    assert_eq!(timeout("1"), Ok(Some(1)));
    assert_eq!(timeout("4294967295"), Ok(Some(u32::MAX)));
    assert_eq!(timeout("10s"), Ok(Some(10)));
    assert_eq!(timeout("5m"), Ok(Some(300)));
    assert_eq!(timeout("1H"), Ok(Some(3600)));
    for text in ["", "0", "-1", "1.5", "5d", "0s", "m", "1h30m", " 1"] {
        let message = format!(
            "--timeout={text}: not a time; write whole seconds, 1 to 4294967295, or a whole number with s, m or h, such as \
             5m"
        );
        assert_eq!(timeout(text), Err(message));
    }
}

#[test]
fn a_time_that_is_too_long_is_not_called_malformed() {
    for text in [
        "1193047h",
        "99999999999h",
        "4294967296",
        "99999999999999999999",
    ] {
        let message =
            format!("--timeout={text}: too long; the limit is 4294967295 seconds (1193046h)");
        assert_eq!(timeout(text), Err(message));
    }
    assert_eq!(timeout("1193046h"), Ok(Some(1193046 * 3600)));
}

#[test]
fn errors_name_the_units_that_are_accepted() {
    for unit in ["K", "M", "G", "KB", "MB", "GB", "KiB", "MiB", "GiB"] {
        assert!(console_rate(&format!("1{unit}")).is_ok(), "{unit}");
        for option in ["--console-rate=x", "--mem=x"] {
            let error = limits_of(&[option])
                .map_err(Message::from)
                .unwrap_err()
                .to_string();
            let mut parts = error.split([' ', ',']);
            assert!(parts.any(|part| part == unit), "{error}");
        }
    }
}

#[test]
fn rates_are_bytes_a_second() {
    for (text, rate) in [
        ("1", 1),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        ("2M", 2 << 20),
        ("64KB", 64 << 10),
        ("1g", 1 << 30),
        ("99999999999999999999M", u64::MAX),
    ] {
        assert_eq!(console_rate(text), Ok(Some(rate)));
    }
    for text in ["", "0", "0K", "K", "1KK", "1MK", "1T", "-1", "1.5M", "1 K"] {
        let error = console_rate(text).unwrap_err();
        assert!(
            error.starts_with(&format!(
                "--console-rate={text}: not a rate; write whole bytes"
            )),
            "{error}"
        );
    }
}

#[test]
fn each_is_given_once() {
    for option in ["--timeout", "--console-rate"] {
        let error = limits_of(&[option, "1", option, "1"]).unwrap_err();
        assert_eq!(
            Message::of(&error).to_string(),
            format!("option '{option}' is given twice")
        );
    }
}
