//! The steps of the replay, in order: a person installs the package, starts the unikernel of the
//! 2019 talk as a service in three ways, reads its page and its log, kills it, stops it, runs it
//! without KVM, and removes everything.

use super::step::Step;
use super::walk;
use crate::machines::machine::Emulated;

/// Address of the talk's unikernel.
const TALK: &str = "10.100.0.2";

/// Address of the unikernel of docs/service.md.
const INSTANCE: &str = "10.100.0.4";

/// All steps on this machine.
pub fn all(machine: Emulated) -> Vec<Step> {
    let mut steps = vec![board(machine)];
    for part in [
        installed,
        as_in_the_talk,
        as_packaged,
        as_instance,
        without_kvm,
        untraceable,
        removed,
    ] {
        steps.extend(part());
    }
    steps
}

fn board(machine: Emulated) -> Step {
    let step = Step::new(
        "The board, and what runs on it",
        "cat /etc/debian_version\n\
         uname -srm\n\
         ps -o pid,comm --no-headers 1\n\
         tr '\\0' '\\n' </proc/device-tree/compatible\n\
         ls -l /dev/kvm /dev/net/tun\n\
         systemctl --failed --no-legend",
    )
    .shows(&[
        "aarch64",
        "1 systemd",
        "crw-rw---- 1 root kvm",
        "crw-rw-rw- 1 root root",
    ])
    .lacks(&["failed"]);
    if machine == Emulated::Pi3 {
        step.shows(&["raspberrypi,3-model-b"])
    } else {
        step
    }
}

fn installed() -> Vec<Step> {
    vec![
        Step::new(
            "A user for the service, and the unikernel",
            "useradd --create-home --groups kvm pirate\n\
             install --owner=pirate --mode=644 presentation_server.hvt /home/pirate/\n\
             id pirate",
        )
        .shows(&["(pirate)", "(kvm)"]),
        Step::new(
            "The package",
            "./files >before\n\
             dpkg --install *.deb\n\
             dpkg --verify tender\n\
             dpkg --status tender | head -n 2",
        )
        .shows(&["Setting up tender", "Status: install ok installed"]),
        Step::new(
            "It goes by two names",
            "tender --version\nreadlink --canonicalize /usr/bin/solo5-hvt",
        )
        .shows(&["tender ", "/usr/bin/tender"]),
        Step::new(
            "A tap in a bridge",
            "cat /usr/share/doc/tender/examples/network/ifupdown/tap100\n\
             cp /usr/share/doc/tender/examples/network/ifupdown/tap100 /etc/network/interfaces.d/\n\
             ifup tap100 br100\n\
             ip -brief address show dev br100\n\
             ip -details link show dev tap100 | head -n 3",
        )
        .shows(&["10.100.0.1/24", "master br100", "tun type tap"]),
        Step::new(
            "A visitor on the bridge, in a separate network namespace",
            "ip netns add visitor\n\
             ip link add visitor0 type veth peer name eth0 netns visitor\n\
             ip link set visitor0 master br100 up\n\
             ip -n visitor address add 10.100.0.3/24 dev eth0\n\
             ip -n visitor link set eth0 up\n\
             ip -n visitor -brief address show dev eth0",
        )
        .shows(&["10.100.0.3/24"]),
    ]
}

/// The page as the visitor gets it. The first response takes a while: the unikernel may still be
/// booting.
fn page(title: &'static str, address: &str) -> Step {
    let run = format!(
        "ip netns exec visitor curl -sS --connect-timeout 5 --retry 20 --retry-delay 1 --retry-all-errors \
         --dump-header - --output page http://{address}:8080/ &&\nhead -n 6 page"
    );
    Step::new(title, run).shows(&[
        "HTTP/1.1 200",
        "<title>Unikernels on a Raspberry Pi 3B</title>",
    ])
}

