//! Pages of the unikernel's file that guest memory shares with it: nothing that happens to the file
//! changes a running guest.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use seccompiler::SeccompAction;

use crate::common::Need::{KvmEngine, Mounts, Programs, Root as Superuser};
use crate::common::inject::{Fault, first, inject};
use crate::common::refuse;
use crate::common::trace::Call;
use crate::common::{
    Device, Guest, LIMIT, Output, Root, directory, fixture, run, tender, tender_path, text, trial,
    with_devices,
};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("an_idle_guest_has_no_copy_of_its_file")
            .needs(&[KvmEngine, Mounts])
            .run(an_idle_guest_has_no_copy_of_its_file),
        trial("locked_memory_is_not_shared")
            .needs(&[KvmEngine, Mounts])
            .run(locked_memory_is_not_shared),
        trial("a_file_that_is_open_for_writing_is_copied")
            .needs(&[KvmEngine, Mounts])
            .run(a_file_that_is_open_for_writing_is_copied),
        trial("pages_that_do_not_coincide_are_read")
            .needs(&[KvmEngine, Mounts])
            .run(pages_that_do_not_coincide_are_read),
        trial("a_changed_file_changes_no_guest")
            .needs(&[KvmEngine, Mounts])
            .run(a_changed_file_changes_no_guest),
        trial("the_file_may_change_at_any_time")
            .needs(&[KvmEngine, Mounts])
            .run(the_file_may_change_at_any_time),
        trial("a_file_that_changes_while_it_is_copied_is_refused")
            .needs(&[Mounts])
            .run(a_file_that_changes_while_it_is_copied_is_refused),
        trial("the_properties_of_a_copied_file_may_change")
            .needs(&[Mounts])
            .run(the_properties_of_a_copied_file_may_change),
        trial("a_lease_that_may_not_be_given_back_is_closed")
            .needs(&[KvmEngine, Mounts])
            .run(a_lease_that_may_not_be_given_back_is_closed),
        trial("another_user_gives_the_lease_back_too")
            .needs(&[KvmEngine, Mounts, Superuser])
            .try_run(another_user_gives_the_lease_back_too),
        trial("any_signal_gives_the_lease_back")
            .needs(&[KvmEngine, Mounts])
            .run(any_signal_gives_the_lease_back),
        trial("without_a_lease_the_file_is_copied")
            .needs(&[KvmEngine, Mounts])
            .run(without_a_lease_the_file_is_copied),
        trial("behind_a_filter_the_file_is_copied")
            .needs(&[KvmEngine, Mounts])
            .run(behind_a_filter_the_file_is_copied),
        trial("an_unavailable_page_ends_the_run")
            .needs(&[KvmEngine, Mounts])
            .run(an_unavailable_page_ends_the_run),
        trial("an_unreadable_page_ends_the_run")
            .needs(&[KvmEngine, Mounts, Superuser, Programs(&["mkfs.ext4"])])
            .try_run(an_unreadable_page_ends_the_run),
        trial("a_file_system_may_be_unmounted")
            .needs(&[KvmEngine, Mounts])
            .run(a_file_system_may_be_unmounted),
        trial("a_tender_that_was_stopped_too_long_ends")
            .needs(&[KvmEngine, Mounts, Superuser])
            .try_run(a_tender_that_was_stopped_too_long_ends),
    ]
}

/// Where the unikernel `image` finds its large part.
const AT: u64 = 0x40_0000;
/// See `fixtures/programs/src/bin/image.rs`.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the unikernel `image` with a part of so many pages, at a file offset that is `skew` off
/// the start of a page.
fn large(pages: u64, skew: usize) -> Vec<u8> {
    let mut file = fs::read(fixture("image")).unwrap();
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let count = number(0x38) & 0xffff;
    let headers = number(0x20);
    let mut headers = file[headers..headers + 56 * count].to_vec();
    // Aligned for hosts with pages of 64 KiB.
    file.resize(file.len().next_multiple_of(0x1_0000) + skew, 0);
    let (offset, length) = (file.len() as u64, pages * 4096);
    for address in (AT..AT + length).step_by(8) {
        file.extend(address.wrapping_mul(FACTOR).to_le_bytes());
    }
    // A segment to load, readable and writable.
    headers.extend(1_u32.to_le_bytes());
    headers.extend(6_u32.to_le_bytes());
    for value in [offset, AT, AT, length, length, 4096] {
        headers.extend(value.to_le_bytes());
    }
    let end = file.len() as u64;
    file[0x20..0x28].copy_from_slice(&end.to_le_bytes());
    file[0x38..0x3a].copy_from_slice(&(count as u16 + 1).to_le_bytes());
    file.extend(headers);
    file
}

