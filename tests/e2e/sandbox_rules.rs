//! The sandbox is exactly tight: runs of all kinds are traced, and the calls of their confined
//! threads are compared with the rules. Every call matches a rule (otherwise the kernel would have
//! ended the run), and every rule matches a call.

mod runs;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

use libtest_mimic::Trial;
use tender::sandbox::rules::{GUEST, METRICS, Need, Parameters, Rule, When, name};

use crate::common::Need::{KvmEngine, Net, ProcessEngine};
use crate::common::trace::{Call, trace_threads};
use crate::common::{self, LIMIT, kernel, text, unikernel};
use crate::process::child_of;
use runs::{
    broken_ring, by_process, debugged, disk_and_frames, exits, file_change, observed, ring, web,
};

pub fn tests() -> Vec<Trial> {
    vec![trial!(every_rule_is_used, KvmEngine, ProcessEngine, Net)]
}

/// The calls of the threads of one run after they were confined.
#[derive(Default)]
struct Calls {
    parameters: Option<Parameters>,
    guest: Vec<Call>,
    metrics: Vec<Call>,
    /// Threads that are confined.
    confined: BTreeSet<libc::pid_t>,
}

/// Runs the command, whose wait status must be one of `statuses`. `watch` sees every call of a
/// confined thread, with the process and whether it is the guest's thread.
#[track_caller]
fn calls(
    command: &mut Command,
    statuses: &[libc::c_int],
    mut watch: impl FnMut(libc::pid_t, bool, &Call),
) -> Calls {
    let mut calls = Calls::default();
    let ended = trace_threads(command, |pid, thread, call| {
        if call.number == libc::SYS_seccomp {
            calls.confined.insert(thread);
            calls.parameters.get_or_insert_with(|| parameters(pid));
            return false;
        }
        if !calls.confined.contains(&thread) {
            return false;
        }
        watch(pid, thread == pid, &call);
        let list = match called(pid, thread).as_str() {
            _ if thread == pid => &mut calls.guest,
            "metrics" => &mut calls.metrics,
            other => panic!("a thread called {other}"),
        };
        list.push(call);
        false
    });
    assert!(
        statuses.contains(&ended),
        "{command:?} ended with {ended:#x}"
    );
    calls
}

