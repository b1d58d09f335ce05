//! Calls, memory, tasks and descriptors that the kernel refuses.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use libtest_mimic::Trial;
use seccompiler::SeccompAction;

use crate::common::Need::{Kvm, KvmEngine, Mounts, Root};
use crate::common::Resource;
use crate::common::inject::{Fault, first, inject, inject_without_vdso, once_running};
use crate::common::net::datagram;
use crate::common::trace::Call;
use crate::common::{
    Device, FD, as_nobody, directory, kernel, pass_fd, refuse, run, text, trial, unikernel, vdso,
};
use crate::host_faults::Image;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("process::a_guest_without_a_task_for_kvm_ends")
            .needs(&[KvmEngine])
            .run(a_guest_without_a_task_for_kvm_ends),
        trial("process::a_user_without_a_task_for_kvm_gets_the_cause")
            .needs(&[Root, Mounts, KvmEngine])
            .run(a_user_without_a_task_for_kvm),
        trial("process::calls_that_never_fail_otherwise_may_be_rejected")
            .needs(&[Kvm])
            .run(calls_that_never_fail_otherwise),
        trial("process::calls_refused_from_the_start_are_done_without")
            .needs(&[Kvm])
            .run(calls_refused_from_the_start),
        trial("process::a_clock_refused_by_a_filter_is_done_without_or_reported")
            .needs(&[Kvm])
            .run(a_clock_refused_by_a_filter),
        trial("process::a_refused_clock_is_reported_in_each_format")
            .needs(&[Kvm])
            .run(a_refused_clock_is_reported),
        trial("process::calls_refused_later_end_nothing_silently")
            .needs(&[Kvm])
            .run(calls_refused_later),
        trial("process::refused_memory_is_reported")
            .needs(&[Kvm])
            .run(refused_memory_is_reported),
        trial("process::refused_descriptors_are_reported")
            .needs(&[KvmEngine])
            .run(refused_descriptors_are_reported),
    ]
}

/// The message at the limit of tasks: KVM creates a thread when the guest first runs.
const NO_TASK: [&str; 4] = ["KVM_RUN failed: ", "TasksMax=", "ulimit -u", "(pc 0x"];

fn a_guest_without_a_task_for_kvm_ends() {
    let refused = |call: &Call| call.is_run().then_some(Fault::Fails(libc::EAGAIN));
    inject(&mut unikernel("hello", &["--mem=4"], &[]), refused).fails(&NO_TASK);
}

/// Before Linux 6.13, and on ARM64, KVM needs no such thread, and the guest runs.
fn a_user_without_a_task_for_kvm() {
    let directory = directory();
    let mut command = as_nobody(
        "hello",
        directory.path(),
        &[Device::Made("kvm", 0o666)],
        &["--mem=4"],
    );
    crate::common::limit(&mut command, Resource::Nproc, 1);
    let output = run(&mut command);
    _ = if output.code() == 0 {
        output.prints("memory: ")
    } else {
        output.fails(&NO_TASK)
    };
}

/// A seccomp filter around `tender` rejects one call, by an error or by SIGSYS: `tender` uses
/// another call, or prints one line.
fn calls_refused_from_the_start() {
    let without = |call, answer: &SeccompAction, arguments: &[&str]| {
        let mut command = unikernel("clock", &["--mem=2", "-v"], arguments);
        run(refuse::refuses(&mut command, call, &[], answer.clone()))
    };
    let errors =
        [libc::EPERM, libc::EACCES, libc::ENOSYS].map(|error| SeccompAction::Errno(error as u32));
    for answer in errors.iter().chain([&SeccompAction::Trap]) {
        let new: &[_] = if kernel() >= (5, 11) {
            &[libc::SYS_epoll_pwait, libc::SYS_timerfd_settime]
        } else {
            &[]
        };
        for &call in [libc::SYS_ppoll, libc::SYS_epoll_pwait2].iter().chain(new) {
            let output = without(call, answer, &["poll=100000000"]);
            output
                .exits(0)
                .prints("ns took ")
                .complains("sandbox: ")
                .complains("the guest halted with status 0");
        }
        let output = without(libc::SYS_epoll_create1, answer, &[]);
        output
            .exits(1)
            .complains("POLL cannot wait: ")
            .complains("must allow epoll_pwait2");
        for (option, value) in [("--metrics", "=unix:@tender-without-ppoll"), ("--gdb", "")] {
            let mut command = unikernel("hello", &["--mem=2", &format!("{option}{value}")], &[]);
            let output = run(refuse::refuses(
                &mut command,
                libc::SYS_ppoll,
                &[],
                answer.clone(),
            ));
            output.fails(&[option, ": cannot wait for clients: ", "must allow ppoll"]);
        }
    }
}

