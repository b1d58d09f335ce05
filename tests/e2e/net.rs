//! Network devices: frames go both ways on every interface, the operator's settings reach the
//! guest, invalid interfaces are refused, and changes to an interface do not end the guest.

use libtest_mimic::Trial;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::common::Need::{Kvm, Net, Root};
use crate::common::net::{self, Tap, echo, ping};
use crate::common::{self, Device, FD, Guest, Output, pass_fd, run, trial, unikernel};
use tender::host::ids::{group_name, user_name};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(datagrams_come_back, Kvm, Net),
        trial!(pings_are_answered, Kvm, Net),
        trial!(two_interfaces_are_independent, Kvm, Net),
        trial!(unusual_requests_get_the_correct_replies, Kvm, Net),
        trial!(the_mtu_of_the_tap_is_the_guests, Kvm, Net),
        trial!(the_hardware_address_is_as_asked_or_random, Kvm, Net),
        trial!(a_tap_can_be_passed_as_a_descriptor, Kvm, Net),
        trial!(a_socket_can_be_passed_as_a_descriptor, Kvm),
        trial!(an_interface_that_goes_down_comes_back, Kvm, Net),
        trial!(a_deleted_interface_does_not_end_the_guest, Kvm, Net),
        trial!(a_flood_is_sent_whole, Kvm, Net),
        trial!(an_interface_serves_one_guest_after_another, Kvm, Net),
        trial!(interfaces_that_are_no_tap_are_refused, Kvm, Net),
        trial("a_tap_of_a_bridge_is_named_instead_of_it")
            .needs(&[Kvm, Net])
            .try_run(a_tap_of_a_bridge_is_named_instead_of_it),
        trial!(a_tap_that_is_down_is_refused, Kvm, Net),
        trial!(a_tap_in_use_is_refused, Kvm, Net),
        trial!(one_tap_cannot_be_two_devices, Kvm, Net),
        trial!(descriptors_that_are_no_tap_are_refused, Kvm, Net),
        trial!(a_tap_of_another_user_is_refused, Root, Kvm, Net),
    ]
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn net(options: &[&str]) -> Command {
    let options: Vec<_> = options.iter().copied().chain(["--mem=4"]).collect();
    unikernel("net", &options, &["--ipv4=10.0.0.2/24"])
}

/// Starts the echo unikernel and waits until it listens.
fn start(mut command: Command) -> Guest {
    let guest = Guest::start(&mut command);
    guest.wait_for("net: ready\n");
    guest
}

fn quit(guest: Guest) -> Output {
    echo(GUEST, b"quit");
    let output = guest.end();
    output.exits(0).prints("net: ok");
    output
}

fn datagrams_come_back() {
    let _tap = Tap::up("tap0", HOST);
    let guest = start(net(&["--net:service=tap0"]));
    for length in [1, 18, 19, 500, 1472] {
        echo(GUEST, &vec![length as u8; length]);
    }
    let output = quit(guest);
    output
        .is_quiet()
        .prints("mtu 1500\n")
        .prints("net: service: 10.0.0.2/24\n");
}

fn pings_are_answered() {
    let _tap = Tap::up("tap0", HOST);
    let guest = start(net(&["--net", "tap0"]));
    for payload in [&b""[..], b"1", &[0xa5; 1472]] {
        assert!(ping(GUEST, payload, 20), "{} bytes", payload.len());
    }
    assert!(
        !ping(Ipv4Addr::new(10, 0, 0, 9), b"no host", 1),
        "a ping can fail"
    );
    quit(guest).is_quiet();
}

fn two_interfaces_are_independent() {
    let _first = Tap::up("tap0", HOST);
    let _second = Tap::up("tap1", Ipv4Addr::new(10, 0, 1, 1));
    let options = ["--net:service0=tap0", "--net:service1=tap1", "--mem=4"];
    let guest = start(unikernel(
        "net2",
        &options,
        &["--ipv4-0=10.0.0.2/24", "--ipv4-1=10.0.1.2/24"],
    ));
    for i in 0..10 {
        echo(GUEST, &[i; 100]);
        echo(Ipv4Addr::new(10, 0, 1, 2), &[!i; 100]);
    }
    quit(guest)
        .is_quiet()
        .prints("net: service0: handle 1,")
        .prints("net: service1: handle 2,");
}

fn unusual_requests_get_the_correct_replies() {
    let _tap = Tap::up("tap0", HOST);
    let output = run(&mut unikernel(
        "net",
        &["--net=tap0", "--mem=4"],
        &["check"],
    ));
    output
        .exits(0)
        .prints("net: bad handles are refused\n")
        .prints("net: an empty device says so\n");
    output
        .prints("net: a frame of 1514 bytes is taken\n")
        .prints("net: ok");
    // None of them ends the guest; the first is logged, and the count at the end.
    assert_eq!(output.stdout.matches(" bytes: ").count(), 5, "{output:?}");
    output
        .complains("tap0: cannot send: the frame is malformed")
        .complains("dropped 4 (4 malformed or too long)");
    assert_eq!(output.stderr.lines().count(), 2, "{output:?}");
}

