//! Disks that are full, defective, slow or truncated.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Net};
use crate::common::Resource;
use crate::common::inject::{Fault, first, inject, once_running};
use crate::common::trace::Call;
use crate::common::{self, Guest, text, trial, unikernel};
use crate::host_faults::{Image, logs_only};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("disk::a_read_error_is_reported")
            .needs(&[Kvm])
            .run(a_read_error_is_reported),
        trial("disk::write_errors_are_reported")
            .needs(&[Kvm])
            .run(write_errors_are_reported),
        trial("disk::short_transfers_are_completed")
            .needs(&[Kvm])
            .run(short_transfers_are_completed),
        trial("disk::interrupted_transfers_are_repeated")
            .needs(&[Kvm])
            .run(interrupted_transfers_are_repeated),
        trial("disk::a_failed_sync_at_the_end_is_reported")
            .needs(&[Kvm])
            .run(a_failed_sync_at_the_end_is_reported),
        trial("disk::a_file_at_its_size_limit_is_reported")
            .needs(&[Kvm])
            .run(a_file_at_its_size_limit_is_reported),
        trial("disk::a_truncated_image_is_reported")
            .needs(&[Kvm])
            .run(a_truncated_image_is_reported),
        trial("disk::a_truncated_unikernel_file_does_no_harm")
            .needs(&[Kvm])
            .run(a_truncated_unikernel_file_does_no_harm),
        trial("disk::a_full_disk_is_written_again_when_it_has_room")
            .needs(&[Kvm, Net])
            .run(a_full_disk_is_written_again_when_it_has_room),
        trial("disk::an_interrupted_lock_request_is_repeated")
            .needs(&[Kvm])
            .run(an_interrupted_lock_request_is_repeated),
    ]
}

fn is_read(call: &Call) -> bool {
    // Without the reads of the unikernel's file, which are over before the guest's memory can hold
    // a sector.
    call.number == libc::SYS_pread64
        && call.arguments[2] == 512
        && call.arguments[3] == Image::SIZE - 512
}

fn is_write(call: &Call) -> bool {
    call.number == libc::SYS_pwrite64
}

fn a_read_error_is_reported() {
    let image = Image::new();
    let output = inject(
        &mut image.block(&["retry"]),
        first(3, Fault::Fails(libc::EIO), is_read),
    );
    output
        .exits(0)
        .prints("block: read Err(Unspecified)\nblock: write Ok(())\n")
        .prints("block: read Ok(())\n");
    assert_eq!(output.stdout.matches("Err").count(), 3, "{output:?}");
    logs_only(
        &output,
        &[
            &[
                "disk.img: read error: Input/output error",
                "reported to the guest",
            ],
            &["disk.img: ", "failed 3 (3 read errors)"],
        ],
    );
}

fn write_errors_are_reported() {
    for (error, args, kind) in [
        (libc::EIO, "Input/output error", "2 write errors"),
        (libc::EFBIG, "File too large", "2 write errors"),
        (libc::ENOSPC, "No space left", "2 disk full"),
        (libc::EDQUOT, "quota", "2 disk full"),
    ] {
        let image = Image::new();
        let output = inject(
            &mut image.block(&["retry"]),
            first(2, Fault::Fails(error), is_write),
        );
        output
            .exits(0)
            .prints("block: write Err(Unspecified)\n")
            .prints("block: write Ok(())\n");
        logs_only(
            &output,
            &[
                &["disk.img: write error", args],
                &[&format!("failed 2 ({kind})")],
            ],
        );
    }
}

/// Neither the guest nor the operator notices.
fn short_transfers_are_completed() {
    let (whole, short) = (Image::new(), Image::new());
    common::run(&mut whole.block(&[])).exits(0).is_quiet();
    let mut count = 0;
    let fault = once_running(|call| {
        let transfer =
            (is_write(call) || call.number == libc::SYS_pread64) && call.arguments[2] > 1;
        count += usize::from(transfer);
        (transfer && count % 2 == 0).then_some(Fault::Short(call.arguments[2] / 3 + 1))
    });
    let output = inject(&mut short.block(&[]), fault);
    output.exits(0).is_quiet().prints("block: ok");
    assert!(count > 20, "only {count} transfers");
    assert!(
        fs::read(whole.path()).unwrap() == fs::read(short.path()).unwrap(),
        "something else was written"
    );
}

fn interrupted_transfers_are_repeated() {
    let image = Image::new();
    let mut count = 0;
    let fault = once_running(|call| {
        let transfer = is_write(call) || call.number == libc::SYS_pread64;
        count += usize::from(transfer);
        (transfer && count % 4 != 0).then_some(Fault::Fails(libc::EINTR))
    });
    let output = inject(&mut image.block(&[]), fault);
    output.exits(0).is_quiet().prints("block: ok");
    assert!(count >= 80, "only {count} transfers");
}

