//! Descriptors that the service manager passes, and their names.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::{self, FD, Guest, pass_fd, run, text, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(devices_are_passed_by_name, Kvm),
        trial!(names_for_another_process_are_ignored, Kvm),
        trial!(unnamed_descriptors_are_closed, Kvm),
        trial!(a_disk_that_cannot_be_written_is_refused, Kvm),
    ]
}

/// Makes the command start with descriptors from 3 on and LISTEN_… as systemd sets them. The
/// process ID is known only after the fork, so the environment is made there, in memory that was
/// allocated before.
fn listen(mut command: Command, files: Vec<File>, names: &str) -> Command {
    let args: Vec<CString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| CString::new(word.as_bytes()).unwrap())
        .collect();
    let variable = |text: String| CString::new(text).unwrap().into_bytes_with_nul();
    let mut owner = variable(format!("LISTEN_PID={:010}", 0));
    let count = variable(format!("LISTEN_FDS={}", files.len()));
    let names = variable(format!("LISTEN_FDNAMES={names}"));
    // SAFETY: between fork and exec there are only system calls, on memory that was allocated
    // before.
    unsafe {
        command.pre_exec(move || {
            for (number, file) in (3..).zip(&files) {
                // Ours are far above, so that none is overwritten by another.
                if libc::dup2(file.as_raw_fd(), number) != number {
                    return Err(io::Error::last_os_error());
                }
            }
            let mut pid = libc::getpid();
            for digit in owner[11..21].iter_mut().rev() {
                *digit = b'0' + (pid % 10) as u8;
                pid /= 10;
            }
            let environment = [
                owner.as_ptr(),
                count.as_ptr(),
                names.as_ptr(),
                std::ptr::null(),
            ];
            let mut arguments = [std::ptr::null(); 16];
            for (place, word) in arguments.iter_mut().zip(&args) {
                *place = word.as_ptr();
            }
            libc::execve(
                args[0].as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr().cast(),
            );
            Err(io::Error::last_os_error())
        });
    }
    command
}

/// Duplicates a descriptor to a number that no test passes.
fn high(file: File) -> File {
    // SAFETY: it takes numbers; the new descriptor has no other owner.
    unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 200);
        assert!(fd >= 200, "{}", common::host_error("fcntl"));
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

fn disk() -> (tempfile::TempDir, File) {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.set_len(1 << 20).unwrap();
    (directory, high(file))
}

fn null() -> File {
    high(File::open("/dev/null").unwrap())
}

/// Waits until no process has the image locked: a child of another test, between fork and exec,
/// shares the open file of a passed disk.
fn wait_until_unlocked(image: &Path) {
    let file = File::open(image).unwrap();
    for operation in [libc::LOCK_EX, libc::LOCK_UN] {
        // SAFETY: the call takes numbers; the descriptor is open.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), operation) }, 0);
    }
}

/// A disk and an interface, after a descriptor that is neither.
fn devices_are_passed_by_name() {
    let (_directory, image) = disk();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let frames = high(std::os::fd::OwnedFd::from(theirs).into());
    let options = [
        "--mem=4",
        "--net-ring=off",
        "--net=@web",
        "--disk=@data",
        "-v",
    ];
    let command = unikernel("bench-io", &options, &["n=20"]);
    let output = run(&mut listen(
        command,
        vec![null(), image, frames],
        "other:data:web",
    ));
    output
        .exits(0)
        .complains("@web: sent ")
        .complains("disk.img: 36 reads");
    // By number they need no environment.
    let (directory, image) = disk();
    let command = unikernel("block", &["--mem=4", &format!("--disk=@{FD}")], &["fill"]);
    run(&mut pass_fd(command, image)).exits(0).is_quiet();
    let image = directory.path().join("disk.img");
    wait_until_unlocked(&image);
    let path = format!("--disk={}", text(&image));
    run(&mut unikernel("block", &["--mem=4", &path], &["verify"])).exits(0);
}

fn names_for_another_process_are_ignored() {
    let (_directory, image) = disk();
    let command = || unikernel("block", &["--mem=4", "--disk=@x"], &["fill"]);
    let listed = run(&mut listen(command(), vec![null(), image], "web:data"));
    listed.is_refused(&["no descriptor is named 'x' (LISTEN_FDNAMES has: web, data"]);
    run(&mut command()).is_refused(&[
        "device",
        "no descriptor is named 'x' (LISTEN_FDS and LISTEN_PID are not set",
    ]);
    let mut another = command();
    another
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "x");
    run(&mut another)
        .is_refused(&["no descriptor is named 'x' (LISTEN_PID is 1, and this process is "]);
    run(&mut listen(command(), vec![null(), null()], "x:x"))
        .is_refused(&["more than one", "(@3, @4)"]);
}

fn unnamed_descriptors_are_closed() {
    let (_directory, image) = disk();
    let command = unikernel("clock", &["--mem=4"], &["poll=600000000000"]);
    let guest = Guest::start(&mut listen(command, vec![null(), image], "web:data"));
    guest.wait_for("Hz\n");
    for entry in fs::read_dir(format!("/proc/{}/fd", guest.pid())).unwrap() {
        let link = fs::read_link(entry.unwrap().path()).unwrap();
        assert!(!text(&link).ends_with("disk.img"), "{link:?}");
    }
}

fn a_disk_that_cannot_be_written_is_refused() {
    let (directory, image) = disk();
    drop(image);
    let path = directory.path().join("disk.img");
    let refused = |file: File| {
        run(&mut listen(
            unikernel("block", &["--mem=4", "--disk=@data"], &[]),
            vec![high(file)],
            "data",
        ))
    };
    refused(File::open(&path).unwrap()).is_refused(&[
        "disk.img",
        "passed as @data",
        "open it O_RDWR",
    ]);
    let append = File::options().read(true).append(true).open(&path).unwrap();
    refused(append).is_refused(&["passed as @data", "without O_APPEND"]);
    refused(null()).is_refused(&["'/dev/null' is a character device"]);
}