/// The unit as shown in the talk, with the tender's old name.
fn as_in_the_talk() -> Vec<Step> {
    vec![
        Step::new(
            "The service of the talk",
            "cat presentation.service\n\
             cp presentation.service /etc/systemd/system/\n\
             systemctl daemon-reload\n\
             systemctl start presentation\n\
             systemctl is-active presentation\n\
             ps -o user,group,args --no-headers $(systemctl show -P MainPID presentation)",
        )
        .shows(&["\nactive\npirate   kvm      /usr/bin/solo5-hvt --net=tap100 --mem=64M -- /home/pirate/"]),
        page("The page, fetched over the bridge", TALK),
        Step::new("The log, in the journal", "journalctl --unit=presentation --no-pager").shows(&[
            "Started presentation.service",
            "solo5-hvt[",
            "10.100.0.2/24, announced",
            "listening on 8080/TCP",
            "GET / 200 OK",
        ]),
        Step::new(
            "Killed, and started again",
            "before=$(systemctl show -P MainPID presentation)\n\
             kill -9 $before\n\
             until now=$(systemctl show -P MainPID presentation); [ $now != 0 ] && [ $now != $before ]; do sleep 0.5; done\n\
             systemctl show -p ActiveState,NRestarts presentation\n\
             journalctl --unit=presentation --no-pager --lines=20 | grep 'systemd\\['",
        )
        .shows(&["ActiveState=active", "NRestarts=1", "code=killed, status=9/KILL"]),
        page("The page, once more", TALK),
        Step::new("Stopped: dead, and not failed", "systemctl stop presentation\nsystemctl status --lines=0 presentation")
            .status(3)
            .shows(&["Active: inactive (dead)"])
            .lacks(&["failed"]),
        Step::new(
            "A clean end, as systemd sees it",
            "systemctl show -p Result presentation\n\
             journalctl --unit=presentation --no-pager --lines=3\n\
             systemctl is-failed presentation",
        )
        .status(1)
        .shows(&["Result=success", "presentation.service: Deactivated successfully", "Stopped presentation.service", "\ninactive"]),
        Step::new(
            "No page any more",
            "ip netns exec visitor curl -sS --max-time 5 http://10.100.0.2:8080/ || echo \"curl: status $?\"",
        )
        .shows(&["curl: status "])
        .lacks(&["<title>"]),
    ]
}

/// The package's unit: hardened, and notified by the tender when the guest runs.
fn as_packaged() -> Vec<Step> {
    vec![
        Step::new(
            "The unit that comes with the package",
            "cp /usr/share/doc/tender/examples/systemd/presentation.service /etc/systemd/system/\n\
             systemctl daemon-reload\n\
             systemctl start presentation\n\
             systemctl status --lines=3 presentation",
        )
        .shows(&["Active: active (running)", "Status: \""]),
        page("Its page", TALK),
        Step::new(
            "Stopped",
            "systemctl stop presentation\nsystemctl status --lines=0 presentation",
        )
        .status(3)
        .shows(&["Active: inactive (dead)"])
        .lacks(&["failed"]),
    ]
}

/// The package's unit for any number of unikernels, each with a file in /etc/tender and a separate
/// user: the walk of docs/service.md, then what that page does not need.
fn as_instance() -> Vec<Step> {
    let mut steps = walk::steps();
    steps.extend([
        Step::new(
            "What the unit gave to its user, and to no other",
            "systemctl show -p Type,NotifyAccess,DynamicUser,User,ProtectSystem tender@web\n\
             disk=$(stat --format='%u %s' /var/lib/private/tender/web/data.img)\n\
             test \"$disk\" = \"$(stat --format=%u /run/tender/web/metrics.sock) 67108864\" && echo the disk too\n\
             systemctl show -p User,ActiveState tender-metrics@web.service\n\
             ls -l /run/tender/web\n\
             systemctl disable --now tender-metrics@web.socket\n\
             systemctl stop tender-metrics@web.service",
        )
        .shows(&[
            "Type=notify",
            "User=tender-web",
            "the disk too",
            "ActiveState=active",
            "srw------- 1 ",
        ]),
        Step::new("Stopped", "systemctl disable --now tender@web\nsystemctl status --lines=0 tender@web")
            .status(3)
            .shows(&["Active: inactive (dead)"])
            .lacks(&["failed"]),
        Step::new(
            "An error in the file is reported with its position",
            "sed s/mem/mme/ /etc/tender/web.toml >/etc/tender/mistaken.toml\n\
             systemctl start tender@mistaken\n\
             journalctl --unit=tender@mistaken --no-pager --lines=20",
        )
        .shows(&["/etc/tender/mistaken.toml:3:1: unknown key 'mme'; did you mean 'mem'?"]),
        Step::new(
            "And not tried for ever",
            "for _ in $(seq 100); do systemctl is-failed --quiet tender@mistaken && break; sleep 1; done\n\
             systemctl show -p ActiveState,NRestarts tender@mistaken\n\
             journalctl --unit=tender@mistaken --no-pager --lines=6\n\
             systemctl reset-failed tender@mistaken",
        )
        .shows(&["ActiveState=failed", "tender@mistaken.service: Start request repeated too quickly."]),
    ]);
    steps
}

