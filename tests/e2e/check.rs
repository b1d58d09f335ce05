//! `--check`: reports all problems that a start would report, and neither starts nor changes
//! anything.

mod outlets;

use libtest_mimic::Trial;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::common::Need::{Kvm, Net, Root};
use crate::common::net::Tap;
use crate::common::{self, Device, FD, Output, pass_fd, refuse, run, text, with_devices};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(a_startable_guest_is_reported_and_not_started, Kvm),
        trial!(all_problems_are_reported_together, Kvm),
        trial!(without_a_unikernel_the_rest_is_checked, Kvm),
        trial!(interfaces_are_checked_as_at_a_start, Kvm, Net),
        trial!(an_interface_is_not_changed, Kvm, Net),
        trial!(descriptors_are_checked_as_at_a_start, Kvm, Net),
        trial!(owners_are_checked_as_at_a_start, Root, Kvm, Net),
        trial!(images_are_checked_as_at_a_start, Kvm),
        trial!(an_image_is_not_changed, Kvm),
        trial!(the_lock_of_a_passed_disk_is_not_changed, Kvm),
        trial!(a_host_without_devices_is_reported, Kvm, Net),
        trial!(memory_is_checked_as_at_a_start, Kvm),
        trial!(users_and_roots_are_checked_as_at_a_start, Root, Kvm),
        #[cfg(target_arch = "x86_64")]
        trial!(the_register_filter_is_checked_as_at_a_start, Kvm),
        trial!(sandbox_layers_are_checked_as_at_a_start, Kvm),
    ];
    tests.extend(outlets::tests());
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

/// Only a unikernel that ends is needed here, not the echo unikernel.
const ENDS: &[&str] = &["check"];

fn interfaces_are_checked_as_at_a_start() {
    let both = |tap: &str| {
        both(
            "net",
            &[&format!("--net={tap}"), "--mem=4"],
            ENDS,
            |command| command,
        )
    };
    both("tap0");
    let tap = Tap::down("tap0");
    both("tap0");
    tap.set_up(true);
    // A successful start logs what its guest tried.
    both("tap0");
    let attached = tap.attach();
    both("tap0");
    drop(attached);
    tap.wait_until_free();
    both("tap0");
    let _tun = Tap::tun("tun0");
    both("tun0");
    both("lo");
    both("fifteen-letters");
}

fn an_interface_is_not_changed() {
    let tap = Tap::up("tap0", HOST);
    let changes = || fs::read_to_string("/sys/class/net/tap0/carrier_changes").unwrap();
    let before = changes();
    let output = check("net", &["--net=tap0", "--net-mac=02:00:00:00:00:01"]);
    output
        .exits(0)
        .prints("ok       net:service  tap0, 02:00:00:00:00:01, MTU 1500\n");
    assert_eq!(changes(), before, "its carrier went up and down");
    // Attaching does change it, so the comparison above means something.
    drop(tap.attach());
    assert_ne!(changes(), before);
}

fn descriptors_are_checked_as_at_a_start() {
    let option = format!("--net=@{FD}");
    let both = |file: &dyn Fn() -> OwnedFd| {
        both("net", &[&option, "--mem=4"], ENDS, |command| {
            pass_fd(command, file())
        });
    };
    let tap = Tap::up("tap0", HOST);
    both(&|| tap.attach().into());
    both(&|| {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    });
    both(&|| {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .unwrap()
            .into()
    });
    let tun = Tap::tun("tun0");
    both(&|| tun.attach_tun().into());
    both(&|| std::os::unix::net::UnixStream::pair().unwrap().0.into());
    let output = check("net", &[&option]);
    output
        .exits(1)
        .prints("missing  net:service  file descriptor 99 was not passed to tender");
    // Other holders of the descriptor keep it blocking.
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    let flags = |socket: &UnixDatagram| {
        // SAFETY: the request takes no pointer; the descriptor is open.
        unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) }
    };
    let before = flags(&ours);
    let output = run(&mut pass_fd(
        unikernel(true, "net", &[&option], &[]),
        ours.try_clone().unwrap(),
    ));
    output.exits(0).prints("ok       net:service  @99, ");
    assert_eq!(flags(&ours), before);
    tap.set_up(false);
    let output = run(&mut pass_fd(
        unikernel(true, "net", &[&option], &[]),
        tap.attach(),
    ));
    output
        .exits(0)
        .prints("note     net:service  tap0, ")
        .prints("-> it is down");
}