/// A large unikernel in a file system with leases.
pub struct App {
    root: Root,
    pages: u64,
}

impl App {
    pub fn new(pages: u64) -> App {
        let app = App {
            root: Root::new(),
            pages,
        };
        fs::write(app.path(), large(pages, 0)).unwrap();
        app
    }

    pub fn path(&self) -> PathBuf {
        self.root.path("app.hvt")
    }

    /// A run that looks at a page each `wait` nanoseconds.
    pub fn command(&self, options: &[&str], wait: u64) -> Command {
        let mut command = tender(["--mem=16"]);
        command.args(options).arg("--").arg(self.path());
        for (name, value) in [("at", AT), ("pages", self.pages), ("wait", wait)] {
            command.arg(format!("{name}={value}"));
        }
        command
    }

    /// Starts a guest that shares pages. A child of another test has the file open for writing, until its
    /// exec; then there is no lease.
    fn share(&self, wait: u64) -> Guest {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut guest = Guest::start(&mut self.command(&[], wait));
            guest.wait_for("image: ");
            if shares(guest.pid(), &self.path()) {
                return guest;
            }
            assert!(Instant::now() < deadline, "{}", guest.messages());
            guest.signal(libc::SIGTERM);
            guest.end();
        }
    }
}

/// Returns the mappings of a file in a process.
fn mappings(pid: u32, file: &Path) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let lines: Vec<_> = maps.lines().collect();
    let heads = lines.split_inclusive(|line| line.starts_with("VmFlags"));
    let of_file = heads.filter(|lines| lines[0].ends_with(text(file)));
    of_file.map(|lines| lines.join("\n")).collect()
}

fn shares(pid: u32, file: &Path) -> bool {
    !mappings(pid, file).is_empty()
}

/// The guest has seen nothing.
fn is_intact(output: &Output) {
    output.exits(0).prints("image: intact").is_quiet();
}

fn an_idle_guest_has_no_copy_of_its_file() {
    let app = App::new(512);
    let guest = app.share(1_000_000_000_000);
    for mapping in mappings(guest.pid(), &app.path()) {
        let copied = mapping.lines().find(|line| line.starts_with("Anonymous:"));
        assert!(copied.unwrap().ends_with(" 0 kB"), "{mapping}");
        assert!(mapping.contains(" dd"), "in core files: {mapping}");
    }
    drop(guest);
    is_intact(&run(&mut app.command(&[], 0)));
    is_intact(&run(app.command(&[], 0).arg("write=1")));
}

fn locked_memory_is_not_shared() {
    let app = App::new(100);
    let guest = Guest::start(&mut app.command(&["--lock-memory"], 1_000_000));
    guest.wait_for("image: ");
    assert!(!shares(guest.pid(), &app.path()));
    is_intact(&guest.end());
}

fn a_file_that_is_open_for_writing_is_copied() {
    let app = App::new(100);
    let writer = File::options().write(true).open(app.path()).unwrap();
    let guest = Guest::start(&mut app.command(&[], 5_000_000));
    guest.wait_for("image: ");
    assert!(!shares(guest.pid(), &app.path()));
    writer.write_all_at(&[0; 4096], 0x2_0000).unwrap();
    writer.set_len(0).unwrap();
    is_intact(&guest.end());
}

fn pages_that_do_not_coincide_are_read() {
    let app = App::new(100);
    fs::write(app.path(), large(100, 512)).unwrap();
    is_intact(&run(&mut app.command(&[], 0)));
}

fn a_changed_file_changes_no_guest() {
    let other = fs::read(fixture("hello")).unwrap();
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 7] = [
        ("overwritten", |path, other| fs::write(path, other).unwrap()),
        ("overwritten in part", |path, other| {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(other, 0).unwrap();
            file.write_all_at(other, 0x2_0000).unwrap();
        }),
        ("appended", |path, other| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(other).unwrap();
        }),
        ("truncated", |path, _| {
            let path = std::ffi::CString::new(text(path)).unwrap();
            // SAFETY: the path ends with a NUL.
            assert_eq!(unsafe { libc::truncate(path.as_ptr(), 5000) }, 0);
        }),
        ("deleted", |path, _| fs::remove_file(path).unwrap()),
        ("replaced", |path, other| {
            let new = path.with_extension("new");
            fs::write(&new, other).unwrap();
            fs::rename(new, path).unwrap();
        }),
        ("renamed, then overwritten", |path, other| {
            let new = path.with_extension("old");
            fs::rename(path, &new).unwrap();
            fs::write(new, other).unwrap();
        }),
    ];
    for (name, change) in changes {
        println!("{name}");
        let app = App::new(200);
        let guest = app.share(2_000_000);
        change(&app.path(), &other);
        is_intact(&guest.end());
    }
}

