//! Debugging options: gdb and core files.

use super::*;
use crate::config::{Debugging, GdbAddress, SocketAddress};
use crate::report::message::Message;

fn debugging_of(args: &[&str]) -> Result<Debugging, String> {
    let args = ["tender"].iter().chain(args).chain(&["app.hvt"]);
    match parse(args.map(Into::into)) {
        Ok(Command::Run(config)) => Ok(config.debugging),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(Message::of(&error).to_string()),
    }
}

#[test]
fn everything_is_off_by_default() {
    assert_eq!(debugging_of(&[]), Ok(Debugging::default()));
    assert_eq!(Debugging::default().address(), None);
}

#[test]
fn each_option_is_parsed() {
    let port = |port| Some(GdbAddress::Port(port));
    assert_eq!(debugging_of(&["--gdb"]).unwrap().address(), port(1234));
    assert_eq!(
        debugging_of(&["--gdb-port=65535", "--gdb"])
            .unwrap()
            .address(),
        port(65535)
    );
    assert_eq!(
        debugging_of(&["--gdb", "--gdb-port", "0"])
            .unwrap()
            .address(),
        port(0)
    );
    assert_eq!(debugging_of(&["--gdb-port=1"]).unwrap().address(), None);
    let socket = |socket| Some(GdbAddress::Unix(socket));
    let path = SocketAddress::Path("run/gdb".into());
    assert_eq!(
        debugging_of(&["--gdb", "--gdb-port=unix:run/gdb"])
            .unwrap()
            .address(),
        socket(path)
    );
    let name = SocketAddress::Abstract(b"app".to_vec());
    assert_eq!(
        debugging_of(&["--gdb", "--gdb-port=unix:@app"])
            .unwrap()
            .address(),
        socket(name)
    );
    assert_eq!(
        debugging_of(&["--dumpcore=/var/crash"]).unwrap().dumpcore,
        Some("/var/crash".into())
    );
}

#[test]
fn invalid_values_are_refused() {
    for (option, args) in [
        ("--gdb-port=", "a TCP port"),
        ("--gdb-port=65536", "a TCP port"),
        ("--gdb-port=-1", "a TCP port"),
        ("--gdb-port=+1", "a TCP port"),
        ("--gdb-port=localhost:1234", "a TCP port"),
        ("--gdb-port=unix:", "a TCP port"),
        ("--gdb-port=unix:@", "a TCP port"),
        ("--gdb-port=/run/gdb", "a TCP port"),
        (
            &format!("--gdb-port=unix:{}", "x".repeat(108)),
            "the limit is 107 bytes",
        ),
        ("--gdb=1234", "takes no value"),
        ("--dumpcore=", "the path is empty"),
    ] {
        let error = debugging_of(&[option]).unwrap_err();
        assert!(error.contains(args), "{error}");
    }
    assert!(
        debugging_of(&["--dumpcore=a", "--dumpcore=b"])
            .unwrap_err()
            .contains("given twice")
    );
    assert!(debugging_of(&["--gdb", "--gdb"]).is_ok());
}
