//! The cost of a run in system calls: few to start, one for each I/O, and none without I/O.

use libtest_mimic::Trial;
use std::fs::File;
use std::os::unix::net::UnixDatagram;

use crate::common::Need::KvmEngine;
use crate::common::net::datagram;
use crate::common::trace::{Call, Trace, trace};
use crate::common::{self, FD, kernel, pass_fd, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(the_guest_starts_within_100_calls, KvmEngine),
        trial!(calls_without_io_cost_nothing, KvmEngine),
        trial!(output_costs_one_write, KvmEngine),
        trial("sleep_costs_one_poll")
            .needs(&[KvmEngine])
            .try_run(sleep_costs_one_poll),
        trial!(blocks_cost_one_call_each, KvmEngine),
        trial("frames_cost_one_call_each")
            .needs(&[KvmEngine])
            .try_run(frames_cost_one_call_each),
    ]
}

const START_LIMIT: usize = 100;

/// Returns how often a call with this number was made within hypercalls, each of which may make
/// one.
#[track_caller]
fn count(trace: &Trace, number: i64) -> usize {
    let calls: Vec<&Call> = trace.hypercalls().into_iter().flatten().collect();
    for pieces in trace.hypercalls() {
        assert!(
            pieces.len() <= 1,
            "more than one call for a hypercall: {pieces:?}"
        );
    }
    calls
        .into_iter()
        .filter(|call| call.number == number)
        .count()
}

/// Returns how many calls were made within hypercalls.
fn all(trace: &Trace) -> usize {
    trace.hypercalls().into_iter().flatten().count()
}

/// The installed `tender` is static, so the calls of a dynamic loader are not counted.
fn the_guest_starts_within_100_calls() {
    let trace = trace(&mut unikernel("hello", &["--mem=2"], &[]));
    assert_eq!(trace.status, 0);
    let calls = trace.start() - trace.loader();
    assert!(
        calls <= START_LIMIT,
        "{calls} system calls from exec to the first KVM_RUN"
    );
    assert!(calls > 10, "not even what KVM needs: {calls}");
}

/// Ten each of WALLTIME, PUTS of nothing and POLL without a timeout, after one line.
fn calls_without_io_cost_nothing() {
    let trace = trace(&mut unikernel(
        "hypercalls",
        &["--mem=4"],
        &["ok-storm", "30"],
    ));
    assert_eq!(trace.status, 0);
    assert_eq!(trace.hypercalls().len(), 31);
    assert_eq!(
        (count(&trace, libc::SYS_write), all(&trace)),
        (1, 1),
        "{:?}",
        trace.hypercalls()
    );
}

fn output_costs_one_write() {
    let trace = trace(&mut unikernel(
        "hypercalls",
        &["--mem=4"],
        &["puts-flood", "20"],
    ));
    assert_eq!(
        (trace.status, count(&trace, libc::SYS_write), all(&trace)),
        (0, 21, 21)
    );
}

/// Whether this kernel's `epoll` takes nanoseconds; otherwise a sleep needs a timer.
fn polls_in_one_call() -> Result<(), String> {
    if kernel() >= (5, 11) {
        Ok(())
    } else {
        Err("this kernel has no epoll_pwait2".into())
    }
}

fn sleep_costs_one_poll() -> Result<(), String> {
    polls_in_one_call()?;
    let trace = trace(&mut unikernel("clock", &["--mem=2"], &["poll=1000000"]));
    let lines = count(&trace, libc::SYS_write);
    assert_eq!(
        (
            trace.status,
            count(&trace, libc::SYS_epoll_pwait2),
            all(&trace)
        ),
        (0, 1, lines + 1)
    );
    Ok(())
}

fn blocks_cost_one_call_each() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let option = format!("--disk={}", common::text(&path));
    for (mode, number) in [("fill", libc::SYS_pwrite64), ("verify", libc::SYS_pread64)] {
        let trace = trace(&mut unikernel("block", &["--mem=4", &option], &[mode]));
        let lines = count(&trace, libc::SYS_write);
        assert_eq!(
            (trace.status, count(&trace, number), all(&trace)),
            (0, 5, lines + 5),
            "{mode}"
        );
    }
}

/// Two datagrams for the echo port, the second of which ends the guest: each is read and answered,
/// after the guest's announcement. At most one read finds nothing.
fn frames_cost_one_call_each() -> Result<(), String> {
    polls_in_one_call()?;
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(&datagram(b"hello")).unwrap();
    ours.send(&datagram(b"quit")).unwrap();
    let options = [
        &format!("--net=@{FD}"),
        "--net-mac=02:00:00:00:00:02",
        "--mem=4",
    ];
    let trace = trace(&mut pass_fd(
        unikernel("net", &options, &["--ipv4=10.0.0.2/24"]),
        theirs,
    ));
    assert_eq!(trace.status, 0);
    let lines = trace.hypercalls().into_iter().flatten();
    let lines = lines
        .filter(|call| call.number == libc::SYS_write && call.arguments[0] == 1)
        .count();
    assert_eq!(
        count(&trace, libc::SYS_write),
        lines + 3,
        "{:?}",
        trace.hypercalls()
    );
    let polls = count(&trace, libc::SYS_epoll_pwait2);
    assert_eq!(
        (count(&trace, libc::SYS_read), polls),
        (2, 1),
        "{:?}",
        trace.hypercalls()
    );
    assert_eq!(all(&trace), lines + 3 + 2 + 1, "{:?}", trace.hypercalls());
    Ok(())
}
