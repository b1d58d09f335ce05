//! Who has what a unikernel should get: an operator who is told only that a tap or an image is in use has to search for
//! the process; the host knows it.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process that has a tap or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its program, where the host tells.
    program: Option<String>,
}

impl Holder {
    /// Process `pid`, with what it runs.
    pub fn new(pid: u32) -> Holder {
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Holder { pid, program: program.map(|name| name.trim_end_matches('\n').to_owned()) }
    }

    /// Whether it is this process.
    pub fn is_us(&self) -> bool {
        self.pid == std::process::id()
    }

    /// The process of this network that is attached to the tap `name`: this one if it is among them, as whoever handed
    /// a descriptor over may have it still. None where there is no /proc, or where the process is somebody else's: only
    /// root may look into those.
    pub(crate) fn of_tap(name: &str) -> Option<Holder> {
        let here = fs::read_link("/proc/self/ns/net").ok()?;
        let holds = |process: &Path| {
            // An interface of the same name in another network is another one.
            fs::read_link(process.join("ns/net")).is_ok_and(|network| network == here)
                && fs::read_dir(process.join("fdinfo")).is_ok_and(|descriptors| {
                    let mut texts = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
                    texts.any(|text| tap_in(&text) == Some(name))
                })
        };
        if holds(Path::new("/proc/self")) {
            return Some(Holder::new(std::process::id()));
        }
        let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut numbered = processes.filter_map(|entry| Some((number(&entry)?, entry.path())));
        numbered.find(|(_, process)| holds(process)).map(|(pid, _)| Holder::new(pid))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "process {} ({program})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// The interface that an open /dev/net/tun leads to, from what /proc/PID/fdinfo says of the descriptor.
fn tap_in(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("iff:\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_tells_its_interface() {
        assert_eq!(tap_in("pos:\t0\nflags:\t0104002\nmnt_id:\t28\nino:\t1\niff:\ttap100\n"), Some("tap100"));
        assert_eq!(tap_in("pos:\t0\nflags:\t0100000\nmnt_id:\t28\n"), None);
        assert_eq!(tap_in(""), None);
    }

    #[test]
    fn a_process_is_named_with_its_program() {
        let holder = Holder::new(std::process::id());
        assert!(holder.is_us());
        assert!(holder.to_string().starts_with(&format!("process {} (", std::process::id())), "{holder}");
        assert_eq!(Holder::new(u32::MAX).to_string(), "process 4294967295");
    }
}
