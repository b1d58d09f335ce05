//! Interfaces and images: checked as at a start, and not changed.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use libtest_mimic::Trial;

use crate::check::{HOST, agree, both, check, plain, unikernel};
use crate::common::Need::{Kvm, Net, Root};
use crate::common::net::Tap;
use crate::common::{self, Device, FD, pass_fd, run, text};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(interfaces_are_checked_as_at_a_start, Kvm, Net),
        trial!(an_interface_is_not_changed, Kvm, Net),
        trial!(descriptors_are_checked_as_at_a_start, Kvm, Net),
        trial!(owners_are_checked_as_at_a_start, Root, Kvm, Net),
        trial!(images_are_checked_as_at_a_start, Kvm),
        trial!(an_image_is_not_changed, Kvm),
        trial!(the_lock_of_a_passed_disk_is_not_changed, Kvm),
    ]
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
            start.prints("this program needs --ipv4=ADDRESS/PREFIX, such as --ipv4=");
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
