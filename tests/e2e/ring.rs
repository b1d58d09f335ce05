//! The shared network ring: every frame passes once and in order, in both directions, and the ring
//! costs nothing without frames. Frames are numbered; `TENDER_RING_FRAMES` sets how many are sent.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::common::Need::{self, Kvm, KvmEngine, Net, Root};
use crate::common::net::{Tap, echo};
use crate::common::wire::Wire;
use crate::common::{Guest, Output, by_process, emulates_guests, run, trial, unikernel};
use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(the_ring_is_offered_unless_it_is_not_wanted, KvmEngine, Net),
        trial!(
            the_ring_is_not_offered_to_guests_that_cannot_use_it,
            KvmEngine,
            Net
        ),
        trial!(memory_is_exact_with_the_ring, KvmEngine, Net),
        trial!(a_ring_needs_no_second_thread, KvmEngine, Net),
        trial!(idle_guests_cause_no_wakeups, Kvm, Net),
        trial!(nothing_wakes_up_after_a_flood, Kvm, Net),
    ];
    tests.extend(WAYS.into_iter().flat_map(traffic));
    tests
}

/// A path of a guest's frames.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    options: &'static [&'static str],
    engine: Need,
}

/// The paths; the same must hold on every one.
const WAYS: [Way; 2] = [
    Way {
        name: "ring",
        options: &[],
        engine: KvmEngine,
    },
    Way {
        name: "hypercalls",
        options: &["--net-ring=off"],
        engine: Kvm,
    },
];

/// A test body for so many frames.
type Body = fn(Way, u64);

fn traffic(way: Way) -> Vec<Trial> {
    let all: [(&str, Body); 9] = [
        ("writes_arrive_in_order", writes_arrive_in_order),
        ("long_writes_arrive_in_order", long_writes_arrive_in_order),
        ("reads_are_in_order", reads_are_in_order),
        ("echoes_are_in_order", echoes_are_in_order),
        ("a_mixture_is_in_order", a_mixture_is_in_order),
        (
            "jumbo_frames_overtake_nothing",
            jumbo_frames_overtake_nothing,
        ),
        (
            "full_queues_are_emptied_before_a_read",
            full_queues_are_emptied_before_a_read,
        ),
        ("two_interfaces_send_in_order", two_interfaces_send_in_order),
        ("two_interfaces_echo_in_order", two_interfaces_echo_in_order),
    ];
    all.map(|(name, body)| {
        trial(&format!("{}::{name}", way.name))
            .needs(&[Root, way.engine, Net])
            .run(move || body(way, frames()))
    })
    .into()
}

/// The number of frames; smaller on emulated machines.
fn frames() -> u64 {
    let default = if cfg!(target_arch = "x86_64") {
        20_000
    } else {
        2_000
    };
    std::env::var("TENDER_RING_FRAMES").map_or(default, |count| {
        count.parse().expect("TENDER_RING_FRAMES is a number")
    })
}

fn tap(name: &'static str) -> Tap {
    Tap::up(name, Ipv4Addr::new(10, 0, 0, 1))
}

/// Starts `ring`, or `ring2` if there are two taps.
fn start(way: Way, taps: &[&Tap], args: &[&str]) -> Guest {
    let nets: Vec<_> = match taps {
        [only] => vec![format!("--net={}", only.name())],
        _ => taps
            .iter()
            .zip(0..)
            .map(|(tap, i)| format!("--net:service{i}={}", tap.name()))
            .collect(),
    };
    let options: Vec<_> = nets
        .iter()
        .map(String::as_str)
        .chain(way.options.iter().copied())
        .chain(["--mem=16"])
        .collect();
    let args: Vec<_> = args.iter().copied().chain(["wait=20"]).collect();
    let mut command = unikernel(
        if taps.len() == 1 { "ring" } else { "ring2" },
        &options,
        &args,
    );
    Guest::start(&mut command)
}

/// Checks that the guest reports success.
#[track_caller]
fn ends_well(way: Way, guest: Guest) -> Output {
    let output = guest.end();
    let offered = if way.options.is_empty() {
        "ring: offered at 0x20000\n"
    } else {
        "ring: not offered, hypercalls\n"
    };
    output.exits(0).is_quiet().prints(offered);
    output
}

fn writes_arrive_in_order(way: Way, count: u64) {
    let tap = tap("tap0");
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("writes={count}")]);
    wire.receive(count);
    ends_well(way, guest).prints(&format!("ring: wrote {count}\n"));
    wire.stays_silent();
}

