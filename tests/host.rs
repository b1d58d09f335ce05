//! A host that lacks something, or does not let this user have it: each said in words of its own, with a cure.

mod common;

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use common::{Guest, net_test, root_test, run, unikernel};

fn main() -> ExitCode {
    common::main(vec![
        net_test("a_host_without_kvm_is_told", a_host_without_kvm_is_told),
        net_test("a_host_without_tun_is_told", a_host_without_tun_is_told),
        root_test("a_user_who_may_not_use_kvm_is_told", a_user_who_may_not_use_kvm_is_told),
        net_test("memory_the_host_does_not_have_is_told", memory_the_host_does_not_have_is_told),
    ])
}

/// Has the command start with an empty /dev, in a mount namespace of its own.
fn without_devices(command: &mut Command) -> &mut Command {
    // SAFETY: all calls are system calls, which are safe between fork and exec, and all strings end with a NUL.
    unsafe {
        command.pre_exec(|| {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let (none, nothing) = (c"none".as_ptr(), std::ptr::null());
            let done = libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), none, private, nothing) == 0
                && libc::mount(none, c"/dev".as_ptr(), c"tmpfs".as_ptr(), 0, nothing) == 0;
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    }
}

fn a_host_without_kvm_is_told() {
    run(without_devices(&mut unikernel("hello", &[], &[]))).is_refused(&["/dev/kvm", "No such file", "no KVM"]);
}

fn a_host_without_tun_is_told() {
    let _tap = common::net::Tap::up("tap0", std::net::Ipv4Addr::new(10, 0, 0, 1));
    run(without_devices(&mut unikernel("net", &["--net=tap0"], &[]))).is_refused(&["/dev/net/tun", "modprobe tun"]);
}

fn a_user_who_may_not_use_kvm_is_told() {
    let everybody = File::open("/dev/kvm").is_ok_and(|kvm| kvm.metadata().unwrap().permissions().mode() & 0o6 == 0o6);
    let directory = common::directory();
    let output = run(&mut common::as_nobody("hello", directory.path(), &["--mem=2"]));
    if everybody {
        output.exits(0);
    } else if File::open("/dev/kvm").is_ok() {
        output.is_refused(&["/dev/kvm", "Permission denied", "group kvm"]);
    } else {
        output.is_refused(&["/dev/kvm"]);
    }
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
