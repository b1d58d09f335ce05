//! Taps of other network namespaces, taps with two names, and units that forbid queries about taps.

use libtest_mimic::Trial;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::common::Need::{Kvm, Net};
use crate::common::net::{OtherNamespace, Tap};
use crate::common::{self, FD, Guest, Output, kernel, pass_fd, refuse, run, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_tap_is_not_judged_by_an_interface_of_its_name, Kvm, Net),
        trial!(a_tap_elsewhere_that_is_down_is_reported, Kvm, Net),
        trial!(packet_information_is_found_by_the_tap, Kvm, Net),
        trial!(a_tap_of_this_namespace_has_its_own_mtu, Kvm, Net),
        trial!(the_owner_of_a_tap_is_not_that_of_its_namesake, Kvm, Net),
        trial!(a_tap_is_found_by_any_family_of_sockets, Kvm, Net),
        trial!(a_tap_is_attached_without_any_socket, Kvm, Net),
        trial!(one_tap_by_two_names_is_refused, Kvm, Net),
    ]
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// `_IO('T', 227)`: opens the network namespace of a tap, for a process with rights there.
const TUNGETDEVNETNS: u32 = 0x54e3;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

const UNKNOWN: &str = "tap0 (@99): its MTU is unknown (it is in another network namespace, or ";

/// The unikernel `net`, which ends, or a check of it.
fn net(options: &[&str]) -> Command {
    unikernel("net", &[&["--mem=4"], options].concat(), &["check"])
}

/// Runs or checks the unikernel with an inherited tap, with or without the right to query the tap's
/// namespace.
fn with_tap(tap: &File, check: bool, may_ask: bool) -> Output {
    let net_option = format!("--net=@{FD}");
    let options: &[&str] = if check {
        &["--check", &net_option]
    } else {
        &[&net_option]
    };
    let mut command = pass_fd(net(options), tap.try_clone().unwrap());
    if !may_ask {
        refuse::fails(
            &mut command,
            libc::SYS_ioctl,
            &[(1, TUNGETDEVNETNS)],
            libc::EPERM,
        );
    }
    run(&mut command)
}

/// A tap of MTU 1400 that is up, in a separate network namespace.
fn tap_elsewhere() -> OtherNamespace<File> {
    OtherNamespace::new(|| {
        let tap = Tap::up("tap0", HOST);
        tap.set_mtu(1400);
        tap.set_mac(MAC);
        tap.attach()
    })
}

fn a_tap_is_not_judged_by_an_interface_of_its_name() {
    let there = tap_elsewhere();
    let tap = there.made.as_ref().unwrap();
    let both = |what: &str| {
        for may_ask in [true, false] {
            let output = with_tap(tap, false, may_ask);
            output
                .exits(0)
                .prints("a frame of 1514 bytes is taken\n")
                .complains(UNKNOWN)
                .complains("; the guest gets 1500\n");
            output.complains("tap0 (@99): cannot send: the frame is malformed");
            assert!(!output.stderr.contains("is down"), "{what}: {output:?}");
            let output = with_tap(tap, true, may_ask);
            output
                .exits(0)
                .prints("note     net:service  tap0 (@99), ")
                .prints("MTU 1500\n")
                .prints("-> its MTU is unknown");
            assert!(!output.stdout.contains("is down"), "{what}: {output:?}");
        }
    };
    both("there is none");
    let here = Tap::down("tap0");
    here.set_mtu(9000);
    both("one that is down, of another MTU");
    here.set_mac(MAC);
    both("one that is down, of the same hardware address");
    here.set_up(true);
    both("one that is up, of the same hardware address, that has no other end");
    here.delete();
    let here = Tap::with_packet_info("tap0");
    both("one with packet information");
    here.delete();
    let _here = Tap::tun("tap0");
    both("a tun");
}