/// The message of a start that cannot read the clock.
const NO_CLOCK: [&str; 2] = [
    "hvt: cannot read the clock: ",
    "; the seccomp filter around tender must allow clock_gettime\n",
];

/// Most hosts provide the time in user space, which no filter refuses.
fn a_clock_refused_by_a_filter() {
    let refused = |options: &[&str], answer| {
        let mut command = unikernel("clock", options, &[]);
        let call = libc::SYS_clock_gettime;
        run(refuse::refuses(&mut command, call, &[], answer))
    };
    let vdso = vdso();
    let errors = [libc::EPERM, libc::ENOSYS].map(|error| SeccompAction::Errno(error as u32));
    for answer in errors.into_iter().chain([SeccompAction::Trap]) {
        let output = refused(&["--mem=4"], answer.clone());
        let checked = refused(&["--mem=4", "--check"], answer);
        if vdso.is_ok() {
            output.exits(0).prints("clock: ok").is_quiet();
            checked.exits(0).prints("would start").is_quiet();
        } else {
            output.is_refused(&NO_CLOCK);
            checked.exits(1).prints("cannot read the clock").is_quiet();
        }
    }
}

/// Where the clock needs a system call: a run makes it, and if it fails, each format still has one
/// line, although JSON has the time in it.
fn a_refused_clock_is_reported() {
    let is_clock = |call: &Call| call.number == libc::SYS_clock_gettime;
    let hello = |options: &[&str]| unikernel("hello", &[&["--mem=2"], options].concat(), &[]);
    let mut asked = 0;
    let output = inject_without_vdso(&mut hello(&[]), |call| {
        asked += usize::from(is_clock(call));
        None
    });
    output.exits(0).prints("memory: ").is_quiet();
    assert!(asked > 0, "the time came from elsewhere");
    for error in [libc::EPERM, libc::ENOSYS] {
        let refused = |options: &[&str]| {
            let fault = |call: &Call| is_clock(call).then_some(Fault::Fails(error));
            inject_without_vdso(&mut hello(options), fault)
        };
        refused(&[]).is_refused(&NO_CLOCK);
        refused(&["-v", "--log-format=text"]).is_refused(&NO_CLOCK);
        let journald = refused(&["--log-format=journald"]);
        journald
            .exits(1)
            .complains(NO_CLOCK[0])
            .complains(NO_CLOCK[1]);
        assert!(journald.stderr.starts_with("<3>tender: ") && journald.stderr.lines().count() == 1);
        let json = refused(&["--log-format=json"]);
        let line: serde_json::Value = serde_json::from_str(&json.exits(1).stderr).unwrap();
        let message = format!("{}\n", line["message"].as_str().unwrap());
        assert!(NO_CLOCK.iter().all(|part| message.contains(part)), "{line}");
        assert_eq!(line["ts"], "1970-01-01T00:00:00.000000Z");
        let checked = refused(&["--check"]);
        checked
            .exits(1)
            .prints("missing  clock ")
            .prints("would not start: 1 problem")
            .is_quiet();
    }
}

