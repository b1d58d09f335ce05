//! `--check`: reports all problems that a start would report, and neither starts nor changes
//! anything.

mod devices;
mod outlets;

use std::net::Ipv4Addr;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine, Net, Root};
use crate::common::Resource;
use crate::common::net::Tap;
use crate::common::{self, Device, Output, refuse, run, text, with_devices};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(a_startable_guest_is_reported_and_not_started, KvmEngine),
        trial!(all_problems_are_reported_together, Kvm),
        trial!(the_report_can_be_json, Kvm),
        trial!(a_path_is_no_part_of_the_fix),
        trial!(without_a_unikernel_the_rest_is_checked, KvmEngine),
        trial!(a_host_without_devices_is_reported, KvmEngine, Net),
        trial!(memory_is_checked_as_at_a_start, Kvm),
        trial!(users_and_roots_are_checked_as_at_a_start, Root, Kvm),
        #[cfg(target_arch = "x86_64")]
        trial!(the_register_filter_is_checked_as_at_a_start, KvmEngine),
        trial!(sandbox_layers_are_checked_as_at_a_start, KvmEngine),
    ];
    tests.extend(outlets::tests());
    tests.extend(devices::tests());
    tests
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A `tender` that runs `name`, or checks it.
fn unikernel(check: bool, name: &str, options: &[&str], arguments: &[&str]) -> Command {
    let options: Vec<&str> = check
        .then_some("--check")
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    common::unikernel(name, &options, arguments)
}

fn check(name: &str, options: &[&str]) -> Output {
    run(&mut unikernel(true, name, options, &[]))
}

fn the_report_can_be_json() {
    let schema = serde_json::from_str(include_str!("../../docs/check.schema.json"))
        .expect("the schema is JSON");
    let report = |name: &str, options: &[&str], status: i32| {
        let options = [&["--json"], options].concat();
        let output = check(name, &options);
        let text = &output.exits(status).is_quiet().stdout;
        let document = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        common::schema::check(&schema, &document);
        assert_eq!(document["would_start"], status == 0, "{document:#}");
        document
    };
    let good = report("hello", &["--mem=4"], 0);
    assert_eq!(good["findings"][0]["subject"], "unikernel", "{good:#}");
    let bad = report("block", &["--block=/nowhere"], 1);
    let findings = bad["findings"].as_array().unwrap();
    let missing = findings
        .iter()
        .filter(|finding| finding["verdict"] == "missing");
    let subjects: Vec<_> = missing.map(|finding| &finding["subject"]).collect();
    assert_eq!(subjects, ["block:storage"], "{bad:#}");
}

fn a_path_is_no_part_of_the_fix() {
    let mut command = common::tender(["--check", "--json", "--block=/x; mkfs", "a; reboot #.hvt"]);
    let output = run(&mut command);
    let text = &output.exits(1).is_quiet().stdout;
    let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let finding = |subject: &str| {
        let findings = document["findings"].as_array().unwrap();
        let finding = findings
            .iter()
            .find(|finding| finding["subject"] == subject);
        let finding = finding.unwrap_or_else(|| panic!("{document:#}"));
        [&finding["found"], &finding["fix"]].map(|text| text.as_str().unwrap_or_default())
    };
    let [found, fix] = finding("unikernel");
    assert!(
        found.starts_with("a; reboot #.hvt: cannot be opened: "),
        "{found}"
    );
    assert_eq!(fix, "give the path of an hvt unikernel");
    let [found, fix] = finding("block");
    assert_eq!(found, "there is no file '/x; mkfs'");
    assert_eq!(fix, "'truncate -s 64M /x; mkfs' makes an empty image");
}