fn a_failed_sync_at_the_end_is_reported() {
    let image = Image::new();
    let is_sync = |call: &Call| call.number == libc::SYS_fdatasync;
    let output = inject(
        &mut image.block(&["fill"]),
        first(1, Fault::Fails(libc::EIO), is_sync),
    );
    output.exits(0).prints("block: ok");
    logs_only(
        &output,
        &[&[
            "cannot sync",
            "disk.img",
            "Input/output error",
            "may be lost",
        ]],
    );
}

/// SIGXFSZ would kill `tender`.
fn a_file_at_its_size_limit_is_reported() {
    let image = Image::new();
    let mut command = image.block(&["fill"]);
    common::limit(&mut command, Resource::Fsize, 4096);
    let output = common::run(&mut command);
    output
        .exits(255)
        .prints("Err(Unspecified)")
        .complains("write error: File too large");
    output.complains("failed 1 (1 write errors)");
}

/// Reads past the new end fail; a write extends the file again. The image is not mapped, so there
/// is no SIGBUS.
fn a_truncated_image_is_reported() {
    let image = Image::new();
    let (mut reader, writer) = common::full_pipe();
    let mut guest = Guest::spawn(image.block(&["retry"]).stdout(writer));
    wait_for_start(&mut guest);
    File::options()
        .write(true)
        .open(image.path())
        .unwrap()
        .set_len(100)
        .unwrap();
    let maps = fs::read_to_string(format!("/proc/{}/maps", guest.pid())).unwrap();
    assert!(!maps.contains(".img") && !maps.contains(".hvt"), "{maps}");
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    let output = guest.end();
    output.exits(0);
    let wanted = "block: read Err(Unspecified)\nblock: write Ok(())\nblock: read Ok(())\nblock: write Ok(())\n";
    assert!(printed.contains(wanted), "{printed}");
    logs_only(
        &output,
        &[
            &["disk.img: read error: the image was truncated"],
            &["failed 1 (1 image made shorter)"],
        ],
    );
    assert_eq!(fs::metadata(image.path()).unwrap().len(), Image::SIZE);
}

/// Waits until `tender` has finished its start. The guest is blocked, as its first line is not
/// read.
fn wait_for_start(guest: &mut Guest) {
    let deadline = Instant::now() + common::LIMIT;
    // `no_new_privs` belongs to the sandbox, which comes last.
    while common::status(guest.pid(), "NoNewPrivs") != "1" {
        assert!(
            guest.is_running() && Instant::now() < deadline,
            "it has not started: {:?}",
            guest.messages()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_truncated_unikernel_file_does_no_harm() {
    let directory = common::directory();
    let file = directory.path().join("clock.hvt");
    fs::copy(common::fixture("clock"), &file).unwrap();
    let guest = Guest::start(common::tender(["--mem=4", text(&file)]).arg("poll=500000000"));
    guest.wait_for("clock: counter");
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(0)
        .unwrap();
    guest
        .end()
        .exits(0)
        .is_quiet()
        .prints("clock: poll 500000000 ns took");
}

/// A file system of 64 KiB, filled by another file until that is removed.
fn a_full_disk_is_written_again_when_it_has_room() {
    let directory = common::directory();
    let place = std::ffi::CString::new(text(directory.path())).unwrap();
    let (tmpfs, options) = (c"tmpfs".as_ptr(), c"size=64k".as_ptr());
    // SAFETY: all strings end with a NUL. The mount is in this test's own namespace.
    let mounted = unsafe { libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, options.cast()) };
    assert!(mounted == 0, "{}", common::host_error("tmpfs"));
    let (image, other) = (
        directory.path().join("disk.img"),
        directory.path().join("other"),
    );
    File::create(&image).unwrap().set_len(Image::SIZE).unwrap();
    assert!(
        fs::write(&other, vec![1; 1 << 20]).is_err(),
        "it holds more than it should"
    );
    let guest = Guest::start(&mut unikernel(
        "block",
        &["--mem=4", &format!("--disk={}", text(&image))],
        &["retry"],
    ));
    guest.wait_for(
        "block: write Err(Unspecified)\nblock: read Ok(())\nblock: write Err(Unspecified)\n",
    );
    fs::remove_file(&other).unwrap();
    let output = guest.end();
    output.exits(0).prints("block: write Ok(())\nblock: ok\n");
    let count = output.stdout.matches("Err").count();
    logs_only(
        &output,
        &[
            &["disk.img: write error: No space left"],
            &[&format!("failed {count} ({count} disk full)")],
        ],
    );
}

/// Another process has locked the image. `tender` reports that even if signals interrupt the call
/// many times.
fn an_interrupted_lock_request_is_repeated() {
    let image = Image::new();
    let taken = File::open(image.path()).unwrap();
    assert_eq!(
        // SAFETY: it takes numbers; the descriptor is open.
        unsafe { libc::flock(taken.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) },
        0
    );
    for interruptions in [1, 5] {
        let fault = first(interruptions, Fault::Fails(libc::EINTR), |call| {
            call.number == libc::SYS_flock
        });
        let output = inject(&mut image.block(&[]), fault);
        output.is_refused(&["disk.img' is in use by "]);
    }
    assert!(
        std::fs::read(image.path())
            .unwrap()
            .iter()
            .all(|&byte| byte == 0)
    );
}