fn the_mtu_of_the_tap_is_the_guests() {
    let tap = Tap::up("tap0", HOST);
    for mtu in [576, 9000] {
        tap.set_mtu(mtu);
        let guest = start(net(&["--net=tap0"]));
        echo(GUEST, &vec![3; usize::from(mtu) - 28]);
        quit(guest).is_quiet().prints(&format!("mtu {mtu}\n"));
    }
}

fn the_hardware_address_is_as_asked_or_random() {
    let _tap = Tap::up("tap0", HOST);
    let mac = |options: &[&str]| {
        let output = quit(start(net(options)));
        output
            .stdout
            .split("mac ")
            .nth(1)
            .expect("the guest prints its address")[..17]
            .to_owned()
    };
    assert_eq!(
        mac(&["--net=tap0", "--net-mac=02:a0:00:0C:ff:01"]),
        "02:a0:00:0c:ff:01"
    );
    assert_eq!(
        mac(&["--net:service=tap0", "--net-mac:service=06:00:00:00:00:09"]),
        "06:00:00:00:00:09"
    );
    let random = [mac(&["--net=tap0"]), mac(&["--net=tap0"])];
    assert_ne!(random[0], random[1]);
    for mac in random {
        let first = u8::from_str_radix(&mac[..2], 16).unwrap();
        assert_eq!(first & 3, 2, "{mac} should be local and of one interface");
    }
}

fn a_tap_can_be_passed_as_a_descriptor() {
    let tap = Tap::up("tap0", HOST);
    tap.set_mtu(1400);
    let guest = start(pass_fd(net(&[&format!("--net=@{FD}")]), tap.attach()));
    echo(GUEST, b"through a descriptor");
    assert!(ping(GUEST, b"ping", 20));
    quit(guest).is_quiet().prints("mtu 1400\n");
}

/// Without any network of the host: the test is the other end.
fn a_socket_can_be_passed_as_a_descriptor() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(common::LIMIT)).unwrap();
    let guest = start(pass_fd(
        net(&[
            &format!("--net:service=@{FD}"),
            "--net-mac=02:00:00:00:00:02",
        ]),
        theirs,
    ));
    let mut frame = [0; 2000];
    // The guest's ARP announcement comes first.
    assert_eq!(ours.recv(&mut frame).unwrap(), 60);
    assert_eq!(
        frame[..14],
        *b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x02\x08\x06"
    );
    let question = *b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\
        \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x01\0\0\0\0\0\0\x0a\0\0\x02";
    ours.send(&question).unwrap();
    assert_eq!(ours.recv(&mut frame).unwrap(), 42);
    let answer = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\x06\
        \0\x01\x08\0\x06\x04\0\x02\x02\0\0\0\0\x02\x0a\0\0\x02\x02\0\0\0\0\x01\x0a\0\0\x01";
    assert_eq!(frame[..42], answer);
    end_by_sigterm(guest).is_quiet();
}

fn end_by_sigterm(mut guest: Guest) -> Output {
    guest.signal(libc::SIGTERM);
    let output = guest.end();
    output.dies_by(libc::SIGTERM);
    output
}

fn an_interface_that_goes_down_comes_back() {
    let tap = Tap::up("tap0", HOST);
    let mut guest = start(net(&["--net=tap0"]));
    echo(GUEST, b"before");
    for _ in 0..3 {
        tap.set_up(false);
        std::thread::sleep(Duration::from_millis(100));
        assert!(guest.is_running());
        tap.set_up(true);
        echo(GUEST, b"after");
    }
    quit(guest);
}

/// The guest continues without a network, asleep, and can still be ended.
fn a_deleted_interface_does_not_end_the_guest() {
    let tap = Tap::up("tap0", HOST);
    let mut guest = start(net(&["--net=tap0"]));
    echo(GUEST, b"before");
    tap.delete();
    guest.wait_for_complaint("tap0: cannot receive");
    let awake = (0..40).filter(|_| is_awake(guest.pid())).count();
    assert!(guest.is_running());
    assert!(
        awake < 10,
        "it waits for nothing, but is awake {awake} of 40 times"
    );
    let output = end_by_sigterm(guest);
    output.complains("failed to receive ");
    assert!(
        output.stderr.lines().count() <= 3,
        "logged repeatedly: {output:?}"
    );
}

/// Whether a process is running after a while: its state follows its name in parentheses.
fn is_awake(pid: u32) -> bool {
    std::thread::sleep(Duration::from_millis(37));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    !stat.rsplit(')').next().unwrap().starts_with(" S ")
}

