//! The programs as the kernel runs them: which calls they allow and reject, and their cost.

use libc::sock_filter;

use super::filter::compile;
use super::rules::{GUEST, KVM_RUN, METRICS, Need, Parameters, Rule, When, name};
use crate::arch::{self, CoreRegisters, Processor};

mod programs;
mod reference;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;

fn parameters() -> Parameters {
    Parameters {
        vcpu: Some(6),
        child: Some(44),
        waits: vec![20],
        timer: Some(21),
        room: vec![22],
        debugger: vec![31],
        nets: vec![7, 8],
        ring_nets: vec![10, 11],
        alarm: Some(0),
        disks: vec![9],
        lease: Some(23),
        shared: vec![0x10_0000, 0x3000],
        cores: Some((18, 19)),
        stats: vec![12],
        statm: vec![13],
        listener: vec![14],
        client: vec![15],
        metrics_end: vec![16],
        notify: Some(17),
        process: 42,
        thread: 43,
    }
}

/// Parameters of a run without devices, metrics or a debugger.
fn bare() -> Parameters {
    Parameters {
        vcpu: Some(6),
        waits: vec![20],
        process: 42,
        thread: 43,
        ..Parameters::default()
    }
}

fn guest(parameters: &Parameters) -> Vec<sock_filter> {
    compile(GUEST, parameters)
}

/// Returns seccompiler's program for the same list.
fn reference_program(rules: &[Rule], parameters: &Parameters) -> Vec<sock_filter> {
    let translate = |step: &seccompiler::sock_filter| sock_filter {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: step.k,
    };
    reference::compile(rules, parameters)
        .iter()
        .map(translate)
        .collect()
}

/// Runs a program on a call; returns its action, and how many instructions that took.
fn run(program: &[sock_filter], call: libc::c_long, arguments: [u64; 6]) -> (u32, usize) {
    let arch: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
    run_on(arch, program, call, arguments)
}

fn run_on(
    arch: u32,
    program: &[sock_filter],
    call: libc::c_long,
    arguments: [u64; 6],
) -> (u32, usize) {
    let mut data = [call as u32, arch, 0, 0].to_vec();
    data.extend(
        arguments
            .iter()
            .flat_map(|argument| [*argument as u32, (argument >> 32) as u32]),
    );
    let (mut accumulator, mut next, mut count) = (0, 0, 0);
    loop {
        let instruction = &program[next];
        let (code, k) = (u32::from(instruction.code), instruction.k);
        next += 1;
        count += 1;
        match code {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                accumulator = data[k as usize / 4]
            }
            code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
            code if code == libc::BPF_JMP | libc::BPF_JA => next += k as usize,
            code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                next += usize::from(if accumulator == k {
                    instruction.jt
                } else {
                    instruction.jf
                });
            }
            code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                next += usize::from(if accumulator >= k {
                    instruction.jt
                } else {
                    instruction.jf
                });
            }
            code if code == libc::BPF_RET | libc::BPF_K => return (k, count),
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn arguments_decide() {
    const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
    let program = guest(&parameters());
    let allowed = |call, arguments| run(&program, call, arguments).0 == ALLOW;
    let on = |fd| [fd, 0, 0, 0, 0, 0];
    assert!(!allowed(libc::SYS_ioctl, [5, KVM_RUN, 0, 0, 0, 0]));
    assert!(!allowed(
        libc::SYS_ioctl,
        [6, KVM_SET_USER_MEMORY_REGION, 0, 0, 0, 0]
    ));
    assert!(
        [1, 2, 7, 8, 10, 11, 12, 16, 17]
            .into_iter()
            .all(|fd| allowed(libc::SYS_write, on(fd)))
    );
    assert!(
        [0, 3, 6, 9, 13, 14, 15, u64::MAX]
            .into_iter()
            .all(|fd| !allowed(libc::SYS_write, on(fd)))
    );
    assert!(
        [7, 8, 10, 11]
            .into_iter()
            .all(|fd| allowed(libc::SYS_read, on(fd)))
    );
    assert!(
        [0, 1, 2, 6, 9, 17]
            .into_iter()
            .all(|fd| !allowed(libc::SYS_read, on(fd)))
    );
    assert!(allowed(libc::SYS_pread64, on(13)) && !allowed(libc::SYS_pwrite64, on(13)));
    assert!(!allowed(libc::SYS_sendto, on(17)) && !allowed(libc::SYS_sendmsg, on(17)));
    assert!(allowed(libc::SYS_pwrite64, on(9)) && !allowed(libc::SYS_pwrite64, on(7)));
    assert!(allowed(libc::SYS_epoll_pwait2, on(20)) && !allowed(libc::SYS_epoll_pwait2, on(21)));
    let waits = |set| allowed(libc::SYS_epoll_pwait, on(set));
    assert!(waits(20) && waits(22) && !waits(7));
    let change = |what: i32| allowed(libc::SYS_epoll_ctl, [20, what as u64, 7, 1 << 40, 0, 0]);
    assert!(
        change(libc::EPOLL_CTL_DEL) && !change(libc::EPOLL_CTL_ADD) && !change(libc::EPOLL_CTL_MOD)
    );
    assert!(
        allowed(libc::SYS_timerfd_settime, on(21)) && !allowed(libc::SYS_timerfd_settime, on(20))
    );
    assert!(allowed(libc::SYS_ppoll, [1 << 40, 1, 0, 0, 0, 0]));
    assert!(!allowed(libc::SYS_ppoll, [1 << 40, 2, 0, 0, 0, 0]));
    let memory = |protection, flags| {
        allowed(
            libc::SYS_mmap,
            [0, 4096, protection as u64, flags as u64, 9, 0],
        )
    };
    assert!(memory(
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS
    ));
    assert!(!memory(
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS
    ));
    assert!(
        !memory(libc::PROT_READ, libc::MAP_PRIVATE) && !memory(libc::PROT_READ, libc::MAP_SHARED)
    );
    assert!(!memory(
        libc::PROT_READ,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS
    ));
    assert!(!allowed(
        libc::SYS_mprotect,
        [0, 4096, libc::PROT_EXEC as u64, 0, 0, 0]
    ));
    let kill = |process, thread, signal: i32| {
        allowed(libc::SYS_tgkill, [process, thread, signal as u64, 0, 0, 0])
    };
    assert!(kill(42, 43, libc::SIGTERM));
    assert!(
        !kill(41, 43, libc::SIGTERM)
            && !kill(42, 44, libc::SIGTERM)
            && !kill(42, 43, libc::SIGKILL)
    );
    let action = |signal: i32| allowed(libc::SYS_rt_sigaction, on(signal as u64));
    assert!(action(libc::SIGTERM) && !action(libc::SIGSYS));
    let futex = |operation: i32| allowed(libc::SYS_futex, [0, operation as u64, 0, 0, 0, 0]);
    assert!(futex(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG));
    assert!(!futex(libc::FUTEX_REQUEUE) && !futex(libc::FUTEX_LOCK_PI));
}

