//! The files in `packaging/`: the units by systemd's own checks, and compared with what a run
//! calls; the networks as far as their tools are installed.

mod networks;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::Trial;
use tender::sandbox::rules::name;

use crate::common::Need::{Kvm, KvmEngine, Net, ProcessEngine, Programs, Repository};
use crate::common::trace::trace_threads;
use crate::common::{self, FD, Guest, pass_fd, tender_path, text, unikernel};

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
    let mut tests = vec![
        trial!(units_are_valid, Repository, Programs(ANALYZE)),
        trial!(units_expose_little, Repository, Programs(ANALYZE)),
        trial!(
            units_allow_what_runs_call,
            Repository,
            KvmEngine,
            Programs(ANALYZE)
        ),
        trial!(
            the_drop_in_allows_what_runs_without_kvm_call,
            Repository,
            ProcessEngine,
            Programs(ANALYZE)
        ),
        trial!(units_name_only_what_tender_knows, Repository),
        trial!(examples_name_only_what_tender_knows, Repository),
        trial!(examples_name_this_version, Repository),
        trial!(
            metrics_are_passed_on_to_a_port,
            Repository,
            Kvm,
            Net,
            Programs(&["systemd-analyze", "sh", "ip", "curl"])
        ),
    ];
    tests.extend(networks::tests());
    tests
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
            .replace("/usr/sbin/tender-tap ", &format!("{} ", text(&tap)));
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
    (libc::SYS_clone, "clone"),
    (libc::SYS_close_range, "close_range"),
    (libc::SYS_epoll_create1, "epoll_create1"),
    (libc::SYS_faccessat, "faccessat"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_landlock_create_ruleset, "landlock_create_ruleset"),
    (libc::SYS_landlock_restrict_self, "landlock_restrict_self"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_prlimit64, "prlimit64"),
    (libc::SYS_rseq, "rseq"),
    (libc::SYS_sched_getaffinity, "sched_getaffinity"),
    (libc::SYS_sched_getscheduler, "sched_getscheduler"),
    (libc::SYS_set_robust_list, "set_robust_list"),
    (libc::SYS_set_tid_address, "set_tid_address"),
    (libc::SYS_timer_create, "timer_create"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access"),
];

/// Calls of the guest's process that must succeed before it is the guest. Its tracer is tender.
const CHILD: [&str; 7] = [
    "mprotect",
    "mremap",
    "munmap",
    "prctl",
    "ptrace",
    "sched_setscheduler",
    "seccomp",
];

fn units_allow_what_runs_call() {
    let called = called("--engine=kvm");
    for (file, _) in &UNITS[..2] {
        allows(file, &unit(file), called.iter().copied());
    }
}

fn the_drop_in_allows_what_runs_without_kvm_call() {
    let drop_in = unit("process.conf");
    assert!(drop_in.contains("\nMemoryDenyWriteExecute=no\n"));
    let called = called("--engine=process");
    assert!(called.contains("ptrace"), "{called:?}");
    for (file, _) in &UNITS[..2] {
        let both = unit(file) + &drop_in;
        allows(file, &both, called.iter().copied().chain(CHILD));
    }
}

#[track_caller]
fn allows(file: &str, unit: &str, called: impl Iterator<Item = &'static str>) {
    let allowed = allowed(unit);
    assert!(
        !allowed.contains("mount") && !allowed.contains("setuid") && allowed.contains("ioctl"),
        "{allowed:?}"
    );
    for call in called {
        assert!(allowed.contains(call), "{file} does not allow {call}");
    }
}

/// Returns the calls of tender from exec on: the start of a run needs more than its guest does.
fn called(engine: &str) -> BTreeSet<&'static str> {
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
        engine,
    ];
    // The environment may name the engine already.
    let options = &options[..options.len() - usize::from(common::by_process())];
    let mut command = pass_fd(unikernel("bench-io", options, &["n=20"]), theirs);
    command.env("NOTIFY_SOCKET", &manager);
    let mut numbers = BTreeSet::new();
    let ended = trace_threads(&mut command, |_, _, call| {
        numbers.insert(call.number);
        false
    });
    assert_eq!(ended, 0);
    let of_start = |number| START.iter().find(|(call, _)| *call == number);
    let named = |number| name(number).or_else(|| of_start(number).map(|(_, name)| *name));
    let numbers = numbers.into_iter();
    numbers
        .map(|number| named(number).unwrap_or_else(|| panic!("system call {number} has no name")))
        .collect()
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

/// The options in examples that are no units, up to each unikernel.
fn examples_name_only_what_tender_knows() {
    let help = String::from_utf8(output(Command::new(tender_path()).arg("--help")).stdout).unwrap();
    for file in [
        "containers/compose.yaml",
        "containers/pod.yaml",
        "examples/github-actions.yml",
    ] {
        let text = fs::read_to_string(packaging().join(file)).unwrap();
        let lines = text.lines().map(str::trim_start).filter(|line| {
            ["command: ", "args: ", "tender ", "- run: tender "]
                .iter()
                .any(|start| line.starts_with(start))
        });
        let options: Vec<&str> = lines
            .flat_map(|line| {
                line.split([' ', ',', '[', ']'])
                    .take_while(|word| *word != "--")
            })
            .filter(|word| word.starts_with("--"))
            .map(|word| word.split(['=', ':']).next().unwrap())
            .collect();
        assert!(options.len() > 1, "{file}: {options:?}");
        for option in options {
            assert!(
                help.contains(option),
                "{file}: {option} is no option of tender's"
            );
        }
    }
}

/// docs/releasing.md lists the places of the version.
fn examples_name_this_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = env!("CARGO_PKG_VERSION");
    let action = format!("uses: tender-vmm/tender@v{version}\n");
    for file in ["packaging/examples/github-actions.yml", "docs/install.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(&action), "{file}: no {action:?}");
    }
    let example = fs::read_to_string(root.join("packaging/examples/github-actions.yml")).unwrap();
    assert!(example.contains(&format!("version: {version}\n")));
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
