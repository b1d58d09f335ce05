//! Networks that are down, full, gone, or come and go.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine, Net};
use crate::common::inject::{Fault, first, inject, once_running};
use crate::common::net::{OtherNamespace, Tap, echo};
use crate::common::trace::Call;
use crate::common::{FD, Guest, pass_fd, run, trial, unikernel};
use crate::host_faults::logs_only;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("net::a_tap_that_is_down_takes_no_frames")
            .needs(&[Kvm, Net])
            .run(a_tap_that_is_down_takes_no_frames),
        trial("net::json_has_device_and_cause_of_lost_frames")
            .needs(&[Kvm, Net])
            .run(json_has_device_and_cause_of_lost_frames),
        trial("net::a_kind_is_logged_once_for_ring_and_hypercalls")
            .needs(&[KvmEngine, Net])
            .run(a_kind_is_logged_once_for_ring_and_hypercalls),
        trial("net::a_flapping_link_recovers")
            .needs(&[Kvm, Net])
            .run(a_flapping_link_recovers),
        trial("net::a_tap_deleted_under_a_flood_is_counted")
            .needs(&[Kvm, Net])
            .run(a_tap_deleted_under_a_flood_is_counted),
        trial("net::frames_longer_than_the_mtu_are_dropped")
            .needs(&[Kvm, Net])
            .run(frames_longer_than_the_mtu_are_dropped),
        trial("net::taps_of_one_name_from_two_namespaces_differ")
            .needs(&[Kvm, Net])
            .run(taps_of_one_name_from_two_namespaces_differ),
        trial("net::failures_to_send_are_counted_by_kind")
            .needs(&[Kvm])
            .run(failures_to_send_are_counted_by_kind),
        trial("net::frames_cut_by_the_host_are_counted")
            .needs(&[Kvm])
            .run(frames_cut_by_the_host_are_counted),
        trial("net::failures_to_receive_are_counted")
            .needs(&[Kvm])
            .run(failures_to_receive_are_counted),
        trial("net::a_socket_without_a_reader_drops_frames")
            .needs(&[Kvm])
            .run(a_socket_without_a_reader_drops_frames),
    ]
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The unikernel `net` on the passed descriptor.
fn net(arguments: &[&str]) -> Command {
    unikernel(
        "net",
        &[
            "--mem=4",
            &format!("--net=@{FD}"),
            "--net-mac=02:00:00:00:00:02",
        ],
        arguments,
    )
}

fn is_send(call: &Call) -> bool {
    call.number == libc::SYS_write && call.arguments[0] > 2
}

/// The tap may be brought up later, so the run is not refused, but a warning is logged immediately.
fn a_tap_that_is_down_takes_no_frames() {
    let tap = Tap::down("tap0");
    let output = run(&mut pass_fd(net(&["flood=50"]), tap.attach()));
    output
        .exits(0)
        .prints("50 frames of 60 bytes sent, 0 refused");
    logs_only(
        &output,
        &[
            &["ip link set tap0 up', all frames are dropped"],
            &["tap0: cannot send: the interface is down"],
            &["tap0: sent 0 frames (0 bytes), dropped 50 (50 interface down), received 0"],
        ],
    );
}