/// Returns arguments that the rule allows, with each number known at run time in turn.
fn allowed_by(rule: &Rule, parameters: &Parameters) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6]];
    for when in rule.when {
        let (argument, values) = match *when {
            When::Is(argument, value) => (argument, vec![value]),
            When::Masked(argument, _, values) => (argument, values.to_vec()),
            When::OneOf(argument, parameter) => (argument, parameters.values(parameter)),
        };
        let set = |mut arguments: [u64; 6], value| {
            arguments[usize::from(argument)] = value;
            arguments
        };
        all = all
            .iter()
            .flat_map(|arguments| values.iter().map(move |value| set(*arguments, *value)))
            .collect();
    }
    all
}

/// Each request, such as those of a report, goes only to the run's own descriptors.
#[test]
fn calls_are_limited_to_the_descriptors_of_the_run() {
    const ON_DESCRIPTORS: [libc::c_long; 10] = [
        libc::SYS_ioctl,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_fdatasync,
        libc::SYS_openat,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_recvmsg,
    ];
    for rules in [GUEST, METRICS] {
        let program = compile(rules, &parameters());
        for rule in rules
            .iter()
            .filter(|rule| ON_DESCRIPTORS.contains(&rule.call))
        {
            for [_, rest @ ..] in allowed_by(rule, &parameters()) {
                for other in [3, 4, 5, 20, 42, u64::from(u32::MAX)] {
                    let [b, c, d, e, f] = rest;
                    let answer = run(&program, rule.call, [other, b, c, d, e, f]).0;
                    assert_eq!(answer, TRAP, "{rule:?} on descriptor {other}, {rest:x?}");
                }
            }
        }
    }
}

