//! A host that lacks something, or denies this user access to it: each case has a specific message
//! with a hint.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine, Mounts, Net, Root};
use crate::common::Resource;
use crate::common::inject::{Fault, first, inject};
use crate::common::trace::Call;
use crate::common::{
    self, Device, Guest, Output, by_process, refuse, run, unikernel, with_devices,
};
use tender::host::ids::{group_name, user_name};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_device_that_was_not_passed_is_named, KvmEngine, Net),
        trial!(a_device_list_is_distinguished_from_permissions, KvmEngine),
        trial!(a_refused_vm_is_reported_with_its_cause, KvmEngine),
        trial!(a_host_without_tun_is_reported, Kvm, Net),
        trial!(
            a_tun_device_that_does_not_open_is_reported_by_its_error,
            Kvm,
            Net
        ),
        trial!(an_interrupted_request_about_a_tap_is_made_again, Kvm, Net),
        trial!(
            a_user_without_access_to_kvm_is_reported,
            Root,
            Mounts,
            KvmEngine
        ),
        trial!(
            a_user_who_joined_a_group_after_the_login_is_reported,
            Root,
            KvmEngine,
            Net
        ),
        trial!(memory_that_the_host_lacks_is_reported, Kvm, Net),
    ]
}

/// Runs it with only these devices.
fn run_with(mut command: Command, devices: &[Device]) -> Output {
    let directory = common::directory();
    run(with_devices(&mut command, directory.path(), devices))
}

/// The message comes before `tender` touches a tap or a disk. The kernel here has KVM.
fn a_device_that_was_not_passed_is_named() {
    let args = [
        "/dev/kvm",
        "No such file",
        "was not passed to this container or unit: --device /dev/kvm,",
    ];
    run_with(unikernel("hello", &[], &[]), &[]).is_refused(&args);
    run_with(
        unikernel("net", &["--net=tap0"], &[]),
        &[Device::Ours("net/tun")],
    )
    .is_refused(&args);
}

fn a_host_without_tun_is_reported() {
    let _tap = common::net::Tap::up("tap0", std::net::Ipv4Addr::new(10, 0, 0, 1));
    let output = run_with(
        unikernel("net", &["--net=tap0"], &[]),
        &[Device::Ours("kvm")],
    );
    output.is_refused(&["/dev/net/tun", "modprobe tun"]);
}

/// Runs a unikernel as an ordinary user, with this device only.
fn run_unprivileged(device: Device) -> Output {
    let (name, directory) = ("hello", common::directory());
    run(&mut common::as_nobody(
        name,
        directory.path(),
        &[device],
        &["--mem=2"],
    ))
}

fn a_user_without_access_to_kvm_is_reported() {
    let run_with = |mode| run_unprivileged(Device::Made("kvm", mode));
    run_with(0o666)
        .exits(0)
        .is_quiet()
        .prints("memory: 2097152 bytes");
    let (other, root) = (user_name(65534), user_name(0));
    let owner = format!(
        "user {other} is denied by owner {root}, group {}, mode 0660: 'sudo setfacl -m u:{other}:rw /dev/kvm' (package acl)",
        group_name(0)
    );
    run_with(0o660).is_refused(&["/dev/kvm", "Permission denied", &owner]);
    let run_with = |group| run_unprivileged(Device::OfGroup("kvm", 0o660, group));
    run_with(54321).is_refused(&[
        "group 54321, mode 0660: give it that group (--group-add 54321, Group=54321)",
    ]);
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let line = groups.lines().find(|line| !line.contains(":0:"));
    if let [name, _, group, ..] = line.unwrap_or_default().split(':').collect::<Vec<_>>()[..] {
        let hint = format!(
            "'sudo usermod -aG {name} {other}' and logging in again allow it, or Group={name} in a unit"
        );
        run_with(group.parse().unwrap()).is_refused(&[&hint]);
    }
}

/// In a private mount namespace, so that /etc/group can be another file.
fn a_user_who_joined_a_group_after_the_login_is_reported() {
    let directory = common::directory();
    let groups = directory.path().join("groups");
    let listed = format!("sailors:x:54321:someone,{}\n", user_name(65534));
    std::fs::write(&groups, listed).unwrap();
    common::bind(&groups, Path::new("/etc/group"));
    run_unprivileged(Device::OfGroup("kvm", 0o660, 54321)).is_refused(&[
        "mode 0660: it is in group sailors now, but was not at its login: log in again; or run without KVM",
    ]);
}

/// Whether a call opens a file for reading and writing; a run without a disk makes few such calls.
fn is_open(call: &Call) -> bool {
    call.number == libc::SYS_openat
        && call.arguments[2] as libc::c_int & libc::O_ACCMODE == libc::O_RDWR
}

