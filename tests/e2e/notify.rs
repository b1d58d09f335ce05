//! `tender` under a service manager: its notifications, their order, and runs whose manager is
//! gone.

use libtest_mimic::Trial;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Need::Kvm;
use crate::common::trace::trace;
use crate::common::{self, FD, Guest, LIMIT, pass_fd, run, text, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(without_a_watchdog_nothing_follows_ready, Kvm),
        trial!(a_run_is_reported_in_order, Kvm),
        trial!(an_abstract_socket_works, Kvm),
        trial!(the_sandbox_allows_notifications, Kvm),
        trial!(a_stop_is_reported, Kvm),
        trial!(the_cause_of_a_failure_is_reported, Kvm),
        trial!(a_long_sleep_feeds_the_watchdog, Kvm),
        trial!(a_spinning_guest_does_not_feed_the_watchdog, Kvm),
        trial!(a_watchdog_of_another_process_is_ignored, Kvm),
        trial!(without_a_manager_no_call_is_added, Kvm),
        trial!(a_run_survives_its_manager, Kvm),
        trial!(devices_are_passed_by_name, Kvm),
        trial!(names_for_another_process_are_ignored, Kvm),
        trial!(unnamed_descriptors_are_closed, Kvm),
        trial!(a_disk_that_cannot_be_written_is_refused, Kvm),
    ]
}