fn a_flood_is_sent_whole() {
    let tap = Tap::up("tap0", HOST);
    for size in ["60", "1514"] {
        let before = tap.received();
        let output = run(&mut unikernel(
            "net",
            &["--net=tap0", "--mem=4"],
            &["flood=500", &format!("size={size}")],
        ));
        output.exits(0).is_quiet().prints(&format!(
            "net: 500 frames of {size} bytes sent, 0 refused\n"
        ));
        assert_eq!(tap.received() - before, 500);
    }
}

fn an_interface_serves_one_guest_after_another() {
    let _tap = Tap::up("tap0", HOST);
    for _ in 0..3 {
        let guest = start(net(&["--net=tap0"]));
        echo(GUEST, b"hello");
        end_by_sigterm(guest).is_quiet();
    }
}

fn interfaces_that_are_no_tap_are_refused() {
    let _tun = Tap::tun("tun0");
    for (name, args) in [
        ("tap7", "ip link set tap7 up' make it"),
        ("lo", "not a tap"),
        ("tun0", "tun"),
    ] {
        run(&mut net(&[&format!("--net={name}")])).is_refused(&[
            "net.hvt",
            "'service'",
            &format!("'{name}'"),
            args,
        ]);
    }
    assert!(
        !std::fs::exists("/sys/class/net/tap7").unwrap(),
        "an interface was made"
    );
}

fn a_tap_of_a_bridge_is_named_instead_of_it() -> Result<(), String> {
    let taps = ["tap0", "tap1", "tap2"].map(Tap::down);
    net::bridge("br0", &[])?;
    net::bridge("br1", &[&taps[0]])?;
    run(&mut net(&["--net=br0"])).is_refused(&[
        "'br0' is a bridge; give a tap in it: '",
        "ip tuntap add NAME mode tap user ",
        "ip link set NAME master br0 up' and --net=NAME",
    ]);
    run(&mut net(&["--net=br1"])).is_refused(&["a bridge; give a tap in it: --net=tap0\n"]);
    net::bridge("br2", &[&taps[1], &taps[2]])?;
    let output = run(&mut net(&["--net=br2"]));
    output.is_refused(&["'br2' is a bridge; give a tap in it: one of tap", ", tap"]);
    Ok(())
}

fn a_tap_that_is_down_is_refused() {
    let _tap = Tap::down("tap0");
    run(&mut net(&["--net=tap0"])).is_refused(&["'tap0' is down", "ip link set tap0 up"]);
}

fn a_tap_in_use_is_refused() {
    let _tap = Tap::up("tap0", HOST);
    let guest = start(net(&["--net=tap0"]));
    run(&mut net(&["--net=tap0"])).is_refused(&[
        "'tap0'",
        &format!("in use by process {} (tender)", guest.pid()),
    ]);
    echo(GUEST, b"the first one is not disturbed");
    quit(guest).is_quiet();
}

fn one_tap_cannot_be_two_devices() {
    let tap = Tap::up("tap0", HOST);
    let by_name = &["--net:service0=tap0", "--net:service1=tap0"];
    run(&mut unikernel("net2", by_name, &[])).is_refused(&["service1", "tap0"]);
    let both = ["--net:service0=tap0", &format!("--net:service1=@{FD}")];
    run(&mut pass_fd(unikernel("net2", &both, &[]), tap.attach()))
        .is_refused(&["'service0'", "'tap0' is given twice"]);
}

fn descriptors_that_are_no_tap_are_refused() {
    let option = format!("--net=@{FD}");
    run(&mut net(&[&option])).is_refused(&["'service'", "99", "not passed"]);
    run(&mut net(&["--net=@1"])).is_refused(&["1", "standard"]);
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    run(&mut pass_fd(net(&[&option]), null)).is_refused(&["99", "tap"]);
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    run(&mut pass_fd(net(&[&option]), theirs)).is_refused(&["99", "frames"]);
    let tun = Tap::tun("tun0");
    run(&mut pass_fd(net(&[&option]), tun.attach_tun())).is_refused(&["99", "tun"]);
}

fn a_tap_of_another_user_is_refused() {
    let tap = Tap::up("tap0", HOST);
    tap.set_owner(4711);
    let other = user_name(65534);
    let refusal = |tun, args: &[&str]| {
        let directory = common::directory();
        let devices = [Device::Made("kvm", 0o666), tun];
        run(&mut common::as_nobody(
            "net",
            directory.path(),
            &devices,
            &["--net=tap0"],
        ))
        .is_refused(args);
    };
    refusal(
        Device::Made("net/tun", 0o666),
        &[
            &format!("user {other} may not attach to interface 'tap0'"),
            "which belongs to user 4711; recreate it: 'sudo ip tuntap del tap0 mode tap'",
            &format!("'sudo ip tuntap add tap0 mode tap user {other}', 'sudo ip link set tap0 up'"),
        ],
    );
    refusal(
        Device::Made("net/tun", 0o600),
        &[
            &format!("user {other}"),
            &format!("owner {}, group {}, mode 0600", user_name(0), group_name(0)),
            "chmod 0666 /dev/net/tun",
        ],
    );
}
