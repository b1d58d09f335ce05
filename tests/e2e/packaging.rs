//! The files in `packaging/`: the units by systemd's own checks, and compared with what a run
//! calls; the networks as far as their tools are installed.

use libtest_mimic::Trial;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::Need::{Kvm, Net, Programs, Repository};
use crate::common::net::{Tap, ping};
use crate::common::trace::trace_threads;
use crate::common::{self, FD, Guest, pass_fd, tender_path, text, unikernel};
use tender::sandbox::rules::name;

/// The units, with an instance where they are templates.
const UNITS: [(&str, &str); 4] = [
    ("tender@.service", "tender@web.service"),
    ("presentation.service", "presentation.service"),
    ("tap@.service", "tap@tap100.service"),
    ("tender-metrics@.service", "tender-metrics@web.service"),
];

/// Ten times the allowed exposure: 2.0 of 10.
const THRESHOLD: &str = "--threshold=20";

pub fn tests() -> Vec<Trial> {
    const ANALYZE: &[&str] = &["systemd-analyze"];
    vec![
        trial!(units_are_valid, Repository, Programs(ANALYZE)),
        trial!(units_expose_little, Repository, Programs(ANALYZE)),
        trial!(
            units_allow_what_runs_call,
            Repository,
            Kvm,
            Programs(ANALYZE)
        ),
        trial!(units_name_only_what_tender_knows, Repository),
        trial!(
            metrics_are_passed_on_to_a_port,
            Repository,
            Kvm,
            Net,
            Programs(&["systemd-analyze", "sh", "ip", "curl"])
        ),
        trial!(a_tap_by_ip, Repository, Kvm, Net, Programs(&["ip", "sh"])),
        trial!(
            a_tap_by_ip_leaves_what_is_not_its_own,
            Repository,
            Kvm,
            Net,
            Programs(&["ip", "sh"])
        ),
        trial!(a_tap_by_ifupdown_is_valid, Repository, Programs(&["ifup"])),
        trial!(the_three_networks_are_the_same, Repository),
    ]
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn unit(name: &str) -> String {
    fs::read_to_string(packaging().join("systemd").join(name)).expect("the unit is here")
}

fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = output(command);
    let arguments = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {arguments}");
    arguments
}

/// As installed, but with programs that exist here.
fn units_are_valid() {
    let directory = common::directory();
    let tap = packaging().join("network/tap");
    for (file, instance) in UNITS {
        let here = unit(file)
            .replace("/usr/bin/tender ", &format!("{} ", text(&tender_path())))
            .replace("/usr/bin/solo5-hvt ", &format!("{} ", text(&tender_path())))
            .replace("/usr/lib/tender/tap ", &format!("{} ", text(&tap)));
        assert!(
            !here.contains("=/usr/"),
            "{file} starts a program that is unknown here"
        );
        for name in [file, instance] {
            fs::write(directory.path().join(name), &here).unwrap();
        }
        for name in ["tender-metrics@.socket", "tender-metrics@web.socket"] {
            fs::write(directory.path().join(name), unit("tender-metrics@.socket")).unwrap();
        }
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(directory.path().join(instance));
        let arguments = succeeds(&mut verify);
        // An unknown key is only a warning.
        assert!(
            !arguments.contains(instance) && !arguments.contains("Unknown"),
            "{arguments}"
        );
    }
}

fn units_expose_little() {
    for (file, _) in UNITS {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", THRESHOLD]);
        let arguments = succeeds(security.arg(packaging().join("systemd").join(file)));
        eprintln!(
            "{}",
            arguments
                .lines()
                .find(|line| line.contains("Overall"))
                .expect("systemd prints the exposure")
        );
    }
}

/// Returns the calls of a systemd set, including those of nested sets.
fn set(name: &str) -> BTreeSet<String> {
    let listed = succeeds(Command::new("systemd-analyze").args(["syscall-filter", name]));
    let names = listed
        .lines()
        .filter(|line| line.starts_with(' '))
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    names
        .flat_map(|name| {
            if name.starts_with('@') {
                set(name)
            } else {
                [name.to_owned()].into()
            }
        })
        .collect()
}

/// Returns the calls that a unit allows: each line of its filter adds or removes some, in order.
fn allowed(unit: &str) -> BTreeSet<String> {
    let mut allowed = set("@default");
    for line in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let (takes, arguments) = line
            .strip_prefix('~')
            .map_or((false, line), |arguments| (true, arguments));
        for word in arguments.split_whitespace() {
            let named = if word.starts_with('@') {
                set(word)
            } else {
                [word.to_owned()].into()
            };
            match takes {
                true => allowed = &allowed - &named,
                false => allowed.extend(named),
            }
        }
    }
    allowed
}

