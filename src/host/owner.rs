//! Finds the process that uses a tap or image. Otherwise the operator would have to search for it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::str::FromStr;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A process that uses a tap or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process ID.
    pub pid: u32,
    /// Name of its program, if the host shows it.
    program: Option<String>,
}

impl Owner {
    /// Returns process `pid` with the name of its program.
    pub fn new(pid: u32) -> Owner {
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Owner {
            pid,
            program: program.map(|name| name.trim_end_matches('\n').to_owned()),
        }
    }

    /// Returns whether it is this process.
    pub fn is_us(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Finds the process that is attached to the tap `name` of this network namespace. Returns this
    /// process if it is one of several, because the process that passed a descriptor can still have
    /// it. Returns none without /proc, or if the process belongs to another user: only root may
    /// inspect such a process.
    ///
    /// A tap of another network namespace can have the same name: `is_same` decides about an open
    /// tap. If this process may not copy the other's descriptor, a process in the same namespace
    /// counts as the owner.
    pub(crate) fn of_tap(name: &str, is_same: impl Fn(BorrowedFd<'_>) -> bool) -> Option<Owner> {
        let here = fs::read_link("/proc/self/ns/net").ok()?;
        let us = std::process::id();
        let is_here = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|at| at == here);
        let holds = |pid: u32| {
            let mut taps = open_taps(pid, name).into_iter();
            taps.any(|fd| match descriptor_of(pid, fd) {
                Some(tap) => is_same(tap.as_fd()),
                None => is_here(pid),
            })
        };
        let mut others = numbers_in("/proc").filter(|pid| *pid != us);
        if holds(us) {
            Some(Owner::new(us))
        } else {
            others.find(|pid| holds(*pid)).map(Owner::new)
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "process {} ({program})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// Reads a list of the kernel in large pieces: between two reads, an entry that disappears can hide
/// another.
pub(crate) fn read_list(path: &str) -> io::Result<String> {
    let mut list = String::with_capacity(4096);
    File::open(path)?.read_to_string(&mut list)?;
    Ok(list)
}

/// Lists the descriptors of process `pid` that lead to a tap `name`, in any network namespace.
fn open_taps(pid: u32, name: &str) -> Vec<RawFd> {
    let directory = format!("/proc/{pid}/fdinfo");
    let leads_there = |fd: &RawFd| {
        fs::read_to_string(format!("{directory}/{fd}"))
            .is_ok_and(|text| tap_in(&text) == Some(name))
    };
    numbers_in(&directory).filter(leads_there).collect()
}

/// Lists the entries of a directory whose names are numbers; none if it cannot be read.
pub(super) fn numbers_in<T: FromStr>(directory: &str) -> impl Iterator<Item = T> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Copies descriptor `fd` of process `pid`: needs Linux 5.6, and the right to trace that process.
fn descriptor_of(pid: u32, fd: RawFd) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).ok()
}

/// Returns the interface of an open /dev/net/tun, from the descriptor's text in /proc/PID/fdinfo.
fn tap_in(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("iff:\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_descriptor_is_read() {
        assert_eq!(
            tap_in("pos:\t0\nflags:\t0104002\nmnt_id:\t28\nino:\t1\niff:\ttap100\n"),
            Some("tap100")
        );
        assert_eq!(tap_in("pos:\t0\nflags:\t0100000\nmnt_id:\t28\n"), None);
        assert_eq!(tap_in(""), None);
    }

    #[test]
    fn a_process_is_named_with_its_program() {
        let owner = Owner::new(std::process::id());
        assert!(owner.is_us());
        assert!(
            owner
                .to_string()
                .starts_with(&format!("process {} (", std::process::id())),
            "{owner}"
        );
        assert_eq!(Owner::new(u32::MAX).to_string(), "process 4294967295");
    }
}
