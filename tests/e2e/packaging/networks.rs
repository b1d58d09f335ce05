//! The three ways to make the network: by ip, ifupdown and systemd-networkd.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Net, Programs, Repository};
use crate::common::net::{Tap, ping};
use crate::common::{self, Guest, unikernel};
use crate::packaging::{output, packaging, succeeds, unit};

pub fn tests() -> Vec<Trial> {
    vec![
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

fn tap(arguments: &[&str]) -> Output {
    output(Command::new(packaging().join("network/tap")).args(arguments))
}

#[track_caller]
fn refuses_down(tap: &str, bridge: &str, message: &str) {
    let down = self::tap(&["down", tap, bridge]);
    let stderr = String::from_utf8_lossy(&down.stderr);
    assert_eq!(down.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with(&format!("tap: {message}")), "{stderr}");
}

fn links() -> String {
    succeeds(Command::new("ip").args(["-d", "link", "show"]))
}

/// A guest on the tap, through the bridge.
fn a_tap_by_ip() {
    let made = tap(&["up", "tap100", "br100", "user:0", "10.100.0.1/24"]);
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
        &["--ipv4=10.100.0.2/24"],
    ));
    assert!(ping(Ipv4Addr::new(10, 100, 0, 2), b"over the bridge", 30));
    drop(guest);
    assert!(tap(&["down", "tap100", "br100"]).status.success());
    let left = self::links();
    assert!(
        !left.contains("tap100") && !left.contains("br100"),
        "{left}"
    );
    refuses_down("tap100", "br100", "there is no interface 'tap100'");
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
    refuses_down("tap0", "br0", "'tap0' was not made by tap and stays; ");
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
        "ip addr add 10.100.0.1/",
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
        ["br100", "10.100.0.1/24"]
    );
    assert_eq!(
        [&port["Match.Name"], &port["Network.Bridge"]],
        ["tap100", "br100"]
    );
    let ifupdown = fs::read_to_string(packaging().join("network/ifupdown/tap100")).unwrap();
    for line in [
        "user pirate",
        "address 10.100.0.1/24",
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