/// Calls of a start that the sandbox has no names for, as none is made after it.
const START: &[(libc::c_long, &str)] = &[
    (libc::SYS_capget, "capget"),
    (libc::SYS_capset, "capset"),
    (libc::SYS_close_range, "close_range"),
    (libc::SYS_epoll_create1, "epoll_create1"),
    (libc::SYS_faccessat, "faccessat"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_landlock_create_ruleset, "landlock_create_ruleset"),
    (libc::SYS_landlock_restrict_self, "landlock_restrict_self"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_prlimit64, "prlimit64"),
    (libc::SYS_rseq, "rseq"),
    (libc::SYS_set_robust_list, "set_robust_list"),
    (libc::SYS_set_tid_address, "set_tid_address"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access"),
];

/// From exec on: the start of a run needs more than its guest does.
fn units_allow_what_runs_call() {
    let directory = common::directory();
    let manager = directory.path().join("notify");
    let _manager = UnixDatagram::bind(&manager).unwrap();
    let image = directory.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let options = [
        "--mem=4",
        &format!("--net=@{FD}"),
        &format!("--disk={}", text(&image)),
        "-v",
    ];
    let mut command = pass_fd(unikernel("bench-io", &options, &["n=20"]), theirs);
    command.env("NOTIFY_SOCKET", &manager);
    let mut called = BTreeSet::new();
    let ended = trace_threads(&mut command, |_, _, call| {
        called.insert(call.number);
        false
    });
    assert_eq!(ended, 0);
    for (file, _) in &UNITS[..2] {
        let allowed = allowed(&unit(file));
        assert!(
            !allowed.contains("mount") && !allowed.contains("setuid") && allowed.contains("ioctl"),
            "{allowed:?}"
        );
        for &number in &called {
            let of_start = || {
                START
                    .iter()
                    .find(|(call, _)| *call == number)
                    .map(|(_, name)| *name)
            };
            let call = name(number)
                .or_else(of_start)
                .unwrap_or_else(|| panic!("system call {number} has no name here"));
            assert!(allowed.contains(call), "{file} does not allow {call}");
        }
    }
}

/// The options of each command line are tender's.
fn units_name_only_what_tender_knows() {
    let help = String::from_utf8(output(Command::new(tender_path()).arg("--help")).stdout).unwrap();
    for (file, _) in UNITS {
        for line in unit(file)
            .lines()
            .filter(|line| line.starts_with("Exec") && line.contains("/bin/"))
        {
            let arguments = line
                .split_whitespace()
                .skip(1)
                .take_while(|word| *word != "--");
            for option in arguments.filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap();
                assert!(
                    help.contains(option),
                    "{file}: {option} is no option of tender's"
                );
            }
        }
    }
}

/// Runs the unit's command with a port from systemd's socket activation.
fn metrics_are_passed_on_to_a_port() {
    let directory = common::directory();
    let socket = directory.path().join("metrics.sock");
    let metrics = format!("--metrics=unix:{}", text(&socket));
    let guest = Guest::start(&mut unikernel(
        "hypercalls",
        &["--mem=4", &metrics],
        &["poll-forever"],
    ));
    guest.wait_for("hypercalls: poll-forever\n");
    succeeds(Command::new("ip").args(["link", "set", "lo", "up"]));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = port.local_addr().unwrap();
    let service =
        unit("tender-metrics@.service").replace("/run/tender/%i/metrics.sock", text(&socket));
    let command = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let mut proxy = Command::new("sh");
    proxy.args([
        "-c",
        &format!("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec {command}"),
    ]);
    let mut proxy = common::children::spawn(proxy.stdin(OwnedFd::from(port))).unwrap();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "30",
        &format!("http://{address}/metrics"),
    ]);
    let answer = output(&mut curl);
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    assert!(
        String::from_utf8_lossy(&answer.stdout).contains("\ntender_guest_memory_bytes 4194304\n"),
        "{answer:?}"
    );
}

fn tap(arguments: &[&str]) -> Output {
    output(Command::new(packaging().join("network/tap")).args(arguments))
}

fn links() -> String {
    succeeds(Command::new("ip").args(["-d", "link", "show"]))
}

/// A guest on the tap, through the bridge.
fn a_tap_by_ip() {
    let made = tap(&["up", "tap100", "br100", "user:0", "10.0.0.1/24"]);
    assert!(made.status.success(), "{made:?}");
    let links = links();
    for arguments in [
        "master br100",
        "stp_state 0",
        "bridge forward_delay 0",
        "user root",
    ] {
        assert!(links.contains(arguments), "no {arguments:?}: {links}");
    }
    let twice = tap(&["up", "tap100", "br100", "user:0"]);
    assert!(
        !twice.status.success() && String::from_utf8_lossy(&twice.stderr).contains("already"),
        "{twice:?}"
    );
    let guest = Guest::start(&mut unikernel(
        "net",
        &["--net=tap100", "--mem=4"],
        &["--ipv4=10.0.0.2/24"],
    ));
    assert!(ping(Ipv4Addr::new(10, 0, 0, 2), b"over the bridge", 30));
    drop(guest);
    assert!(tap(&["down", "tap100", "br100"]).status.success());
    let left = self::links();
    assert!(
        !left.contains("tap100") && !left.contains("br100"),
        "{left}"
    );
    // A second `down` is no error.
    assert!(tap(&["down", "tap100", "br100"]).status.success());
}