fn a_tap_elsewhere_that_is_down_is_reported() {
    let there = OtherNamespace::new(|| Tap::down("tap0").attach());
    let tap = there.made.as_ref().unwrap();
    let _here = Tap::up("tap0", HOST);
    let output = with_tap(tap, false, true);
    output
        .exits(0)
        .complains("tap0 (@99): it is down; until")
        .complains(UNKNOWN);
    let output = with_tap(tap, true, true);
    output
        .exits(0)
        .prints("-> it is down; until")
        .prints("and its MTU is");
}

fn packet_information_is_found_by_the_tap() {
    let rule = &["99", "puts four bytes before every frame"];
    let here = Tap::with_packet_info("tap0");
    for up in [false, true] {
        here.set_up(up);
        with_tap(&here.attach_with_packet_info(), false, true).is_refused(rule);
    }
    here.delete();
    let _here = Tap::up("tap0", HOST);
    let there = OtherNamespace::new(|| {
        let tap = Tap::with_packet_info("tap0");
        tap.set_up(true);
        tap.attach_with_packet_info()
    });
    with_tap(there.made.as_ref().unwrap(), false, true).is_refused(rule);
}

fn a_tap_of_this_namespace_has_its_own_mtu() {
    let tap = Tap::down("tap0");
    tap.set_mtu(1400);
    let file = tap.attach();
    // The current name counts.
    let tap = tap.rename("tap7");
    let _namesake = Tap::up("tap0", Ipv4Addr::new(10, 0, 7, 1));
    for up in [false, true] {
        tap.set_up(up);
        for may_ask in [true, false] {
            let output = with_tap(&file, false, may_ask);
            output
                .exits(0)
                .prints("a frame of 1414 bytes is taken\n")
                .complains("tap7: cannot send: the ");
            assert_eq!(
                output.stderr.contains("tap7: it is down"),
                !up,
                "{output:?}"
            );
            assert!(!output.stderr.contains("unknown"), "{output:?}");
            with_tap(&file, true, may_ask)
                .exits(0)
                .prints("net:service  tap7, ")
                .prints("MTU 1400");
        }
    }
}

/// This process has the tap. The search first finds a `tender` with another tap of the same name.
fn the_owner_of_a_tap_is_not_that_of_its_namesake() {
    let mut there = tap_elsewhere();
    let other = there.made.take().unwrap();
    let here = Tap::up("tap0", HOST);
    let options = ["--mem=4".to_owned(), format!("--net=@{FD}")];
    let command = unikernel("net", &[&options[0], &options[1]], &["--ipv4=10.0.0.2/24"]);
    let guest = Guest::start(&mut pass_fd(command, other.try_clone().unwrap()));
    guest.wait_for("net: ready\n");
    let _attached = here.attach();
    let us = format!("in use by process {}", std::process::id());
    run(&mut net(&["--net=tap0"])).is_refused(&["'tap0'", &us]);
    run(&mut net(&["--check", "--net=tap0"]))
        .exits(1)
        .prints(&us);
    // Its own descriptor of the same name is another tap as well.
    let both = [
        "--mem=4",
        &format!("--net:service0=@{FD}"),
        "--net:service1=tap0",
    ];
    let output = run(&mut pass_fd(unikernel("net2", &both, &[]), other));
    output
        .exits(1)
        .complains(&format!("'service1': interface 'tap0' is {us}"));
}

/// Makes every socket of these families, or every socket, fail as in a unit or container.
fn without<'c>(
    command: &'c mut Command,
    families: Option<&[libc::c_int]>,
    errno: libc::c_int,
) -> &'c mut Command {
    match families {
        None => refuse::fails(command, libc::SYS_socket, &[], errno),
        Some(families) => families.iter().fold(command, |command, family| {
            refuse::fails(command, libc::SYS_socket, &[(0, *family as u32)], errno)
        }),
    }
}