fn long_writes_arrive_in_order(way: Way, count: u64) {
    let (tap, count) = (tap("tap0"), count / 10);
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("writes={count}"), "size=1514"]);
    wire.receive(count);
    ends_well(way, guest);
    wire.stays_silent();
}

/// Returns what the guest prints after so many correct frames.
fn right(count: u64) -> String {
    format!("ring: read {count} lost 0 doubled 0 reordered 0\n")
}

fn reads_are_in_order(way: Way, count: u64) {
    let tap = tap("tap0");
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("reads={count}")]);
    guest.wait_for("ring: ready\n");
    wire.exchange(count, 0);
    ends_well(way, guest).prints(&right(count));
    wire.stays_silent();
}

fn echoes_are_in_order(way: Way, count: u64) {
    let tap = tap("tap0");
    let count = count / 4;
    let mut wire = Wire::new(&tap);
    wire.size = 200;
    let guest = start(way, &[&tap], &[&format!("echo={count}")]);
    guest.wait_for("ring: ready\n");
    wire.exchange(count, count);
    ends_well(way, guest)
        .prints(&right(count))
        .prints(&format!("ring: wrote {count}\n"));
    wire.stays_silent();
}

fn a_mixture_is_in_order(way: Way, count: u64) {
    let tap = tap("tap0");
    let count = count / 4;
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("mix={count}"), "size=333"]);
    guest.wait_for("ring: ready\n");
    wire.exchange(count, count);
    ends_well(way, guest)
        .prints(&right(count))
        .prints(&format!("ring: wrote {count}\n"));
    wire.stays_silent();
}

/// Alternately through the ring and, if too long for it, through a hypercall.
fn jumbo_frames_overtake_nothing(way: Way, count: u64) {
    let (tap, count) = (tap("tap0"), count / 10);
    tap.set_mtu(9000);
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("jumbo={count}"), "size=2048"]);
    wire.receive(count);
    ends_well(way, guest);
    wire.stays_silent();
}

/// As many as fit, 1023; a real guest aborts if it then reads before the host has taken any.
fn full_queues_are_emptied_before_a_read(way: Way, count: u64) {
    let (tap, rounds) = (tap("tap0"), (count / 4000).max(2));
    let mut wire = Wire::new(&tap);
    let guest = start(way, &[&tap], &[&format!("burst={rounds}")]);
    wire.receive(rounds * 1023);
    ends_well(way, guest);
    wire.stays_silent();
}

fn two_taps() -> [Tap; 2] {
    [tap("tap0"), Tap::up("tap1", Ipv4Addr::new(10, 0, 1, 1))]
}

fn two_interfaces_send_in_order(way: Way, count: u64) {
    let ([first, second], count) = (two_taps(), count / 4);
    let mut wires = [&first, &second].map(Wire::new);
    let guest = start(way, &[&first, &second], &[&format!("writes={count}")]);
    wires.iter_mut().for_each(|wire| wire.receive(count));
    ends_well(way, guest).prints(&format!("ring: wrote {}\n", 2 * count));
    wires.into_iter().for_each(Wire::stays_silent);
}

fn two_interfaces_echo_in_order(way: Way, count: u64) {
    let ([first, second], count) = (two_taps(), count / 10);
    let mut wires = [&first, &second].map(Wire::new);
    let guest = start(way, &[&first, &second], &[&format!("echo={count}")]);
    guest.wait_for("ring: ready\n");
    wires
        .iter_mut()
        .for_each(|wire| wire.exchange(count, count));
    ends_well(way, guest).prints(&right(2 * count));
    wires.into_iter().for_each(Wire::stays_silent);
}

fn the_ring_is_offered_unless_it_is_not_wanted() {
    let _tap = tap("tap0");
    let prints = |options: &[&str], args: &str| {
        let options = [&["--net=tap0", "--mem=4"], options].concat();
        run(&mut unikernel("ring", &options, &["writes=10"]))
            .exits(0)
            .is_quiet()
            .prints(args);
    };
    for options in [&["--net-ring=on"][..], &["--net-ring", "on"]] {
        prints(options, "ring: offered at 0x20000\n");
    }
    let of_auto = if emulates_guests() {
        "ring: not offered, hypercalls\n"
    } else {
        "ring: offered at 0x20000\n"
    };
    prints(&["--net-ring=auto"], of_auto);
    for options in [
        &["--net-ring=off"][..],
        &["--no-net-ring"],
        &["--net-ring", "off"],
    ] {
        prints(options, "ring: not offered, hypercalls\n");
    }
}