/// The file is overwritten in place while the guest starts, runs and ends.
fn the_file_may_change_at_any_time() {
    const ROUNDS: u64 = 200;
    // What the tender sees depends on how far the writer is.
    const ANOTHER: [&str; 5] = [
        "changed while tender read it",
        "not an ELF file",
        "is empty",
        "is truncated",
        "past the end of the file",
    ];
    let app = App::new(80);
    let (image, other) = (fs::read(app.path()).unwrap(), vec![0x55; 1 << 20]);
    let mut noticed = 0;
    for round in 0..ROUNDS {
        fs::write(app.path(), &image).unwrap();
        let guest = Guest::start(&mut app.command(&[], 100_000));
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        fs::write(app.path(), &other).unwrap();
        let output = guest.end();
        // The file was another one before the tender had its lease.
        if ANOTHER
            .iter()
            .any(|message| output.stderr.contains(message))
        {
            assert_eq!(output.stdout, "");
            noticed += 1;
        } else {
            is_intact(&output);
        }
    }
    assert!(noticed < ROUNDS, "no guest ran");
}

/// A writer overtakes the tender at one of its last reads, and keeps the size.
fn a_file_that_changes_while_it_is_copied_is_refused() {
    let app = App::new(80);
    let writer = File::options().write(true).open(app.path()).unwrap();
    let run = |change_at: Option<usize>| {
        let mut reads = 0;
        let output = inject(&mut app.command(&[], 0), |call| {
            reads += usize::from(call.number == libc::SYS_pread64);
            if call.number == libc::SYS_pread64 && Some(reads) == change_at {
                writer.write_all_at(&[0x55], 0x2_0000).unwrap();
            }
            None
        });
        (output, reads)
    };
    let (output, reads) = run(None);
    is_intact(&output);
    for last in 0..3 {
        let (output, _) = run(Some(reads - last));
        output.fails(&["app.hvt: changed while tender read it; try again"]);
    }
}

/// Other starts link to the file, a new version replaces it, and its owner changes.
fn the_properties_of_a_copied_file_may_change() {
    let app = App::new(80);
    let _writer = File::options().write(true).open(app.path()).unwrap();
    let link = app.path().with_extension("link");
    let mut changes = 0;
    let output = inject(&mut app.command(&[], 0), |call| {
        if call.number == libc::SYS_pread64 {
            changes += 1;
            match changes % 3 {
                0 => fs::hard_link(app.path(), &link).unwrap(),
                1 => fs::set_permissions(app.path(), Permissions::from_mode(0o600)).unwrap(),
                _ => drop(fs::remove_file(&link)),
            }
        }
        None
    });
    assert!(changes > 3, "{changes}");
    is_intact(&output);
}

fn is_lease(call: &Call, kind: libc::c_int) -> bool {
    call.number == libc::SYS_fcntl
        && call.arguments[1] == libc::F_SETLEASE as u64
        && call.arguments[2] == kind as u64
}

/// As for another user than the file's owner.
fn a_lease_that_may_not_be_given_back_is_closed() {
    let app = App::new(200);
    let writer = std::thread::spawn({
        let path = app.path();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            fs::write(path, "another unikernel").unwrap();
        }
    });
    let refused = |call: &Call| is_lease(call, libc::F_UNLCK);
    let output = inject(
        &mut app.command(&[], 5_000_000),
        first(1, Fault::Fails(libc::EACCES), refused),
    );
    is_intact(&output);
    writer.join().unwrap();
}

/// The kernel sends the signal by the rights of the user who asked for it: an ordinary user with
/// the capability to become another one.
fn another_user_gives_the_lease_back_too() -> Result<(), String> {
    let version = Command::new("setpriv").arg("--version").output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"setpriv from util-linux")) {
        return Err("no setpriv of util-linux".to_owned());
    }
    let directory = directory();
    let [program, app, dev] = ["tender", "app.hvt", "dev"].map(|name| directory.path().join(name));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::copy(tender_path(), &program).unwrap();
    fs::write(&app, large(200, 0)).unwrap();
    chown(&app, Some(1000), Some(1000)).unwrap();
    fs::create_dir(&dev).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
    command.args([
        "--inh-caps=+setuid,+setgid",
        "--ambient-caps=+setuid,+setgid",
    ]);
    command
        .arg(program)
        .args(["--user=2000:2000", "--mem=16", "--"]);
    command.arg(&app);
    command.args([&format!("at={AT}"), "pages=200", "wait=5000000"]);
    let guest = Guest::start(with_devices(
        &mut command,
        &dev,
        &[Device::Made("kvm", 0o666)],
    ));
    guest.wait_for("image: ");
    if !shares(guest.pid(), &app) {
        return Err(format!("no lease in {}", directory.path().display()));
    }
    fs::write(&app, "another unikernel").unwrap();
    is_intact(&guest.end());
    Ok(())
}