/// A service manager's socket. A read waits for a message, [`LIMIT`] at most.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = common::directory();
        let path = directory.path().join("notify");
        Manager::of(
            UnixDatagram::bind(&path).unwrap(),
            text(&path).to_owned(),
            directory,
        )
    }

    fn of(socket: UnixDatagram, address: String, directory: tempfile::TempDir) -> Manager {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager {
            socket,
            address,
            _directory: directory,
        }
    }

    fn manages<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("NOTIFY_SOCKET", &self.address)
    }

    /// As `manages`, with a watchdog of one hour.
    fn watches<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.manages(command).env("WATCHDOG_USEC", "3600000000")
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut datagram = [0; 8192];
        let length = self
            .socket
            .recv(&mut datagram)
            .expect("tender sends a message");
        String::from_utf8(datagram[..length].to_vec()).expect("it is text")
    }

    #[track_caller]
    fn hears_no_more(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let error = self
            .socket
            .recv(&mut [0; 8192])
            .expect_err("tender sends no more");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

const READY: &str = "READY=1\nSTATUS=ABI version 2 (Solo5 0.8 and later), 4 MiB of memory";

/// Without a watchdog, `tender` can send nothing more, and neither can a guest that escapes from
/// its VM.
fn without_a_watchdog_nothing_follows_ready() {
    for ends in [&["exit=0"][..], &["exit=3"]] {
        let manager = Manager::new();
        run(manager.manages(&mut unikernel("hello", &["--mem=4"], ends)));
        assert_eq!(manager.hears(), READY);
        manager.hears_no_more();
    }
    let manager = Manager::new();
    let mut guest = Guest::start(manager.manages(&mut sleeper(600_000_000_000)));
    assert_eq!(manager.hears(), READY);
    guest.wait_for("Hz\n");
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
    manager.hears_no_more();
}

fn a_run_is_reported_in_order() {
    let manager = Manager::new();
    run(manager.watches(&mut unikernel("hello", &["--mem=4"], &[])))
        .exits(0)
        .is_quiet();
    assert_eq!(manager.hears(), READY);
    assert_eq!(
        manager.hears(),
        "STOPPING=1\nSTATUS=the guest halted with status 0"
    );
    manager.hears_no_more();

    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = format!("--disk={}", text(&path));
    run(manager.manages(&mut unikernel("block", &["--mem=4", &disk], &["fill"]))).exits(0);
    manager.socket.set_nonblocking(false).unwrap();
    let ready = manager.hears();
    assert!(
        ready.starts_with(READY) && ready.ends_with(&format!(": {}", text(&path))),
        "{ready}"
    );
}

fn an_abstract_socket_works() {
    let name = format!("tender-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let manager = Manager::of(socket, format!("@{name}"), common::directory());
    run(manager.watches(&mut unikernel("hello", &["--mem=4"], &[])))
        .exits(0)
        .is_quiet();
    assert_eq!(manager.hears(), READY);
    assert!(manager.hears().starts_with("STOPPING=1\n"));
}

/// With the layers that this kernel has, and with none.
fn the_sandbox_allows_notifications() {
    for mode in ["best-effort", "off"] {
        let manager = Manager::new();
        let sandbox = format!("--sandbox={mode}");
        let output =
            run(manager.watches(&mut unikernel("hello", &["--mem=4", &sandbox, "-v"], &[])));
        output.exits(0);
        // Reported when it is active, not before.
        assert!(
            output.stderr.contains("tender: info: sandbox: "),
            "{output:#?}"
        );
        assert_eq!(
            (
                manager.hears().as_str(),
                manager.hears().starts_with("STOPPING=1")
            ),
            (READY, true)
        );
    }
}

fn sleeper(nanoseconds: u64) -> Command {
    unikernel("clock", &["--mem=4"], &[&format!("poll={nanoseconds}")])
}

fn a_stop_is_reported() {
    let manager = Manager::new();
    let mut guest = Guest::start(manager.watches(&mut sleeper(600_000_000_000)));
    assert!(manager.hears().starts_with("READY=1\n"));
    guest.signal(libc::SIGTERM);
    assert_eq!(
        manager.hears(),
        "STOPPING=1\nSTATUS=signal 15 ended the run"
    );
    guest.end().dies_by(libc::SIGTERM);
}

fn the_cause_of_a_failure_is_reported() {
    let manager = Manager::new();
    run(manager.watches(&mut unikernel("hypercalls", &["--mem=4"], &["badptr"])))
        .fails(&["hypercall"]);
    assert!(manager.hears().starts_with("READY=1\n"));
    let stopping = manager.hears();
    assert!(
        stopping.starts_with("STOPPING=1\nSTATUS=hypercall ") && stopping.lines().count() == 2,
        "{stopping}"
    );
}

/// The guest's sleep is far longer than the watchdog interval; `tender` wakes in time and sleeps
/// again.
fn a_long_sleep_feeds_the_watchdog() {
    let manager = Manager::new();
    let mut command = unikernel("sleeper", &["--mem=4"], &["sleep=600000000000"]);
    command.env("WATCHDOG_USEC", "400000");
    let begun = Instant::now();
    let mut guest = Guest::start(manager.manages(&mut command));
    assert!(manager.hears().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    // At least half the interval before each, however busy this machine is.
    assert!(
        begun.elapsed() >= Duration::from_millis(5 * 200),
        "{:?}",
        begun.elapsed()
    );
    guest.signal(libc::SIGTERM);
    // More messages may be queued.
    while manager.hears() == "WATCHDOG=1" {}
    guest.end().dies_by(libc::SIGTERM);
}

/// The guest runs, but never enters `tender`.
fn a_spinning_guest_does_not_feed_the_watchdog() {
    let manager = Manager::new();
    let mut command = unikernel("hypercalls", &["--mem=4"], &["spin"]);
    command.env("WATCHDOG_USEC", "400000");
    let mut guest = Guest::start(manager.manages(&mut command));
    assert!(manager.hears().starts_with("READY=1\n"));
    std::thread::sleep(Duration::from_millis(1500));
    guest.signal(libc::SIGTERM);
    let args: Vec<_> = std::iter::from_fn(|| Some(manager.hears()))
        .take_while(|args| !args.starts_with("STOPPING=1"))
        .collect();
    // Only what it did before it began to spin may have been reported.
    assert!(args.len() <= 1, "{args:?}");
    guest.end().dies_by(libc::SIGTERM);
}

fn a_watchdog_of_another_process_is_ignored() {
    let manager = Manager::new();
    let mut command = sleeper(300_000_000);
    command
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let output = run(manager.manages(&mut command));
    let (_, took) = output
        .exits(0)
        .stdout
        .split_once("poll 300000000 ns took ")
        .expect("the guest prints a duration");
    let took: u64 = took.split(' ').next().unwrap().parse().unwrap();
    // A watchdog of a millisecond would have woken it immediately.
    assert!(took >= 290_000_000, "{took} ns");
    assert!(manager.hears().starts_with("READY=1\n"));
    manager.hears_no_more();
}

/// No additional system call, with or without a watchdog that no manager waits for.
fn without_a_manager_no_call_is_added() {
    let calls = |variables: &[(&str, &str)]| {
        let mut command = unikernel("hypercalls", &["--mem=4"], &["ok-storm", "30"]);
        command.envs(variables.iter().copied());
        let trace = trace(&mut command);
        (
            trace.status,
            trace.start(),
            trace.hypercalls().into_iter().flatten().count(),
        )
    };
    let plain = calls(&[]);
    assert_eq!(calls(&[("WATCHDOG_USEC", "1")]), plain);
    assert_eq!(calls(&[("NOTIFY_SOCKET", "")]), plain);
    // With a manager: three calls to connect, one to report that the guest runs, one to shut the
    // socket down; none at a hypercall.
    let manager = Manager::new();
    let managed = calls(&[("NOTIFY_SOCKET", &manager.address)]);
    assert_eq!((managed.0, managed.2), (plain.0, plain.2));
    assert!(
        (3..=5).contains(&(managed.1 - plain.1)),
        "{managed:?} and {plain:?}"
    );
}

fn a_run_survives_its_manager() {
    let gone = Manager::new();
    fs::remove_file(&gone.address).unwrap();
    let closed = common::directory();
    let closed = closed.path().join("notify");
    drop(UnixDatagram::bind(&closed).unwrap());
    for address in [
        gone.address.as_str(),
        text(&closed),
        "@no-listener-here",
        "vsock:2:1",
        "x",
    ] {
        let start = |options: &[&str]| {
            let mut command = unikernel("hello", options, &[]);
            run(command
                .env("NOTIFY_SOCKET", address)
                .env("WATCHDOG_USEC", "1"))
        };
        start(&["--mem=4"]).exits(0).is_quiet();
        start(&["--mem=4", "-v"])
            .exits(0)
            .complains(&format!("NOTIFY_SOCKET={address}: "));
    }
    // A manager that goes while the guest runs. The guest waits for its reader until then, and each
    // hypercall sends a notification.
    let manager = Manager::new();
    let (mut reader, writer) = common::full_pipe();
    let mut command = unikernel("hypercalls", &["--mem=4", "-v"], &["puts-flood", "20"]);
    let guest = Guest::spawn(manager.manages(command.env("WATCHDOG_USEC", "1").stdout(writer)));
    drop(command);
    assert!(manager.hears().starts_with("READY=1\n"));
    drop(manager);
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    assert!(printed.ends_with(b"flood 19\n"));
    let output = guest.end();
    output
        .exits(0)
        .complains("cannot notify the service manager");
    assert_eq!(
        output.stderr.matches("the service manager").count(),
        1,
        "{output:#?}"
    );
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
    let path = format!("--disk={}", text(&directory.path().join("disk.img")));
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