/// The cause has its name in the statistics.
fn json_has_device_and_cause_of_lost_frames() {
    let tap = Tap::down("tap0");
    let option = format!("--net=@{FD}");
    let options = ["--mem=4", "--log-format=json", &option];
    let command = unikernel("net", &options, &["flood=50"]);
    let output = run(&mut pass_fd(command, tap.attach()));
    output
        .exits(0)
        .complains(r#", "name": "net", "pid": "#)
        .complains(r#", "device": "service", "cause": "down"}"#);
}

/// Short frames go through the ring, the long ones between them through hypercalls.
fn a_kind_is_logged_once_for_ring_and_hypercalls() {
    let tap = Tap::down("tap0");
    tap.set_mtu(9000);
    let option = format!("--net=@{FD}");
    let command = unikernel(
        "ring",
        &["--mem=4", "--net-ring=on", &option],
        &["jumbo=100"],
    );
    let output = run(&mut pass_fd(command, tap.attach()));
    output
        .exits(0)
        .prints("ring: offered")
        .prints("ring: wrote 100");
    logs_only(
        &output,
        &[
            &["is down"],
            &["tap0: cannot send"],
            &["tap0: sent 0 frames (0 bytes), dropped 100 (100 interface down)"],
        ],
    );
}

fn a_flapping_link_recovers() {
    let tap = Tap::up("tap0", HOST);
    let mut guest = Guest::start(&mut unikernel(
        "net",
        &["--mem=4", "--net=tap0"],
        &["--ipv4=10.0.0.2/24"],
    ));
    guest.wait_for("net: ready\n");
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    for round in 0..100 {
        // Some pings are answered and some are not; many replies meet a link that is down again.
        for _ in 0..5 {
            let _ = socket.send_to(b"flap", (GUEST, 7));
        }
        tap.set_up(round % 2 == 1);
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(guest.is_running(), "{}", guest.messages());
    echo(GUEST, b"after");
    echo(GUEST, b"quit");
    let output = guest.end();
    output.exits(0).prints("net: ok");
    // At most three lines: cannot send, cannot receive, and the totals.
    assert!(output.stderr.lines().count() <= 3, "{output:?}");
}

fn a_tap_deleted_under_a_flood_is_counted() {
    // Emulated machines take some milliseconds a frame under protected KVM.
    let frames = if cfg!(target_arch = "x86_64") {
        20_000
    } else {
        2_000
    };
    let tap = Tap::up("tap0", HOST);
    let before = tap.received();
    let mut guest = Guest::start(&mut unikernel(
        "net",
        &["--mem=4", "--net=tap0"],
        &[&format!("flood={frames}")],
    ));
    while tap.received() < before + 20 {
        std::hint::spin_loop();
    }
    // The guest is stopped meanwhile, so that it does not end before the host is done.
    guest.signal(libc::SIGSTOP);
    tap.delete();
    guest.signal(libc::SIGCONT);
    let output = guest.end();
    output.exits(0).prints(&format!(
        "net: {frames} frames of 60 bytes sent, 0 refused\n"
    ));
    logs_only(
        &output,
        &[
            &["tap0: cannot send: the other end is gone"],
            &["tap0: sent ", " interface gone), received"],
        ],
    );
}

/// A frame may be 4 bytes longer, for a VLAN tag.
fn frames_longer_than_the_mtu_are_dropped() {
    for (size, arrive) in [(1514, true), (1518, true), (1519, false), (65_535, false)] {
        let tap = Tap::up("tap0", HOST);
        let before = tap.received();
        let command = &mut unikernel(
            "net",
            &["--mem=4", "--net=tap0"],
            &["flood=10", &format!("size={size}")],
        );
        let output = run(command);
        output
            .exits(0)
            .prints(&format!("10 frames of {size} bytes sent, 0 refused"));
        assert_eq!(
            tap.received() - before,
            if arrive { 10 } else { 0 },
            "{size} bytes"
        );
        if arrive {
            output.is_quiet();
        } else {
            logs_only(
                &output,
                &[
                    &["malformed or too long"],
                    &["dropped 10 (10 malformed or too long)"],
                ],
            );
        }
        tap.delete();
    }
}

/// A second descriptor, and its number in the child.
const SECOND: i32 = 98;

fn also(mut command: Command, file: File) -> Command {
    // SAFETY: dup2 is safe between fork and exec; the descriptor is open until then, as `file`
    // moves into the closure.
    unsafe {
        command.pre_exec(move || match libc::dup2(file.as_raw_fd(), SECOND) {
            SECOND => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command
}

fn taps_of_one_name_from_two_namespaces_differ() {
    let here = Tap::up("tap0", HOST);
    let mut there = OtherNamespace::new(|| Tap::up("tap0", HOST).attach());
    let other = there.made.take().unwrap();
    let options = [
        format!("--net:service0=@{FD}"),
        format!("--net:service1=@{SECOND}"),
    ];
    let start = |second: File, first: File| {
        let command = unikernel(
            "net2",
            &["--mem=4", &options[0], &options[1]],
            &["--ipv4-0=10.0.0.2/24", "--ipv4-1=10.0.0.3/24"],
        );
        Guest::start(&mut also(pass_fd(command, first), second))
    };
    let mut guest = start(other, here.attach());
    guest.wait_for("net: service1: ");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
    // The same tap twice is still an error.
    let tap = here.attach();
    start(tap.try_clone().unwrap(), tap)
        .end()
        .is_refused(&["'service1'", "shares its interface"]);
}

fn failures_to_send_are_counted_by_kind() {
    let errors = [
        (libc::EAGAIN, "the host's queue is full", "4 queue full"),
        (libc::ENOBUFS, "the host's queue is full", "4 queue full"),
        (libc::EIO, "the interface is down", "4 interface down"),
        (
            libc::EPERM,
            "Operation not permitted",
            "4 for other reasons",
        ),
    ];
    for (error, args, kind) in errors {
        let (_ours, theirs) = UnixDatagram::pair().unwrap();
        let fault = once_running(first(4, Fault::Fails(error), is_send));
        let output = inject(&mut pass_fd(net(&["flood=9"]), theirs), fault);
        output
            .exits(0)
            .prints("9 frames of 60 bytes sent, 0 refused");
        logs_only(
            &output,
            &[
                &["@99: cannot send", args, "such frames are dropped"],
                &["sent 5 frames (300 bytes)", &format!("dropped 4 ({kind})")],
            ],
        );
    }
}

fn frames_cut_by_the_host_are_counted() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let fault = once_running(first(3, Fault::Short(20), is_send));
    let output = inject(&mut pass_fd(net(&["flood=5"]), theirs), fault);
    output.exits(0);
    logs_only(
        &output,
        &[
            &["only part of a frame"],
            &["sent 2 frames", "dropped 3 (3 cut by the host)"],
        ],
    );
    let lengths: Vec<_> = (0..5).map(|_| ours.recv(&mut [0; 100]).unwrap()).collect();
    assert_eq!(lengths, [20, 20, 20, 60, 60]);
}

/// The frame stays queued until it can be read. A read interrupted by a signal is not logged.
fn failures_to_receive_are_counted() {
    for (error, is_logged) in [
        (libc::EIO, true),
        (libc::ENOMEM, true),
        (libc::EINTR, false),
    ] {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(
            b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\
            \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x01\0\0\0\0\0\0\x0a\0\0\x02",
        )
        .unwrap();
        ours.send(&crate::common::net::datagram(b"quit")).unwrap();
        let is_receive = |call: &Call| call.number == libc::SYS_read && call.arguments[0] > 2;
        let fault = once_running(first(3, Fault::Fails(error), is_receive));
        let output = inject(&mut pass_fd(net(&["--ipv4=10.0.0.2/24"]), theirs), fault);
        output.exits(0).prints("net: ok");
        if is_logged {
            let sum = "received 2 (88 bytes), failed to receive 3 times";
            logs_only(
                &output,
                &[&["@99: cannot receive", "the guest gets no frames"], &[sum]],
            );
        } else {
            output.is_quiet();
        }
    }
}

fn a_socket_without_a_reader_drops_frames() {
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let output = run(&mut pass_fd(net(&["flood=2000", "size=1514"]), theirs));
    output
        .exits(0)
        .prints("2000 frames of 1514 bytes sent, 0 refused");
    logs_only(
        &output,
        &[
            &["@99: cannot send: the host's queue is full"],
            &["queue full), received 0 (0 bytes)"],
        ],
    );
}