/// Only one new file in the directory, accessible to its owner only, under the one descriptor.
#[test]
fn core_files_are_new() {
    let (program, theirs) = (
        guest(&parameters()),
        reference_program(GUEST, &parameters()),
    );
    let allowed = |call, arguments| {
        let answer = run(&program, call, arguments).0;
        assert_eq!(
            answer,
            run(&theirs, call, arguments).0,
            "{call}, {arguments:x?}"
        );
        answer == ALLOW
    };
    let flags =
        (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
    let mode = 0o600;
    let open =
        |directory, flags, mode| allowed(libc::SYS_openat, [directory, 1 << 40, flags, mode, 0, 0]);
    assert!(open(18, flags, mode));
    assert!(
        [libc::AT_FDCWD as u64, 0, 9, 17, 19]
            .into_iter()
            .all(|other| !open(other, flags, mode))
    );
    for bit in 0..32 {
        assert!(
            !open(18, flags ^ 1 << bit, mode) && !open(18, flags, mode ^ 1 << bit),
            "{bit}"
        );
    }
    let dup = |from, to, flags| allowed(libc::SYS_dup3, [from, to, flags, 0, 0, 0]);
    assert!(dup(25, 19, libc::O_CLOEXEC as u64) && !dup(25, 19, 0));
    assert!(
        (0..30)
            .filter(|to| *to != 19)
            .all(|to| !dup(25, to, libc::O_CLOEXEC as u64))
    );
    assert!(
        allowed(libc::SYS_pwrite64, [19, 0, 0, 0, 0, 0])
            && !allowed(libc::SYS_pwrite64, [18, 0, 0, 0, 0, 0])
    );
    for call in [
        libc::SYS_write,
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_fdatasync,
    ] {
        assert!(
            !allowed(call, [18, 0, 0, 0, 0, 0]) && !allowed(call, [19, 0, 0, 0, 0, 0]),
            "{call}"
        );
    }
    let without = guest(&Parameters {
        cores: None,
        debugger: Vec::new(),
        ..parameters()
    });
    for request in arch::Vcpu::CORE_REQUESTS {
        let arguments = [6, *request, 0, 0, 0, 0];
        assert!(
            allowed(libc::SYS_ioctl, arguments)
                && run(&without, libc::SYS_ioctl, arguments).0 == TRAP
        );
    }
}

/// The thread that serves clients may do the least.
#[test]
fn the_metrics_thread_can_only_serve_clients() {
    let program = compile(METRICS, &parameters());
    let allowed = |call, first| run(&program, call, [first, 0, 0, 0, 0, 0]).0 == ALLOW;
    for call in [libc::SYS_read, libc::SYS_write, libc::SYS_close] {
        assert!(
            allowed(call, 15)
                && [0, 1, 6, 7, 9, 10, 12, 13, 16]
                    .into_iter()
                    .all(|fd| !allowed(call, fd)),
            "{call}"
        );
        assert_eq!(allowed(call, 14), call == libc::SYS_close, "{call}");
    }
    assert!(allowed(libc::SYS_write, 2) && !allowed(libc::SYS_read, 2));
    assert!(allowed(libc::SYS_accept4, 14) && !allowed(libc::SYS_accept4, 7));
    assert!(allowed(libc::SYS_pread64, 13) && !allowed(libc::SYS_pread64, 9));
    for call in [
        libc::SYS_ioctl,
        libc::SYS_tgkill,
        libc::SYS_pwrite64,
        libc::SYS_recvmsg,
        libc::SYS_socket,
    ] {
        assert!((0..20).all(|fd| !allowed(call, fd)), "{call}");
    }
}

/// A list without a disk must not become one with any disk.
#[test]
fn no_device_means_no_call() {
    let program = guest(&bare());
    for call in [
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_fdatasync,
        libc::SYS_read,
        libc::SYS_mincore,
        libc::SYS_openat,
        libc::SYS_dup3,
    ] {
        assert!(
            (0..20).all(|fd| run(&program, call, [fd, 0, 0, 0, 0, 0]).0 == TRAP),
            "{call}"
        );
    }
    assert!((3..20).all(|fd| run(&program, libc::SYS_write, [fd, 0, 0, 0, 0, 0]).0 == TRAP));
}

/// Calls in none of the lists, with any arguments: also calls that do not exist yet, and those of
/// x86's other ways to make one.
#[test]
fn everything_else_is_refused() {
    let programs = [GUEST, METRICS].map(|rules| (rules, compile(rules, &parameters())));
    for (rules, program) in programs {
        let others = (0..1000)
            .chain([-1, 0x4000_0001])
            .filter(|call| !rules.iter().any(|rule| rule.call == *call));
        for call in others {
            assert_eq!(
                run(&program, call, [6, KVM_RUN, 0, 0, 0, 0]).0,
                TRAP,
                "{call}"
            );
        }
        let i386 = run_on(
            0x4000_0003,
            &program,
            libc::SYS_ioctl,
            [6, KVM_RUN, 0, 0, 0, 0],
        )
        .0;
        assert_eq!(i386, libc::SECCOMP_RET_KILL_PROCESS);
    }
}

#[test]
fn every_rule_has_a_name_and_a_reason() {
    for Rule { call, need, .. } in GUEST.iter().chain(METRICS) {
        assert!(name(*call).is_some(), "{call}");
        let (Need::Always(why) | Need::Seldom(why)) = need;
        assert!(!why.is_empty());
    }
    assert_eq!(name(libc::SYS_ptrace), Some("ptrace"));
    assert_eq!(name(9999), None);
}