fn a_tap_is_found_by_any_family_of_sockets() {
    let tap = Tap::up("tap0", HOST);
    tap.set_mtu(1400);
    const ALL: [libc::c_int; 4] = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    for (families, errno) in [
        (&ALL[..1], libc::EAFNOSUPPORT),
        (&ALL[1..], libc::EAFNOSUPPORT),
        (&ALL[..2], libc::EACCES),
        (&ALL[..3], libc::EPERM),
    ] {
        let output = run(without(&mut net(&["--net=tap0"]), Some(families), errno));
        output.exits(0).prints("a frame of 1414 bytes is taken\n");
        assert!(
            !output.stderr.contains("unknown"),
            "{families:?}: {output:?}"
        );
        let output = run(without(
            &mut net(&["--check", "--net=tap0"]),
            Some(families),
            errno,
        ));
        output
            .exits(0)
            .prints("ok       net:service  tap0, ")
            .prints("MTU 1400");
    }
    tap.set_up(false);
    run(without(
        &mut net(&["--net=tap0"]),
        Some(&ALL[..1]),
        libc::EAFNOSUPPORT,
    ))
    .is_refused(&["'tap0' is down"]);
}

fn a_tap_is_attached_without_any_socket() {
    let tap = Tap::up("tap0", HOST);
    tap.set_mtu(1400);
    let run_with = |options: &[&str]| run(without(&mut net(options), None, libc::EAFNOSUPPORT));
    let output = run_with(&["--net=tap0"]);
    output
        .exits(0)
        .prints("a frame of 1414 bytes is taken\n")
        .complains("tap0: cannot send: the frame is malformed");
    assert!(!output.stderr.contains("unknown"), "{output:?}");
    let output = run_with(&["--check", "--net=tap0"]);
    output
        .exits(0)
        .prints("note     net:service  tap0, ")
        .prints("whether it can be attached is not known");
    run_with(&["--net=tap1"]).is_refused(&["there is no interface 'tap1'"]);
    assert!(
        !std::fs::exists("/sys/class/net/tap1").unwrap(),
        "an interface was made"
    );
    tap.set_up(false);
    run_with(&["--net=tap0"]).is_refused(&["'tap0' is down"]);
    tap.set_up(true);
    // The host's /sys shows other interfaces.
    assert_eq!(
        // SAFETY: it is a system call, of this thread's own mounts, with a string that ends with a
        // NUL.
        unsafe { libc::umount2(c"/sys".as_ptr(), libc::MNT_DETACH) },
        0,
        "{}",
        common::host_error("umount")
    );
    run_with(&["--net=tap0"])
        .exits(0)
        .prints("a frame of 1514 bytes is taken\n")
        .complains("tap0: its MTU is unknown (it is in another ");
}

fn one_tap_by_two_names_is_refused() {
    if kernel() < (5, 5) {
        return;
    }
    let tap = Tap::up("tap0", HOST);
    tap.set_mtu(1400);
    tap.add_alternative_name().unwrap();
    let output = run(&mut net(&["--net=alt0"]));
    output
        .exits(0)
        .prints("a frame of 1414 bytes is taken\n")
        .complains("tap0: cannot send: the frame is malformed");
    run(&mut net(&["--check", "--net=alt0"]))
        .exits(0)
        .prints("ok       net:service  tap0, ")
        .prints("MTU 1400");
    for names in [["tap0", "alt0"], ["alt0", "tap0"]] {
        let options = [
            format!("--net:service0={}", names[0]),
            format!("--net:service1={}", names[1]),
        ];
        let run_with = |more: &[&str]| {
            run(&mut unikernel(
                "net2",
                &[&["--mem=4", &options[0], &options[1]], more].concat(),
                &[],
            ))
        };
        let twice = format!("interface '{}' is given twice", names[1]);
        run_with(&[]).is_refused(&["'service1'", &twice]);
        run_with(&["--check"])
            .exits(1)
            .prints(&format!("missing  net:service1  {twice}, by"));
    }
    let _attached = tap.attach();
    let us = format!("in use by process {}", std::process::id());
    run(&mut net(&["--net=alt0"])).is_refused(&["'alt0'", &us]);
    run(&mut net(&["--check", "--net=alt0"]))
        .exits(1)
        .prints(&us);
}