/// The same unit with the process engine.
fn without_kvm() -> Vec<Step> {
    let mut steps: Vec<Step> = walk::without_kvm().collect();
    steps.extend([
        Step::new(
            "The same unikernel, in a process",
            "sed -i '1i engine = \"process\"' /etc/tender/web.toml\n\
             systemctl start tender@web\n\
             systemctl status --lines=20 tender@web\n\
             ls -l /proc/$(systemctl show -P MainPID tender@web)/fd | grep kvm || echo no KVM",
        )
        .shows(&["Active: active (running)", "engine process", "\nno KVM"]),
        page("Its page, without KVM", INSTANCE),
        Step::new(
            "Killed: its guest ends with it",
            "group=/sys/fs/cgroup$(systemctl show -P ControlGroup tender@web)\n\
             before=$(cat $group/cgroup.procs)\n\
             set -- $before\n\
             echo processes: $#\n\
             kill -9 $(systemctl show -P MainPID tender@web)\n\
             until [ $(systemctl show -P NRestarts tender@web) = 1 ] && systemctl is-active --quiet tender@web; do sleep 0.5; done\n\
             for process in $before; do test -e /proc/$process && exit 1; done\n\
             echo none is left",
        )
        .shows(&["processes: 2", "none is left"]),
        Step::new(
            "Stopped",
            "systemctl stop tender@web\nsystemctl status --lines=0 tender@web",
        )
        .status(3)
        .shows(&["Active: inactive (dead)"])
        .lacks(&["failed"]),
    ]);
    steps
}

/// Yama's settings that forbid the process engine. The last one stays until the next boot.
fn untraceable() -> Vec<Step> {
    let run = |scope| {
        format!(
            "sysctl kernel.yama.ptrace_scope={scope}\n\
             tender --check --engine=process /usr/share/tender/examples/hello.hvt\n\
             tender --engine=process /usr/share/tender/examples/hello.hvt"
        )
    };
    vec![
        Step::new("Yama allows ptrace to children", run(1))
            .shows(&["hello.hvt would start", "\nhello: "]),
        Step::new("Yama allows it with a capability only", run(2))
            .status(1)
            .shows(&[
                "-> set kernel.yama.ptrace_scope to 1",
                "; set kernel.yama.ptrace_scope to 1",
            ]),
        Step::new("Yama forbids it until the next boot", run(3))
            .status(1)
            .shows(&["; kernel.yama.ptrace_scope is 3 until the next boot; boot with 1"]),
    ]
}

fn removed() -> Vec<Step> {
    vec![
        Step::new(
            "All removed, and nothing left behind",
            "systemctl disable --now tap@tap101\n\
         ifdown br100 tap100\n\
         rm -r /usr/local/lib/tender /etc/systemd/system/tender@.service.d /var/lib/tender /var/lib/private/tender\n\
         rm /etc/systemd/system/presentation.service /etc/network/interfaces.d/tap100\n\
         dpkg --purge tender\n\
         ./files >after\n\
         diff before after && echo the same files as before",
        )
        .shows(&[
            "Purging configuration files for tender",
            "the same files as before",
        ]),
    ]
}
