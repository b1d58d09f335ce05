//! What helps to find out what is wrong with a guest: a debugger beside it, and what is left of it afterwards.

use std::path::PathBuf;

use super::options::Parsed;
use super::{Error, SocketAddress, only, value};

/// Where gdb is waited for if nothing else is said, as with upstream's tenders.
const USUAL_PORT: u16 = 1234;

/// What is asked for to debug a guest; by default nothing. Section 10.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debugging {
    /// `--gdb`: the guest waits at its first instruction until a debugger connects.
    pub gdb: bool,
    /// `--gdb-port`: where it connects to.
    pub gdb_port: Option<GdbAddress>,
    /// `--dumpcore`: the directory that gets a core file of a guest that came to a bad end.
    pub dumpcore: Option<PathBuf>,
    /// Whether core files are named as solo5-hvt names them: if `tender` runs under that name. Not an option.
    pub as_solo5_hvt: bool,
}

/// Where a debugger connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// A TCP port of this host alone; 0 is any that is free.
    Port(u16),
    /// A socket of this user alone, if it has a path.
    Unix(SocketAddress),
}

impl Debugging {
    /// The address for a debugger, with `--gdb`.
    pub fn address(&self) -> Option<GdbAddress> {
        self.gdb.then(|| self.gdb_port.clone().unwrap_or(GdbAddress::Port(USUAL_PORT)))
    }

    /// The socket where a debugger is waited for, if it is one.
    pub fn socket(&self) -> Option<&SocketAddress> {
        match &self.gdb_port {
            Some(GdbAddress::Unix(address)) if self.gdb => Some(address),
            _ => None,
        }
    }
}

pub(super) fn debugging(parsed: &Parsed) -> Result<Debugging, Error> {
    Ok(Debugging {
        gdb: parsed.flag("gdb"),
        gdb_port: only(parsed, "gdb-port", value::gdb_address)?,
        dumpcore: only(parsed, "dumpcore", value::path)?,
        as_solo5_hvt: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn debugging_of(words: &[&str]) -> Result<Debugging, String> {
        let words = ["tender"].iter().chain(words).chain(&["app.hvt"]);
        match parse(words.map(Into::into)) {
            Ok(Command::Run(config)) => Ok(config.debugging),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nothing_is_asked_for_by_default() {
        assert_eq!(debugging_of(&[]), Ok(Debugging::default()));
        assert_eq!(Debugging::default().address(), None);
    }

    #[test]
    fn each_option_is_understood() {
        let port = |port| Some(GdbAddress::Port(port));
        assert_eq!(debugging_of(&["--gdb"]).unwrap().address(), port(1234));
        assert_eq!(debugging_of(&["--gdb-port=65535", "--gdb"]).unwrap().address(), port(65535));
        assert_eq!(debugging_of(&["--gdb", "--gdb-port", "0"]).unwrap().address(), port(0));
        assert_eq!(debugging_of(&["--gdb-port=1"]).unwrap().address(), None);
        let socket = |socket| Some(GdbAddress::Unix(socket));
        let path = SocketAddress::Path("run/gdb".into());
        assert_eq!(debugging_of(&["--gdb", "--gdb-port=unix:run/gdb"]).unwrap().address(), socket(path));
        let name = SocketAddress::Abstract(b"app".to_vec());
        assert_eq!(debugging_of(&["--gdb", "--gdb-port=unix:@app"]).unwrap().address(), socket(name));
        assert_eq!(debugging_of(&["--dumpcore=/var/crash"]).unwrap().dumpcore, Some("/var/crash".into()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (option, words) in [
            ("--gdb-port=", "a TCP port"),
            ("--gdb-port=65536", "a TCP port"),
            ("--gdb-port=-1", "a TCP port"),
            ("--gdb-port=+1", "a TCP port"),
            ("--gdb-port=localhost:1234", "a TCP port"),
            ("--gdb-port=unix:", "a TCP port"),
            ("--gdb-port=unix:@", "a TCP port"),
            ("--gdb-port=/run/gdb", "a TCP port"),
            (&format!("--gdb-port=unix:{}", "x".repeat(108)), "has 107 bytes at most"),
            ("--gdb=1234", "takes no value"),
            ("--dumpcore=", "the path is empty"),
        ] {
            let error = debugging_of(&[option]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(debugging_of(&["--dumpcore=a", "--dumpcore=b"]).unwrap_err().contains("given twice"));
        assert!(debugging_of(&["--gdb", "--gdb"]).is_ok());
    }
}