fn a_tap_by_ip_leaves_what_is_not_its_own() {
    succeeds(Command::new("ip").args(["link", "add", "br0", "type", "bridge"]));
    let other = Tap::down("tap0");
    for wrong in [
        &["up", "tap1", "br0"][..],
        &["up", "tap1", "br0", "root"],
        &["down", "tap1"],
        &["sideways"],
        &[],
    ] {
        let refused = tap(wrong);
        assert_eq!(refused.status.code(), Some(1), "{wrong:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).starts_with("tap: "),
            "{refused:?}"
        );
    }
    // An unknown user is detected half way, and nothing is left.
    assert!(
        !tap(&["up", "tap1", "br1", "user:no-such-user"])
            .status
            .success()
    );
    assert!(
        !links().contains("br1") && !links().contains("tap1"),
        "{}",
        links()
    );
    assert!(tap(&["up", "tap1", "br0", "group:0"]).status.success());
    assert!(tap(&["up", "tap2", "br0", "group:0"]).status.success());
    assert!(tap(&["down", "tap1", "br0"]).status.success());
    assert!(links().contains("tap2") && links().contains("br0") && links().contains(other.name()));
    assert!(tap(&["down", "tap0", "br0"]).status.success());
    assert!(links().contains("tap0"), "another owner's tap is gone");
    assert!(UdpSocket::bind("0.0.0.0:0").is_ok());
}

/// Its effect needs the hooks of bridge-utils; here only its syntax is checked.
fn a_tap_by_ifupdown_is_valid() {
    let directory = common::directory();
    let mut ifup = Command::new("ifup");
    ifup.args(["--no-act", "--verbose", "--force", "--interfaces"])
        .arg(packaging().join("network/ifupdown/tap100"));
    let arguments = succeeds(
        ifup.arg("--state-dir")
            .arg(directory.path())
            .args(["tap100", "br100"]),
    );
    for line in [
        "ip tuntap add dev $IFACE mode tap user pirate",
        "ip addr add 10.0.0.1/",
    ] {
        assert!(arguments.contains(line), "{arguments}");
    }
}

/// Returns the settings of a systemd file, by section and key.
fn settings(path: &Path) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut settings = BTreeMap::new();
    for line in fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match (
            line.strip_prefix('[')
                .and_then(|line| line.strip_suffix(']')),
            line.split_once('='),
        ) {
            (Some(name), _) => section = name.to_owned(),
            (None, Some((key, value))) => {
                drop(settings.insert(format!("{section}.{key}"), value.to_owned()))
            }
            (None, None) => panic!(
                "{}: {line:?} is neither a section nor a setting",
                path.display()
            ),
        }
    }
    settings
}

/// systemd-networkd and ifupdown must be installed to apply theirs; here they are only compared.
fn the_three_networks_are_the_same() {
    let networkd = |name: &str| settings(&packaging().join("network/networkd").join(name));
    let [bridge, host, tap, port] = [
        "50-br100.netdev",
        "50-br100.network",
        "50-tap100.netdev",
        "50-tap100.network",
    ]
    .map(networkd);
    assert_eq!(
        [
            &bridge["NetDev.Name"],
            &bridge["NetDev.Kind"],
            &bridge["Bridge.STP"]
        ],
        ["br100", "bridge", "no"]
    );
    assert_eq!(
        [&tap["NetDev.Name"], &tap["NetDev.Kind"], &tap["Tap.User"]],
        ["tap100", "tap", "pirate"]
    );
    assert_eq!(
        [&host["Match.Name"], &host["Network.Address"]],
        ["br100", "10.0.0.1/24"]
    );
    assert_eq!(
        [&port["Match.Name"], &port["Network.Bridge"]],
        ["tap100", "br100"]
    );
    let ifupdown = fs::read_to_string(packaging().join("network/ifupdown/tap100")).unwrap();
    for line in [
        "user pirate",
        "address 10.0.0.1/24",
        "bridge_ports tap100",
        "bridge_stp off",
        "bridge_fd 0",
    ] {
        assert!(ifupdown.contains(line), "no {line:?}");
    }
    assert!(
        unit("tap@.service").contains("BRIDGE=br100")
            && unit("presentation.service").contains("User=pirate")
    );
}
