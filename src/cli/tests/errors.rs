//! Messages about invalid command lines.

use super::*;

#[test]
fn usage_errors_are_one_line_that_names_the_argument() {
    let expected = [
        (
            &["--foo"][..],
            "unknown option '--foo'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--foo=1"],
            "unknown option '--foo'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--foo:a=1"],
            "unknown option '--foo:a'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--mem:a=64"],
            "unknown option '--mem:a'; did you mean '--mem'?",
        ),
        (&["--ne=x"], "unknown option '--ne'; did you mean '--net'?"),
        (
            &["--memory=64"],
            "unknown option '--memory'; did you mean '--mem'?",
        ),
        (
            &["--log_format=json"],
            "unknown option '--log_format'; did you mean '--log-format'?",
        ),
        (
            &["--blk:a=x"],
            "unknown option '--blk:a'; did you mean '--block'?",
        ),
        (
            &["--chek"],
            "unknown option '--chek'; did you mean '--check'?",
        ),
        (
            &["--verbos"],
            "unknown option '--verbos'; did you mean '--verbose'?",
        ),
        (
            &["--ram=64"],
            "unknown option '--ram'; did you mean '--mem'?",
        ),
        (
            &["--kernel=app"],
            "unknown option '--kernel'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--ipv4=10.0.0.2/24"],
            "unknown option '--ipv4'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--cpus=2"],
            "unknown option '--cpus'; a guest has one vCPU",
        ),
        (&["--smp"], "unknown option '--smp'; a guest has one vCPU"),
        (
            &["-m", "64"],
            "unknown option '-m'; did you mean '--mem=64M'?",
        ),
        (
            &["-m128"],
            "unknown option '-m'; did you mean '--mem=128M'?",
        ),
        (&["-m=1g"], "unknown option '-m'; did you mean '--mem=1g'?"),
        (&["-m"], "unknown option '-m'; did you mean '--mem=64M'?"),
        (
            &["-my"],
            "unknown option '-m'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["--net=IFACE"],
            "--net=IFACE: a placeholder; replace it with a value of this host",
        ),
        (
            &["--net=IFACE2"],
            "--net=IFACE2: a placeholder; replace it with a value of this host",
        ),
        (
            &["--block:a=PATH"],
            "--block:a=PATH: a placeholder; replace it with a value of this host",
        ),
        (
            &["--mem=SIZE"],
            "--mem=SIZE: a placeholder; replace it with a value of this host",
        ),
        (
            &["-x"],
            "unknown option '-x'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (
            &["-vx"],
            "unknown option '-x'; 'tender --help' lists them; those of the guest follow the unikernel",
        ),
        (&["--mem=64", "--mem=64"], "option '--mem' is given twice"),
        (&["--net=a", "--net=b"], "option '--net' is given twice"),
        (
            &["--net:x=a", "--net:x=a"],
            "option '--net:x' is given twice",
        ),
        (
            &["--net:x=a", "--net:x", "b"],
            "option '--net:x' is given twice",
        ),
        (
            &["--block-sector-size:x=512", "--block-sector-size:x=512"],
            "option '--block-sector-size:x' is given twice",
        ),
        (&["--verbose=1"], "option '--verbose' takes no value"),
        (&["--help=1"], "option '--help' takes no value"),
        (&["-v", "-q"], "'-v' and '-q' conflict"),
        (
            &["--net", "--mem=64"],
            "option '--net' needs a value: --net=IFACE|@FD",
        ),
        (&["--block:x="], "--block:x=: the path is empty"),
    ];
    for (args, message) in expected {
        assert_eq!(error(args), message, "{args:?}");
    }
    assert_eq!(
        command(&["--mem"])
            .map_err(Message::from)
            .unwrap_err()
            .to_string(),
        "option '--mem' needs a value: --mem=SIZE"
    );
}

#[test]
fn no_argument_makes_a_second_line() {
    assert_eq!(
        error(&["--fo\no"]),
        "unknown option '--fo\\no'; 'tender --help' lists them; those of the guest follow the unikernel"
    );
    assert!(error(&["--mem=6\n4\x1b[2J"]).starts_with("--mem=6\\n4\\u{1b}[2J: not an amount"));
    assert!(error(&["--net:a\r=x"]).starts_with("'a\\r' in '--net:a\\r' is not"));
}

#[test]
fn a_missing_unikernel_is_explained() {
    for args in [
        &[][..],
        &["--"],
        &["-v"],
        &["--mem=64"],
        &["--mem", "64"],
        &["--log-format", "json"],
        &["--net", "@3"],
    ] {
        assert!(
            command(args)
                .map_err(Message::from)
                .unwrap_err()
                .to_string()
                .starts_with("no unikernel given; usage: tender [OPTIONS]")
        );
    }
    for args in [&[""][..], &["--disk", "a.img", ""], &["", "app.hvt"]] {
        assert_eq!(command(args), Err(Error::EmptyUnikernel), "{args:?}");
    }
    assert_eq!(
        parse([]),
        Err(Error::NoUnikernel {
            taken: String::new()
        })
    );
}

#[test]
fn a_unikernel_taken_as_a_value_is_reported() {
    for (args, reason) in [
        (
            &["--mem", "app"][..],
            "'--mem' took 'app' as its value (write --mem=SIZE)",
        ),
        (
            &["--net:a", "app"],
            "'--net:a' took 'app' as its value (write --net:a=IFACE|@FD)",
        ),
        (
            &["--block:d", "x", "--user", "a\nb"],
            "'--user' took 'a\\nb' as its value (write --user=USER[:GROUP])",
        ),
        (
            &["--stats", "app", "-v", "--net=tap0", "--"],
            "'--stats' took 'app' as its value (write --stats=FILE|-)",
        ),
    ] {
        let message = command(args)
            .map_err(Message::from)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with(&format!(
                "no unikernel given: option {reason}; usage: tender "
            )),
            "{message}"
        );
    }
}