/// The text of a table, or of a message, without line breaks and rules.
fn plain(text: &str) -> String {
    text.replace("-> ", "")
        .replace(';', "")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Checks that a start and a check agree: both succeed, or the check has the start's message.
#[track_caller]
fn agree(start: &Output, check: &Output) {
    assert_eq!(
        start.code() == 0,
        check.code() == 0,
        "one starts, the other does not: {start:#?} {check:#?}"
    );
    if start.code() == 0 {
        check.prints(" would start\n");
        return;
    }
    check.exits(1).prints(" would not start: ");
    let message = start
        .stderr
        .trim_end()
        .rsplit_once(".hvt: ")
        .map_or("", |(_, message)| message);
    let message = message
        .strip_prefix("device 'service': ")
        .or(message.strip_prefix("device 'storage': "));
    let message = plain(
        message.unwrap_or(
            start
                .stderr
                .trim_end()
                .rsplit_once(".hvt: ")
                .expect("a message")
                .1,
        ),
    );
    assert!(
        plain(&check.stdout).contains(&message),
        "the check should report {message:?}: {check:#?}"
    );
}

/// Runs and checks the same unikernel.
#[track_caller]
fn both(name: &str, options: &[&str], arguments: &[&str], change: impl Fn(Command) -> Command) {
    let [start, check] =
        [false, true].map(|check| run(&mut change(unikernel(check, name, options, arguments))));
    agree(&start, &check);
}

fn a_startable_guest_is_reported_and_not_started() {
    let output = check("hello", &["--mem=4"]);
    output.exits(0).is_quiet();
    for row in [
        "ok       unikernel  ",
        "ok       KVM        can create ",
        "ok       memory     4 MiB\n",
    ] {
        output.prints(row);
    }
    output
        .prints("ok       arguments  0 bytes of 8191\n")
        .prints("ok       devices    none declared, none attached\n");
    output
        .prints("sandbox    ")
        .prints("hello.hvt would start\n");
    assert!(
        !output.stdout.contains("memory: "),
        "the guest ran: {output:?}"
    );
    assert!(
        output
            .stdout
            .lines()
            .all(|line| line.chars().count() <= 80 || line.contains('/')),
        "{output:?}"
    );
    run(&mut unikernel(true, "hello", &["--mem=4"], &["ab", "c"]))
        .exits(0)
        .prints("4 bytes of 8191");
}

fn all_problems_are_reported_together() {
    let directory = common::directory();
    let missing = format!("--block:storage={}/a.img", text(directory.path()));
    let output = check(
        "block",
        &["--net:eth0=tap9", &missing, "--mem=2", "--sandbox=off"],
    );
    output.exits(1).is_quiet();
    output
        .prints("missing  devices        there is no NET_BASIC device 'eth0' in this unikernel\n");
    output
        .prints("missing  block:storage  there is no file ")
        .prints("truncate -s ");
    output
        .prints("note     sandbox        off, as requested\n")
        .prints("would not start: 2 problems\n");
    let output = check("net2", &[]);
    output
        .exits(1)
        .prints("-> add --net:service0=IFACE\n")
        .prints("-> add --net:service1=IFACE\n");
    let long = "x".repeat(9000);
    let output = run(&mut unikernel(true, "net", &[], &[&long]));
    output
        .exits(1)
        .prints("missing  arguments  guest arguments too long: 9000 bytes, limit 8191")
        .prints("2 problems\n");
}

fn without_a_unikernel_the_rest_is_checked() {
    let mut command = common::tender([
        "--check",
        "--net:service=tap9",
        "--disk=/dev/null",
        "no-such.hvt",
    ]);
    let output = run(&mut command);
    output
        .exits(1)
        .prints("missing  unikernel    no-such.hvt: cannot be opened: No such file");
    output
        .prints("missing  net:service  there is no interface 'tap9'\n")
        .prints("missing  disk         '/dev/null' is a char");
    output
        .prints("ok       KVM ")
        .prints("\nno-such.hvt would not start: 3 problems\n");
    if let Some(foreign) = common::foreign_fixture("hello") {
        let output = run(&mut common::tender(["--check", "--", text(&foreign)]));
        output
            .exits(1)
            .prints("-> build it for ")
            .prints("would not start: 1 problem\n");
    }
}

fn a_host_without_devices_is_reported() {
    let _tap = Tap::up("tap0", HOST);
    let run_with = |devices: &[Device]| {
        let directory = common::directory();
        run(with_devices(
            &mut unikernel(true, "net", &["--net=tap0"], &[]),
            directory.path(),
            devices,
        ))
    };
    let output = run_with(&[]);
    output
        .exits(1)
        .prints("missing  KVM          cannot open /dev/kvm: ")
        .prints("-> the kernel has it, but it was not passed to ");
    output
        .prints("missing  net:service  /dev/net/tun is missing\n")
        .prints("modprobe tun' loads its driver");
    run_with(&[Device::Ours("kvm"), Device::Ours("net/tun")]).exits(0);
}

fn memory_is_checked_as_at_a_start() {
    both("hello", &["--mem=1G"], &[], |mut command| {
        common::limit(&mut command, Resource::As, 512 << 20);
        command
    });
    let output = check("hello", &["--mem=3"]);
    output
        .exits(0)
        .prints("2 MiB\n")
        .complains("--mem is rounded down");
}

fn users_and_roots_are_checked_as_at_a_start() {
    let directory = common::directory();
    let here = format!("--chroot={}", text(directory.path()));
    let both = |options: &[&str]| {
        both("hello", &[options, &["--mem=2"]].concat(), &[], |command| {
            command
        })
    };
    both(&["--user=12:34", &here]);
    both(&["--user=12:34", &here, "--sandbox=strict"]);
    both(&["--user=no-such-user"]);
    both(&["--user=12"]);
    both(&["--user=12:no-such-group"]);
    both(&["--chroot=/no/such/directory"]);
    let output = check("hello", &["--user=12:34", &here]);
    output
        .exits(0)
        .prints("ok       user       user 12, group 34\n")
        .prints("ok       chroot     ");
    let output = check(
        "hello",
        &["--user=no-such-user", "--chroot=/no/such/directory"],
    );
    output.exits(1).prints("would not start: 2 problems");
}

/// On a kernel before 5.10.
#[cfg(target_arch = "x86_64")]
fn the_register_filter_is_checked_as_at_a_start() {
    // `_IOW(KVMIO, 0xc6, struct kvm_msr_filter)`.
    const KVM_X86_SET_MSR_FILTER: u32 = 0x4188_aec6;
    for mode in ["strict", "best-effort"] {
        both(
            "hello",
            &["--mem=2", &format!("--sandbox={mode}")],
            &[],
            |mut command| {
                refuse::fails(
                    &mut command,
                    libc::SYS_ioctl,
                    &[(1, KVM_X86_SET_MSR_FILTER)],
                    libc::ENOTTY,
                );
                command
            },
        );
    }
}

/// On a kernel that lacks one.
fn sandbox_layers_are_checked_as_at_a_start() {
    const CREATE_RULESET: libc::c_long = 444;
    let lacks = |call: libc::c_long, mut command: Command| {
        refuse::fails(&mut command, call, &[], libc::ENOSYS);
        command
    };
    for (call, args) in [
        (CREATE_RULESET, "no Landlock"),
        (libc::SYS_seccomp, "NOT filtered"),
    ] {
        both("hello", &["--mem=2", "--sandbox=strict"], &[], |command| {
            lacks(call, command)
        });
        let output = run(&mut lacks(
            call,
            unikernel(true, "hello", &["--mem=2"], &[]),
        ));
        let table = plain(&output.stdout);
        assert!(
            output.code() == 0 && table.contains("note sandbox") && table.contains(args),
            "{output:?}"
        );
    }
}