fn the_ring_is_not_offered_to_guests_that_cannot_use_it() {
    let _tap = tap("tap0");
    for (name, device) in [("net-e1", true), ("net-abi1", true), ("hello", false)] {
        let options = ["--net-ring=on", "--mem=4", "--net=tap0"];
        let options = if device { &options[..] } else { &options[..2] };
        let output = run(&mut unikernel(name, options, &["flood=3"]));
        output
            .exits(0)
            .complains("--net-ring=on")
            .complains("none is offered");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

/// The ring takes none of the requested memory: the end of memory is where it would be without.
fn memory_is_exact_with_the_ring() {
    let _tap = tap("tap0");
    for (size, end) in [("2", "0x200000"), ("64", "0x4000000")] {
        let options = ["--net=tap0", &format!("--mem={size}")];
        let output = run(&mut unikernel(
            "ring-hostile",
            &options,
            &["wild-address", "beyond"],
        ));
        output
            .fails(&["must be within"])
            .prints(&format!("write of 1514 bytes at {end}\n"));
    }
}

/// The threads of a process, without the kernel's own for KVM: name, voluntary switches, and
/// processor time in ticks.
fn threads(pid: u32) -> Vec<(String, u64, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read =
        |task: &std::path::Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap();
    let of_task = |task: std::path::PathBuf| {
        let (status, stat) = (read(&task, "status"), read(&task, "stat"));
        let switches = status
            .split("\nvoluntary_ctxt_switches:")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        // After the name in parentheses; user and system time are the 14th and 15th field of the
        // line.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = [11, 12]
            .map(|i| fields[i].parse::<u64>().unwrap())
            .iter()
            .sum();
        (
            read(&task, "comm").trim_end().to_owned(),
            switches.parse().unwrap(),
            ticks,
        )
    };
    tasks
        .map(|task| of_task(task.unwrap().path()))
        .filter(|(name, ..)| !name.starts_with("kvm-"))
        .collect()
}

/// Checks that the process is idle for five seconds: at most `wakeups` in all its threads, and less
/// than a tenth of a processor's 500 ticks, some of which a busy machine takes for a wake-up.
#[track_caller]
fn sleeps(pid: u32, wakeups: u64) {
    let sums = || {
        threads(pid)
            .into_iter()
            .fold((0, 0), |(a, b), (_, switches, ticks)| {
                (a + switches, b + ticks)
            })
    };
    std::thread::sleep(Duration::from_secs(1));
    let (switches, ticks) = sums();
    std::thread::sleep(Duration::from_secs(5));
    let (switches, ticks) = (sums().0 - switches, sums().1 - ticks);
    assert!(
        switches <= wakeups && ticks <= 50,
        "{switches} wake-ups, {ticks} ticks in 5 s: {:?}",
        threads(pid)
    );
}

/// Fewer than one wake-up a second. On ARM64, POLL ends now and then for the guest's clock, but not
/// so often.
fn idle_guests_cause_no_wakeups() {
    let tap = tap("tap0");
    let way = WAYS[usize::from(by_process())];
    let guest = start(way, &[&tap], &["idle=8"]);
    guest.wait_for("ring: idle for 8 s\n");
    sleeps(guest.pid(), 4);
    ends_well(way, guest);
}

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The echo unikernel wakes up once a second; after many frames, nothing else wakes up.
fn nothing_wakes_up_after_a_flood() {
    let tap = tap("tap0");
    let mut guest = start(WAYS[0], &[&tap], &["poll-echo", "--ipv4=10.0.0.2/24"]);
    guest.wait_for("net: ready\n");
    echo(GUEST, b"hello");
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..1000 {
        socket.send_to(&[0; 100], (GUEST, 7)).unwrap();
    }
    echo(GUEST, b"done");
    // A guest that is a process makes the tender wait for each hypercall too.
    sleeps(guest.pid(), if by_process() { 18 } else { 9 });
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

fn a_ring_needs_no_second_thread() {
    let tap = tap("tap0");
    for way in WAYS {
        let guest = start(way, &[&tap], &["idle=1"]);
        guest.wait_for("ring: idle for 1 s\n");
        assert_eq!(threads(guest.pid()).len(), 1, "{}", way.name);
        ends_well(way, guest);
    }
}