/// A signal that is pending for another reason takes the place of the kernel's.
fn any_signal_gives_the_lease_back() {
    let app = App::new(200);
    let mut guest = app.share(3_000_000);
    guest.signal(libc::SIGURG);
    let deadline = Instant::now() + LIMIT;
    while shares(guest.pid(), &app.path()) {
        assert!(Instant::now() < deadline, "the file is still mapped");
        std::thread::sleep(Duration::from_millis(1));
    }
    is_intact(&guest.end());
}

fn without_a_lease_the_file_is_copied() {
    let app = App::new(100);
    for error in [libc::EACCES, libc::EINVAL, libc::EAGAIN, libc::ENOSYS] {
        let refused = |call: &Call| is_lease(call, libc::F_RDLCK);
        let output = inject(
            &mut app.command(&[], 0),
            first(1, Fault::Fails(error), refused),
        );
        is_intact(&output);
    }
}

/// Such as urunc's: it would also reject the call with which a copy takes the place of the file.
fn behind_a_filter_the_file_is_copied() {
    let app = App::new(100);
    for answer in [
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Trap,
    ] {
        let mut command = app.command(&[], 5_000_000);
        let guest = Guest::start(refuse::refuses(&mut command, libc::SYS_mremap, &[], answer));
        guest.wait_for("image: ");
        assert!(!shares(guest.pid(), &app.path()));
        fs::write(app.path(), large(100, 512)).unwrap();
        guest.end().exits(0).prints("image: intact");
        fs::write(app.path(), large(100, 0)).unwrap();
    }
}

fn an_unavailable_page_ends_the_run() {
    let app = App::new(100);
    let output = inject(
        &mut app.command(&[], 0),
        first(1, Fault::Fails(libc::EFAULT), Call::is_run),
    );
    output.fails(&["app.hvt: KVM_RUN failed: ", "file cannot be read"]);
}

/// A disk image, mounted until dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disk of the file fails while the guest runs.
fn an_unreadable_page_ends_the_run() -> Result<(), String> {
    let directory = directory();
    let [image, mount] = ["disk.img", "disk"].map(|name| directory.path().join(name));
    let disk = File::create(&image).unwrap();
    disk.set_len(32 << 20).unwrap();
    fs::create_dir(&mount).unwrap();
    let succeeds = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    assert!(succeeds(Command::new("mkfs.ext4").arg("-q").arg(&image)));
    if !succeeds(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount),
    ) {
        return Err("no loop devices".to_owned());
    }
    let mounted = Mounted(mount);
    let path = mounted.0.join("app.hvt");
    fs::write(&path, large(1024, 0)).unwrap();
    let app = File::open(&path).unwrap();
    app.sync_all().unwrap();
    let mut command = tender(["--mem=16", "--"]);
    command.arg(&path);
    command.args([&format!("at={AT}"), "pages=1024", "wait=3000000"]);
    let guest = Guest::start(&mut command);
    guest.wait_for("image: ");
    if !shares(guest.pid(), &path) {
        return Err("no lease on the mounted disk".to_owned());
    }
    disk.set_len(0).unwrap();
    // SAFETY: the call takes numbers.
    let dropped = unsafe { libc::posix_fadvise(app.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(dropped, 0);
    guest
        .end()
        .fails(&["app.hvt: a page of the file cannot be read"]);
    Ok(())
}

fn a_file_system_may_be_unmounted() {
    let app = App::new(200);
    let guest = app.share(3_000_000);
    drop(app);
    is_intact(&guest.end());
}

/// Writers wait for a limited time only.
fn a_tender_that_was_stopped_too_long_ends() -> Result<(), String> {
    const LIMIT_FILE: &str = "/proc/sys/fs/lease-break-time";
    let before = fs::read_to_string(LIMIT_FILE).unwrap();
    fs::write(LIMIT_FILE, "3").map_err(|error| format!("{LIMIT_FILE}: {error}"))?;
    let ends: Vec<_> = [
        (5000, "a page of the file cannot be read"),
        (1 << 20, "the file was changed while tender was stopped"),
    ]
    .into_iter()
    .map(|(length, message)| {
        let app = App::new(200);
        let mut guest = app.share(100_000_000_000);
        guest.signal(libc::SIGSTOP);
        let file = File::options().write(true).open(app.path()).unwrap();
        file.set_len(length).unwrap();
        guest.signal(libc::SIGCONT);
        (guest.end(), message)
    })
    .collect();
    fs::write(LIMIT_FILE, before).unwrap();
    for (output, message) in ends {
        output.fails(&["app.hvt: ", message]);
    }
    Ok(())
}