fn owners_are_checked_as_at_a_start() {
    let tap = Tap::up("tap0", HOST);
    let both = |tun: Device, fine: bool| {
        let run = |check: &[&str]| {
            let directory = common::directory();
            let devices = [Device::Made("kvm", 0o666), tun];
            run(&mut common::as_nobody(
                "net",
                directory.path(),
                &devices,
                &[check, &["--net=tap0"]].concat(),
            ))
        };
        let (start, check) = (run(&["--mem=4"]), run(&["--check"]));
        if fine {
            // Its guest has no address.
            start.prints("panic: say which address");
            check.exits(0);
        } else {
            agree(&start, &check);
        }
    };
    tap.set_owner(4711);
    both(Device::Made("net/tun", 0o666), false);
    both(Device::Made("net/tun", 0o600), false);
    tap.set_owner(65534);
    both(Device::Made("net/tun", 0o666), true);
}

fn image(path: &Path, size: u64) -> String {
    File::create(path).unwrap().set_len(size).unwrap();
    format!("--disk={}", text(path))
}

fn images_are_checked_as_at_a_start() {
    let directory = common::directory();
    let path = |name: &str| directory.path().join(name);
    let both = |option: &str, more: &[&str]| {
        both(
            "block",
            &[&[option, "--mem=4"], more].concat(),
            &["fill"],
            |command| command,
        );
    };
    both(&image(&path("good"), 1 << 20), &[]);
    both(&image(&path("odd"), 1000), &[]);
    both(
        &image(&path("large"), 1 << 20),
        &["--block-sector-size=32768"],
    );
    both(&image(&path("empty"), 0), &[]);
    both(&format!("--disk={}", text(&path("missing"))), &[]);
    both("--disk=/dev/zero", &[]);
    both(&format!("--disk={}", text(directory.path())), &[]);
    // While another process has it locked.
    let good = format!("--disk={}", text(&path("good")));
    let locked = File::open(path("good")).unwrap();
    // SAFETY: the call takes numbers; the descriptor is open.
    assert_eq!(unsafe { libc::flock(locked.as_raw_fd(), libc::LOCK_EX) }, 0);
    both(&good, &[]);
    // Unlocked, and not only closed: a child of another test, between fork and exec, holds it too.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::flock(locked.as_raw_fd(), libc::LOCK_UN) }, 0);
    both(&good, &[]);
    let same = path("link");
    fs::hard_link(path("good"), &same).unwrap();
    let options = [
        format!("--block:a={}", text(&path("good"))),
        format!("--block:b={}", text(&same)),
    ];
    let output = check("block2", &[&options[0], &options[1]]);
    output
        .exits(1)
        .prints("ok       block:a ")
        .prints("missing  block:b ")
        .prints("two block devices");
}

fn an_image_is_not_changed() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    let option = image(&path, 1 << 20);
    let state = || {
        let metadata = fs::metadata(&path).unwrap();
        (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
            fs::read(&path).unwrap(),
        )
    };
    let before = state();
    let output = check("block", &[&option]);
    assert!(
        output.code() == 0 && plain(&output.stdout).contains(", 1048576 bytes in sectors of 512"),
        "{output:?}"
    );
    assert!(state() == before);
}

/// The open file of a passed disk outlives the check, which leaves its lock alone and reports that.
fn the_lock_of_a_passed_disk_is_not_changed() {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    for (size, status, report) in [
        (1 << 20, 0, "-> whether it is in use is not checked: "),
        (1000, 1, "not a multiple of its sectors"),
    ] {
        image(&path, size);
        let passed = File::options().read(true).write(true).open(&path).unwrap();
        let other = File::open(&path).unwrap();
        let lock = |file: &File, kind: libc::c_int| {
            // SAFETY: the call takes numbers; the descriptor is open.
            unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) == 0 }
        };
        let option = format!("--disk=@{FD}");
        let check = || {
            let command = unikernel(true, "block", &[&option], &[]);
            let output = run(&mut pass_fd(command, passed.try_clone().unwrap()));
            assert!(
                output.code() == status && plain(&output.stdout).contains(&plain(report)),
                "{output:?}"
            );
        };
        check();
        assert!(
            lock(&other, libc::LOCK_EX) && lock(&other, libc::LOCK_UN),
            "it is locked"
        );
        assert!(lock(&passed, libc::LOCK_SH));
        check();
        assert!(
            lock(&other, libc::LOCK_SH) && !lock(&other, libc::LOCK_EX),
            "it is not locked as it was"
        );
        assert!(lock(&other, libc::LOCK_UN) && lock(&passed, libc::LOCK_EX));
        check();
        assert!(!lock(&other, libc::LOCK_SH), "it is not locked any more");
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
        .prints(" -> 'modprobe tun' loads its driver");
    run_with(&[Device::Ours("kvm"), Device::Ours("net/tun")]).exits(0);
}

fn memory_is_checked_as_at_a_start() {
    both("hello", &["--mem=1G"], &[], |mut command| {
        let limit = libc::rlimit {
            rlim_cur: 512 << 20,
            rlim_max: 512 << 20,
        };
        // SAFETY: setrlimit reads the limit and is safe between fork and exec.
        unsafe {
            command.pre_exec(
                move || match libc::setrlimit(libc::RLIMIT_AS, &raw const limit) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            )
        };
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
