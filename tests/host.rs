//! A host that lacks something, or does not let this user have it: each said in words of its own, with a cure.

mod common;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use common::{Device, Guest, Output, net_test, root_mount_test, run, unikernel, with_devices};

fn main() -> ExitCode {
    common::main(vec![
        net_test("a_host_without_kvm_is_told", a_host_without_kvm_is_told),
        net_test("a_host_without_tun_is_told", a_host_without_tun_is_told),
        root_mount_test("a_user_who_may_not_use_kvm_is_told", a_user_who_may_not_use_kvm_is_told),
        net_test("memory_the_host_does_not_have_is_told", memory_the_host_does_not_have_is_told),
    ])
}

/// Runs it with these devices only.
fn run_with(mut command: Command, devices: &[Device]) -> Output {
    let directory = common::directory();
    run(with_devices(&mut command, directory.path(), devices))
}

/// That is told before anything is done with a tap or a disk.
fn a_host_without_kvm_is_told() {
    let words = ["/dev/kvm", "No such file", "no KVM"];
    run_with(unikernel("hello", &[], &[]), &[]).is_refused(&words);
    run_with(unikernel("net", &["--net=tap0"], &[]), &[Device::Ours("net/tun")]).is_refused(&words);
}

fn a_host_without_tun_is_told() {
    let _tap = common::net::Tap::up("tap0", std::net::Ipv4Addr::new(10, 0, 0, 1));
    let output = run_with(unikernel("net", &["--net=tap0"], &[]), &[Device::Ours("kvm")]);
    output.is_refused(&["/dev/net/tun", "modprobe tun"]);
}

fn a_user_who_may_not_use_kvm_is_told() {
    let run_with = |mode| {
        let directory = common::directory();
        run(&mut common::as_nobody("hello", directory.path(), &[Device::Made("kvm", mode)], &["--mem=2"]))
    };
    run_with(0o666).exits(0).is_quiet().says("memory: 2097152 bytes");
    run_with(0o660).is_refused(&["/dev/kvm", "Permission denied", "group kvm"]);
}

/// With less address space than the guest is to get.
fn memory_the_host_does_not_have_is_told() {
    let mut command = unikernel("hello", &["--mem=1G"], &[]);
    let limit = libc::rlimit { rlim_cur: 512 << 20, rlim_max: 512 << 20 };
    // SAFETY: setrlimit reads the limit and is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Guest::start(&mut command).end().is_refused(&["memory", "Cannot allocate"]);
}