/// The name of a thread.
fn called(pid: libc::pid_t, thread: libc::pid_t) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm"))
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Sends a traced process SIGTERM, the first time that `now` returns true.
fn end_when(mut now: impl FnMut(bool, &Call) -> bool) -> impl FnMut(libc::pid_t, bool, &Call) {
    let mut asked = false;
    move |pid, guest, call| {
        if !asked && now(guest, call) {
            asked = true;
            // SAFETY: takes numbers; the process is traced and not waited for, so the number is its
            // own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }
}

/// Reads the parameters of a run from its descriptors.
fn parameters(pid: libc::pid_t) -> Parameters {
    let mut parameters = Parameters {
        process: pid,
        thread: pid,
        child: child_of(pid as u32).map(|child| child as i32),
        ..Parameters::default()
    };
    let (mut frames, mut sockets) = (Vec::new(), Vec::new());
    let mut fds: Vec<i32> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    fds.sort_unstable();
    for fd in fds.iter().copied().filter(|fd| *fd > 2) {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        match text(&link) {
            link if link.starts_with("anon_inode:kvm-vcpu") => parameters.vcpu = Some(fd),
            link if link.starts_with("anon_inode:kvm-vm") => {}
            "/dev/net/tun" => frames.push(fd),
            link if link.starts_with("socket:") && is_managed(pid) => parameters.notify = Some(fd),
            link if link.starts_with("socket:") && is_debugged(pid) => {
                parameters.debugger = vec![fd]
            }
            link if link.starts_with("socket:") => sockets.push(fd),
            "anon_inode:[eventpoll]" => parameters.waits = vec![fd],
            "anon_inode:[timerfd]" => parameters.timer = Some(fd),
            link if link.starts_with("anon_inode:[eventfd") => parameters.metrics_end = vec![fd],
            link if link.ends_with("/statm") => parameters.statm = vec![fd],
            link if link.ends_with(".json") => parameters.stats = vec![fd],
            link if link.ends_with(".img") => parameters.disks.push(fd),
            link if link.ends_with(".hvt") => {
                parameters.lease = Some(fd);
                parameters.shared = mapped(pid, link);
            }
            // Opened one right after the other.
            link if std::path::Path::new(link).is_dir() => {
                parameters.cores = Some((parameters.cores.map_or(fd, |(first, _)| first), fd));
            }
            link => panic!("descriptor {fd} is {link}"),
        }
    }
    // There is either a metrics socket, or one that is an interface.
    if parameters.metrics_end.is_empty() {
        &mut frames
    } else {
        &mut parameters.listener
    }
    .append(&mut sockets);
    parameters.client = parameters
        .listener
        .iter()
        .map(|_| first_free(&fds))
        .collect();
    // There is one interface at most. Its second descriptor, the ring's, is made after it.
    match frames[..] {
        [] => {}
        [one] => parameters.nets = vec![one],
        [first, twin] => {
            (parameters.nets, parameters.ring_nets) = (vec![first], vec![twin]);
            // The first timer of a process has this ID.
            parameters.alarm = Some(0);
        }
        _ => panic!("{frames:?}"),
    }
    parameters
}

/// Returns the lengths of the mappings of a file.
fn mapped(pid: libc::pid_t, file: &str) -> Vec<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let of_file = maps.lines().filter(|line| line.ends_with(file));
    let length = |line: &str| {
        let (range, _) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(number(end)? - number(start)?)
    };
    of_file.map(|line| length(line).unwrap()).collect()
}

/// Returns the lowest free descriptor number.
fn first_free(fds: &[i32]) -> i32 {
    (3..)
        .find(|fd| !fds.contains(fd))
        .expect("there is always one more")
}

/// Whether the run notifies a service manager. Its interfaces are taps then.
fn is_managed(pid: libc::pid_t) -> bool {
    let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    variables
        .split(|byte| *byte == 0)
        .any(|variable| variable.starts_with(b"NOTIFY_SOCKET="))
}

/// Whether a debugger is connected to the run.
fn is_debugged(pid: libc::pid_t) -> bool {
    let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    args.split(|byte| *byte == 0).any(|word| word == b"--gdb")
}

/// Whether the rule allows the call.
fn allows(rule: &Rule, parameters: &Parameters, call: &Call) -> bool {
    let word = |argument: u8| call.arguments[usize::from(argument)];
    let half = |argument: u8| word(argument) & 0xffff_ffff;
    rule.call == call.number
        && rule.when.iter().all(|when| match *when {
            When::Is(argument, value) => half(argument) == value,
            When::Masked(argument, mask, values) => values.contains(&(half(argument) & mask)),
            When::OneOf(argument, parameter) => {
                parameters.values(parameter).contains(&half(argument))
            }
        })
}

/// The rules used so far, by their indices in the lists.
#[derive(Default)]
struct Used {
    guest: BTreeSet<usize>,
    metrics: BTreeSet<usize>,
}

impl Used {
    fn note(&mut self, calls: &Calls) {
        let parameters = calls.parameters.as_ref().expect("it was confined");
        assert!(calls.guest.iter().any(Call::is_run), "no guest ran");
        for (rules, used, calls) in [
            (GUEST, &mut self.guest, &calls.guest),
            (METRICS, &mut self.metrics, &calls.metrics),
        ] {
            for call in calls {
                let mut by: Vec<_> = (0..rules.len())
                    .filter(|i| allows(&rules[*i], parameters, call))
                    .collect();
                assert!(
                    !by.is_empty(),
                    "{:?} {call:x?} is in no rule",
                    name(call.number)
                );
                used.append(&mut by.drain(..).collect());
            }
        }
    }

    /// Returns the rules that should have been used and were not.
    fn missing(&self) -> Vec<&'static Rule> {
        let unused = |rules: &'static [Rule], used: &BTreeSet<usize>| {
            let unused = (0..rules.len())
                .filter(|i| !used.contains(i))
                .map(|i| &rules[i])
                .collect::<Vec<_>>();
            // `tender` tries a call that this kernel lacks once, before it is confined.
            let is_here = |rule: &&Rule| rule.call != libc::SYS_epoll_pwait2 || kernel() >= (5, 11);
            unused
                .into_iter()
                .filter(is_here)
                .filter(|rule| matches!(rule.need, Need::Always(_)))
        };
        unused(GUEST, &self.guest)
            .chain(unused(METRICS, &self.metrics))
            .collect()
    }
}

fn every_rule_is_used() {
    let mut used = Used::default();
    let directory = common::directory();
    let dumpcore = format!("--dumpcore={}", text(directory.path()));
    let command = &mut unikernel("hypercalls", &["--mem=4", &dumpcore], &["badptr"]);
    used.note(&calls(command, &[exits(1)], |_, _, _| {}));
    let manager = directory.path().join("notify");
    let _manager = UnixDatagram::bind(&manager).unwrap();
    let mut sleeper = unikernel("clock", &["--mem=2"], &["poll=60000000000"]);
    used.note(&calls(
        sleeper.env("NOTIFY_SOCKET", &manager),
        &[libc::SIGTERM],
        end_when(|_, call| call.is_poll()),
    ));
    used.note(&by_process());
    used.note(&debugged());
    used.note(&disk_and_frames());
    used.note(&web());
    used.note(&observed());
    // Whether a flood lasts long enough, and whether the file can be leased, depends on timing.
    let deadline = Instant::now() + LIMIT;
    while !used.missing().is_empty() && Instant::now() < deadline {
        used.note(&file_change());
        used.note(&ring("writes=2000"));
        used.note(&ring("mix=300"));
        used.note(&ring("burst=1"));
        used.note(&broken_ring());
    }
    let missing = used.missing();
    assert!(missing.is_empty(), "no run used {missing:#?}");
}