/// Calls that never fail without a filter: a rejection changes at most a message.
fn calls_that_never_fail_otherwise() {
    for call in [
        libc::SYS_geteuid,
        libc::SYS_getegid,
        libc::SYS_getuid,
        libc::SYS_gettid,
        libc::SYS_umask,
        libc::SYS_getgroups,
        libc::SYS_prlimit64,
    ] {
        for error in [libc::EPERM, libc::ENOSYS] {
            let directory = directory();
            let metrics = format!("--metrics=unix:{}", text(&directory.path().join("socket")));
            let mut command = unikernel("hello", &["--mem=2", &metrics], &[]);
            let output = run(refuse::fails(&mut command, call, &[], error));
            output.exits(0).prints("memory: ");
        }
    }
}

/// Every call of a running guest fails with errors that the kernel never returns: no run hangs, and
/// none fails without a line.
fn calls_refused_later() {
    let calls = [
        ("KVM_RUN", libc::SYS_ioctl),
        ("read", libc::SYS_read),
        ("write", libc::SYS_write),
        ("ppoll", libc::SYS_ppoll),
        ("epoll_pwait2", libc::SYS_epoll_pwait2),
        ("epoll_pwait", libc::SYS_epoll_pwait),
        ("timerfd_settime", libc::SYS_timerfd_settime),
        ("pread64", libc::SYS_pread64),
        ("pwrite64", libc::SYS_pwrite64),
        ("fdatasync", libc::SYS_fdatasync),
        ("setitimer", libc::SYS_setitimer),
        ("close", libc::SYS_close),
        ("munmap", libc::SYS_munmap),
        ("brk", libc::SYS_brk),
        ("mmap", libc::SYS_mmap),
    ];
    for (name, number) in calls {
        let is_of_disks = name.starts_with('p') && name != "ppoll" || name == "fdatasync";
        for error in [libc::EPERM, libc::ENOSYS] {
            let refused =
                once_running(|call| (call.number == number).then_some(Fault::Fails(error)));
            let image = Image::new();
            let mut block = image.block(&[]);
            let (mut echo, _peer) = echo();
            let output = inject(if is_of_disks { &mut block } else { &mut echo }, refused);
            println!(
                "{name}, error {error}: {}, {:?}",
                output.status,
                output.stderr.lines().next_back()
            );
            // An error of writing itself cannot be reported.
            let silent = output.stderr.is_empty() && number != libc::SYS_write;
            assert!(
                output.code() == 0 || !silent,
                "{name}, error {error}: {output:?}"
            );
        }
    }
}

/// The unikernel `net` with `-v`, and its peer, which has already sent the frame that ends it.
fn echo() -> (Command, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.send(&datagram(b"quit")).unwrap();
    let options = [
        "--mem=4",
        "-v",
        "--timeout=5",
        &format!("--net=@{FD}"),
        "--net-mac=02:00:00:00:00:02",
    ];
    (
        pass_fd(unikernel("net", &options, &["--ipv4=10.0.0.2/24"]), theirs),
        ours,
    )
}

/// Under strict overcommit, memory that is not available is not promised.
fn refused_memory_is_reported() {
    let is_memory = |call: &Call| call.number == libc::SYS_mmap && call.arguments[1] >= 64 << 20;
    let output = inject(
        &mut unikernel("hello", &["--mem=64"], &[]),
        first(1, Fault::Fails(libc::ENOMEM), is_memory),
    );
    output.is_refused(&[
        "cannot reserve 64 MiB of guest memory: ",
        "Cannot allocate memory",
    ]);
}

/// KVM_CREATE_VM, and each request that creating a vCPU takes.
fn refused_descriptors_are_reported() {
    for (request, part) in [
        (0xae01, "KVM_CREATE_VM failed: "),
        (0xae41, "KVM_CREATE_VCPU failed: "),
    ] {
        for error in [libc::EMFILE, libc::ENOMEM] {
            let is_it =
                |call: &Call| call.number == libc::SYS_ioctl && call.arguments[1] == request;
            let output = inject(
                &mut unikernel("hello", &["--mem=4"], &[]),
                first(1, Fault::Fails(error), is_it),
            );
            output.is_refused(&["hello.hvt: ", part]);
        }
    }
}