fn a_device_list_is_distinguished_from_permissions() {
    let hello = |errno| {
        inject(
            &mut unikernel("hello", &["--mem=2"], &[]),
            first(1, Fault::Fails(errno), is_open),
        )
    };
    let output = hello(libc::EPERM);
    output.is_refused(&[
        "/dev/kvm",
        "Operation not permitted",
        "--device /dev/kvm, DeviceAllow=/dev/kvm rw, or lxc.cgroup2",
    ]);
    assert!(
        !output.stderr.contains("group kvm") && output.stderr.len() < 320,
        "{output:?}"
    );
    // The permissions of this device allow it.
    hello(libc::EACCES).is_refused(&[
        "/dev/kvm",
        "its permissions allow it: /dev is mounted nodev, or a security module",
    ]);
    hello(libc::ENODEV).is_refused(&[
        "/dev/kvm",
        "No such device",
        "modprobe kvm' loads its driver",
    ]);
    hello(libc::EMFILE).is_refused(&["/dev/kvm", "ulimit -n"]);
    hello(libc::EINTR).exits(0).is_quiet();
}

fn a_tun_device_that_does_not_open_is_reported_by_its_error() {
    let _tap = common::net::Tap::up("tap0", std::net::Ipv4Addr::new(10, 0, 0, 1));
    let net = |check: &[&str], errno| {
        // The first is that of KVM, where that is used.
        let mut opened = usize::from(by_process());
        inject(
            &mut unikernel(
                "net",
                &[check, &["--mem=4", "--net=tap0"]].concat(),
                &["check"],
            ),
            move |call| {
                opened += usize::from(is_open(call));
                (is_open(call) && opened > 1).then_some(Fault::Fails(errno))
            },
        )
    };
    for (errno, args) in [
        (
            libc::EPERM,
            "denies it: --device /dev/net/tun, DeviceAllow=/dev/net/tun rw",
        ),
        (libc::EACCES, "its permissions allow it"),
        (libc::ENXIO, "modprobe tun' loads its driver"),
        (libc::ENOENT, "/dev/net/tun is missing; '"),
        (libc::EMFILE, "ulimit -n"),
    ] {
        net(&[], errno).is_refused(&["'service'", "/dev/net/tun", args]);
        let output = net(&["--check"], errno);
        let found = output
            .exits(1)
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(
            found
                .replace("; ", " -> ")
                .contains(&args.replace("; ", " -> ")),
            "{args}: {output:?}"
        );
    }
}

/// `TUNSETIFF` and the queries about interfaces.
fn an_interrupted_request_about_a_tap_is_made_again() {
    let _tap = common::net::Tap::up("tap0", std::net::Ipv4Addr::new(10, 0, 0, 1));
    let interrupts = |request: u32| {
        let is = move |call: &Call| {
            call.number == libc::SYS_ioctl && call.arguments[1] as u32 == request
        };
        let mut command = unikernel("net", &["--mem=4", "--net=tap0"], &["flood=1"]);
        inject(&mut command, first(2, Fault::Fails(libc::EINTR), is))
            .exits(0)
            .is_quiet();
    };
    const TUNSETIFF: u32 = 0x4004_54ca;
    for request in [
        TUNSETIFF,
        libc::SIOCGIFFLAGS as u32,
        libc::SIOCGIFMTU as u32,
        libc::FIONBIO as u32,
    ] {
        interrupts(request);
    }
}

fn a_refused_vm_is_reported_with_its_cause() {
    const KVM_CREATE_VM: u32 = 0xae01;
    for (errno, args) in [
        (
            libc::EBUSY,
            "another hypervisor, such as VirtualBox or VMware, uses the processor",
        ),
        (libc::ENOMEM, "out of memory"),
        (
            libc::EACCES,
            "a security module or a system call filter forbids it",
        ),
        (
            libc::EPERM,
            "a security module or a system call filter forbids it",
        ),
    ] {
        let mut command = unikernel("hello", &["--mem=2"], &[]);
        let output = run(refuse::fails(
            &mut command,
            libc::SYS_ioctl,
            &[(1, KVM_CREATE_VM)],
            errno,
        ));
        output.is_refused(&["KVM_CREATE_VM failed: ", args]);
    }
    let is =
        |call: &Call| call.number == libc::SYS_ioctl && call.arguments[1] as u32 == KVM_CREATE_VM;
    let mut command = unikernel("hello", &["--mem=2"], &[]);
    inject(&mut command, first(3, Fault::Fails(libc::EINTR), is))
        .exits(0)
        .is_quiet();
}

/// With less address space than the guest's memory.
fn memory_that_the_host_lacks_is_reported() {
    for (resource, limit, option) in [
        (Resource::As, 512 << 20, "ulimit -v"),
        (Resource::Data, 512 << 20, "ulimit -d"),
        // More than the guest's memory, but less than that and `tender`'s own.
        (Resource::Data, 1 << 30, "ulimit -d"),
    ] {
        // Memory that is shared with a child is no data.
        if common::by_process() && resource == Resource::Data {
            continue;
        }
        let mut command = unikernel("hello", &["--mem=1G"], &[]);
        common::limit(&mut command, resource, limit);
        Guest::start(&mut command)
            .end()
            .is_refused(&["memory", "Cannot allocate", option]);
    }
}
