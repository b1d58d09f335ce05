//! What the operator sees of the sandbox: its options, and what a kernel lacks.

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine};
use crate::common::{Guest, refuse, run, status, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(the_active_layers_are_logged, Kvm),
        trial!(a_running_guest_is_confined, Kvm),
        trial!(a_missing_layer_fails_only_in_strict_mode, KvmEngine),
        trial("a_kernel_that_knows_nothing_of_speculation_filters_all_the_same")
            .needs(&[Kvm])
            .run(a_kernel_before_speculation),
        #[cfg(target_arch = "x86_64")]
        trial("a_missing_filter_of_registers_is_done_without_unless_strict")
            .needs(&[KvmEngine])
            .run(a_missing_filter_of_registers),
    ]
}

/// `_IOW(KVMIO, 0xc6, struct kvm_msr_filter)`.
#[cfg(target_arch = "x86_64")]
const KVM_X86_SET_MSR_FILTER: u32 = 0x4188_aec6;

fn the_active_layers_are_logged() {
    let filtered = "system calls filtered\n";
    run(&mut unikernel("hello", &["-v", "--mem=2"], &[]))
        .exits(0)
        .complains("sandbox: no privileges")
        .complains(filtered);
    run(&mut unikernel(
        "hello",
        &["-v", "--mem=2", "--sandbox=off"],
        &[],
    ))
    .exits(0)
    .complains("sandbox: off\n");
    run(&mut unikernel("hello", &["--mem=2"], &[]))
        .exits(0)
        .is_quiet();
}

/// A guest that has printed a line and sleeps.
fn sleeping(options: &[&str]) -> Guest {
    let guest = Guest::start(&mut unikernel(
        "clock",
        &[&["--mem=2"], options].concat(),
        &["poll=100000000000"],
    ));
    guest.wait_for("Hz\n");
    guest
}

fn a_running_guest_is_confined() {
    let guest = sleeping(&[]);
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(guest.pid(), name), "0000000000000000", "{name}");
    }
    assert_eq!(
        (
            status(guest.pid(), "NoNewPrivs"),
            status(guest.pid(), "Seccomp")
        ),
        ("1".into(), "2".into())
    );
    let free = sleeping(&["--sandbox=off"]);
    assert_eq!(
        status(free.pid(), "Seccomp"),
        status(std::process::id(), "Seccomp")
    );
}

fn a_missing_layer_fails_only_in_strict_mode() {
    const CREATE_RULESET: libc::c_long = 444;
    let hello = |option, call, errno| {
        run(refuse::fails(
            &mut unikernel("hello", &["-v", "--mem=2", option], &[]),
            call,
            &[],
            errno,
        ))
    };
    let strict = "--sandbox=strict";
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
        let output = hello("--sandbox=best-effort", CREATE_RULESET, errno);
        output
            .exits(0)
            .prints("memory:")
            .complains("no Landlock, system calls filtered\n");
        let output = hello(strict, CREATE_RULESET, errno);
        output
            .exits(1)
            .complains("--sandbox=strict: this kernel lacks Landlock")
            .complains("--sandbox=best-effort");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    for errno in [libc::ENOSYS, libc::EINVAL] {
        let output = hello("--sandbox=best-effort", libc::SYS_seccomp, errno);
        output
            .exits(0)
            .prints("memory:")
            .complains("warn: sandbox: this kernel lacks or denies seccomp")
            .complains("NOT filtered");
        hello("--sandbox=off", libc::SYS_seccomp, errno)
            .exits(0)
            .complains("sandbox: off");
        let output = hello(strict, libc::SYS_seccomp, errno);
        output.exits(1).complains("lacks");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    // Parts that every kernel has, but a container may deny.
    hello(strict, libc::SYS_capset, libc::EPERM)
        .exits(1)
        .complains("lacks the dropping of capabilities");
}

/// A kernel before 4.17, which rejects unknown seccomp flags.
fn a_kernel_before_speculation() {
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    let mut command = unikernel("hello", &["-v", "--mem=2"], &[]);
    let output = run(refuse::fails(
        &mut command,
        libc::SYS_seccomp,
        &[(1, flags)],
        libc::EINVAL,
    ));
    output
        .exits(0)
        .prints("memory:")
        .complains("system calls filtered\n");
}

/// A kernel before 5.10.
#[cfg(target_arch = "x86_64")]
fn a_missing_filter_of_registers() {
    let hello = |option| {
        let mut command = unikernel("hello", &["-v", "--mem=2", option], &[]);
        run(refuse::fails(
            &mut command,
            libc::SYS_ioctl,
            &[(1, KVM_X86_SET_MSR_FILTER)],
            libc::ENOTTY,
        ))
    };
    for option in ["--sandbox=best-effort", "--sandbox=off"] {
        hello(option)
            .exits(0)
            .prints("memory:")
            .complains("KVM cannot deny model-specific registers");
    }
    hello("--sandbox=strict").is_refused(&[
        "--sandbox=strict: this kernel lacks KVM's filter",
        "--sandbox=best-effort",
    ]);
}
