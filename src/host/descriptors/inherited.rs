//! Descriptors inherited from the tender's caller: by number, or by the name that systemd and
//! similar programs give them in LISTEN_FDNAMES. They give a tender a tap or a disk that it may not
//! open itself.

#![expect(unsafe_code, reason = "adopts descriptors by number")]

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::config::InheritedFd;

/// The first descriptor counted by LISTEN_FDS.
const FIRST: RawFd = 3;

/// Why a descriptor is unavailable.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("no descriptor is named '{name}' ({known})")]
    #[diagnostic(help("give its number, or set FileDescriptorName={name} in its socket unit"))]
    NoName { name: String, known: String },
    #[error("more than one descriptor is named '{name}' ({numbers})")]
    #[diagnostic(help("give the number of one"))]
    Ambiguous { name: String, numbers: String },
    #[error("file descriptor {fd} is standard input, output or error")]
    #[diagnostic(help("pass one from 3 on"))]
    Standard { fd: RawFd },
    #[error("file descriptor {fd} was not passed to tender, or was given twice")]
    #[diagnostic(help("the caller must open it without O_CLOEXEC"))]
    NotPassed { fd: RawFd },
    #[error("cannot set up file descriptor {fd}: {error}")]
    SetUp { fd: RawFd, error: io::Error },
}

impl InheritedFd {
    /// Returns its number.
    ///
    /// # Errors
    /// No descriptor, or more than one, has this name.
    pub fn number(&self) -> Result<RawFd, Error> {
        match self {
            InheritedFd::Number(fd) => Ok(*fd),
            InheritedFd::Name(name) => {
                find(name, names(|variable| env::var_os(variable), process::id()))
            }
        }
    }

    /// Returns the descriptor, if the caller passed one of that number and it is not taken yet.
    pub fn inherited(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.number().ok().filter(|fd| *fd >= 0)?;
        // SAFETY: if no such descriptor is open, the only call with it fails.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // Descriptors opened by the tender itself have FD_CLOEXEC.
        fcntl_getfd(fd)
            .is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
            .then_some(fd)
    }

    /// Takes ownership of the descriptor and sets FD_CLOEXEC.
    ///
    /// # Errors
    /// It has no such number, is a standard stream, was not inherited, or is already taken.
    pub fn take(&self) -> Result<OwnedFd, Error> {
        let fd = self.number()?;
        if (0..FIRST).contains(&fd) {
            return Err(Error::Standard { fd });
        }
        if self.inherited().is_none() {
            return Err(Error::NotPassed { fd });
        }
        // SAFETY: it is open, and returned only once: from now on it has FD_CLOEXEC.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|error| Error::SetUp {
            fd,
            error: error.into(),
        })?;
        Ok(owned)
    }
}

/// Returns the names of the descriptors from [`FIRST`] on, for process `pid`; or why there are
/// none.
fn names(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Vec<String>, String> {
    let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
    let (Some(owner), Some(count)) = (text("LISTEN_PID"), text("LISTEN_FDS")) else {
        return Err("LISTEN_FDS and LISTEN_PID are not set, as systemd sets them for descriptors with names".into());
    };
    if owner.parse() != Ok(pid) {
        return Err(format!(
            "LISTEN_PID is {owner}, and this process is {pid}, so they belong to another process"
        ));
    }
    let count: usize = count
        .parse()
        .map_err(|_| format!("LISTEN_FDS is '{count}', which is not a number"))?;
    let names = text("LISTEN_FDNAMES").ok_or("LISTEN_FDNAMES is not set")?;
    Ok(names.split(':').take(count).map(String::from).collect())
}

fn find(name: &str, names: Result<Vec<String>, String>) -> Result<RawFd, Error> {
    let name = name.to_owned();
    let names = match names {
        Ok(names) => names,
        Err(known) => return Err(Error::NoName { name, known }),
    };
    let named = (FIRST..).zip(&names).filter(|(_, known)| **known == name);
    let found: Vec<RawFd> = named.map(|(fd, _)| fd).collect();
    match found[..] {
        [fd] => Ok(fd),
        [] => {
            let known = match &names[..] {
                [] => "LISTEN_FDS is 0".to_owned(),
                names => format!("LISTEN_FDNAMES has: {}", names.join(", ")),
            };
            Err(Error::NoName { name, known })
        }
        _ => {
            let numbers: Vec<_> = found.iter().map(|fd| format!("@{fd}")).collect();
            let numbers = numbers.join(", ");
            Err(Error::Ambiguous { name, numbers })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::message::Message;

    /// Looks `name` up in LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, as process 42.
    fn look_up(name: &str, environment: [Option<&str>; 3]) -> Result<RawFd, String> {
        let variable = |variable: &str| {
            let place = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
                .iter()
                .position(|known| *known == variable);
            environment[place.expect("one of the three")].map(OsString::from)
        };
        find(name, names(variable, 42)).map_err(|error| Message::of(&error).to_string())
    }

    #[test]
    fn names_count_from_3() {
        let environment = [Some("42"), Some("3"), Some("web:data:log")];
        assert_eq!(look_up("web", environment), Ok(3));
        assert_eq!(look_up("log", environment), Ok(5));
    }

    #[test]
    fn the_missing_part_is_reported() {
        let message = |environment| look_up("x", environment).unwrap_err();
        let listed = message([Some("42"), Some("2"), Some("web:data:x")]);
        assert_eq!(
            listed,
            "no descriptor is named 'x' (LISTEN_FDNAMES has: web, data); give its number, or set FileDescriptorName=x \
             in its socket unit"
        );
        assert!(message([Some("42"), Some("0"), Some("")]).contains("'x' (LISTEN_FDS is 0); "));
        let another = message([Some("41"), Some("2"), Some("web:x")]);
        let end = "LISTEN_PID is 41, and this process is 42, so they belong to another process";
        assert!(
            another.starts_with(&format!("no descriptor is named 'x' ({end}); ")),
            "{another}"
        );
        assert!(
            message([Some("42"), None, None]).contains("LISTEN_FDS and LISTEN_PID are not set")
        );
        assert!(message([None, Some("1"), Some("x")]).contains("are not set"));
        assert!(
            message([Some("42"), Some("many"), Some("x")])
                .contains("LISTEN_FDS is 'many', which is not a number")
        );
        assert!(message([Some("42"), Some("1"), None]).contains("LISTEN_FDNAMES is not set"));
    }

    #[test]
    fn an_ambiguous_name_is_reported_with_both_numbers() {
        let error = look_up("x", [Some("42"), Some("3"), Some("x:y:x")]).unwrap_err();
        assert_eq!(
            error,
            "more than one descriptor is named 'x' (@3, @5); give the number of one"
        );
    }
}
