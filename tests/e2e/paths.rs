//! Paths of the operator: paths that lead through descriptors, files for more than one purpose, and
//! that no file is opened before its kind is checked.

mod user;

use libtest_mimic::Trial;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::Need::Kvm;
use crate::common::{self, Output, fixture, pipe, run, tender, text, unikernel};

pub fn tests() -> Vec<Trial> {
    let tests = vec![
        trial!(a_path_of_a_descriptor_is_the_callers_disk, Kvm),
        trial!(a_path_of_a_descriptor_takes_statistics, Kvm),
        trial!(a_path_of_a_descriptor_is_the_callers_directory, Kvm),
        trial!(a_pipe_as_unikernel_is_refused, Kvm),
        trial!(a_number_that_was_not_passed_is_refused, Kvm),
        trial!(a_file_for_two_purposes_is_refused, Kvm),
        trial!(standard_streams_share_no_file_with_an_option, Kvm),
        trial!(files_that_are_only_read_can_be_shared, Kvm),
        trial!(a_file_of_another_kind_is_not_opened, Kvm),
        trial!(statistics_do_not_open_a_device, Kvm),
        trial!(a_new_file_is_not_made_through_a_link, Kvm),
    ];
    tests.into_iter().chain(user::tests()).collect()
}

/// A directory with a unikernel that writes to its disk, a disk, a configuration file and links to
/// each.
struct Place {
    directory: tempfile::TempDir,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Place {
    fn new() -> Place {
        let directory = common::directory();
        let path = |name: &str| directory.path().join(name);
        fs::copy(fixture("block"), path("app.hvt")).unwrap();
        fs::write(path("disk.img"), vec![0; 1 << 16]).unwrap();
        fs::write(
            path("app.toml"),
            format!("mem = 4{}\n", " ".repeat(1 << 12)),
        )
        .unwrap();
        let before = ["app.hvt", "disk.img", "app.toml"]
            .map(|name| (path(name), fs::read(path(name)).unwrap()));
        for name in ["app.hvt", "disk.img", "app.toml"] {
            symlink(name, path(&format!("link-{name}"))).unwrap();
            fs::hard_link(path(name), path(&format!("hard-{name}"))).unwrap();
        }
        Place {
            before: before.to_vec(),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `tender` in this directory, with its unikernel, which fills its disk.
    fn tender(&self, options: &[&str]) -> Command {
        let mut command = tender(
            options
                .iter()
                .copied()
                .chain(["--mem=4", "--", "app.hvt", "fill"]),
        );
        command.current_dir(self.directory.path());
        command
    }

    /// Checks that only these files were written.
    #[track_caller]
    fn is_unchanged_but(&self, changed: &[&str]) {
        for (path, content) in &self.before {
            let is_same = fs::read(path).unwrap() == *content;
            let may_change = changed.iter().any(|name| path.ends_with(name));
            assert!(
                is_same != may_change,
                "{} changed: {}",
                path.display(),
                !is_same
            );
        }
    }
}

fn read_write(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Passes `file` to the command as descriptor `number`, such as 3, the first that `tender` itself
/// would open.
fn with(mut command: Command, number: i32, file: impl AsRawFd + Send + Sync + 'static) -> Command {
    // SAFETY: dup2 is safe between fork and exec; the descriptor is open until then, as `file` moves into the closure.
    unsafe {
        command.pre_exec(move || match libc::dup2(file.as_raw_fd(), number) {
            -1 => Err(std::io::Error::last_os_error()),
            _ if file.as_raw_fd() == number => {
                libc::fcntl(number, libc::F_SETFD, 0);
                Ok(())
            }
            _ => Ok(()),
        });
    }
    command
}

fn a_path_of_a_descriptor_is_the_callers_disk() {
    for number in [3, 4, 5, 6, 20] {
        let place = Place::new();
        let path = format!("/dev/fd/{number}");
        symlink(&path, place.path("away")).unwrap();
        symlink("away", place.path("further")).unwrap();
        let own = format!("/proc/self/fd/{number}");
        let thread = format!("/proc/thread-self/fd/{number}");
        for path in [&*path, &own, &thread, "further"] {
            fs::write(place.path("disk.img"), vec![0; 1 << 16]).unwrap();
            let command = place.tender(&[&format!("--disk={path}")]);
            run(&mut with(
                command,
                number,
                read_write(&place.path("disk.img")),
            ))
            .exits(0);
            place.is_unchanged_but(&["disk.img"]);
            // A descriptor that is open for reading is the same file.
            let command = place.tender(&["--check", &format!("--disk={path}")]);
            run(&mut with(
                command,
                number,
                File::open(place.path("disk.img")).unwrap(),
            ))
            .exits(0);
        }
    }
}

fn a_path_of_a_descriptor_takes_statistics() {
    for number in [3, 4, 5, 63] {
        let place = Place::new();
        let (mut reader, writer) = pipe();
        let options = [
            "--disk=disk.img".to_owned(),
            format!("--stats=/dev/fd/{number}"),
        ];
        let mut command = with(place.tender(&[&options[0], &options[1]]), number, writer);
        let output = run(&mut command);
        output.exits(0).is_quiet();
        // Its copy of the pipe is closed with it.
        drop(command);
        let mut document = String::new();
        reader.read_to_string(&mut document).unwrap();
        assert!(
            document.contains("\"type\": \"tender.stats\""),
            "{document}"
        );
        place.is_unchanged_but(&["disk.img"]);
        // A file, which is truncated.
        fs::write(place.path("stats"), "x".repeat(1 << 16)).unwrap();
        let command = place.tender(&[&options[0], &options[1]]);
        run(&mut with(command, number, read_write(&place.path("stats")))).exits(0);
        let document = fs::read_to_string(place.path("stats")).unwrap();
        assert!(
            document.starts_with('{') && document.ends_with("}\n"),
            "{document}"
        );
    }
}

/// For core files, as root directory, and for the metrics socket.
fn a_path_of_a_descriptor_is_the_callers_directory() {
    for number in [3, 4, 5] {
        let place = Place::new();
        fs::create_dir(place.path("folder")).unwrap();
        let folder = || File::open(place.path("folder")).unwrap();
        let path = format!("/dev/fd/{number}");
        let options = [
            "--mem=4".to_owned(),
            format!("--dumpcore={path}"),
            format!("--metrics=unix:{path}/socket"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        run(&mut with(
            unikernel("abort", &options, &[]),
            number,
            folder(),
        ))
        .exits(255);
        let made = fs::read_dir(place.path("folder"))
            .unwrap()
            .map(|entry| entry.unwrap());
        let (sockets, files): (Vec<_>, Vec<_>) =
            made.partition(|entry| entry.file_type().unwrap().is_socket());
        assert_eq!((sockets.len(), files.len()), (1, 1));
        let disk = format!("--disk={path}/../disk.img");
        run(&mut with(place.tender(&[&disk]), number, folder())).exits(0);
        place.is_unchanged_but(&["disk.img"]);
        if common::net::is_superuser() {
            let options = [
                "--mem=2",
                &format!("--chroot={path}"),
                &format!("--dumpcore={}", text(place.directory.path())),
            ];
            run(&mut with(
                unikernel("hello", &options, &[]),
                number,
                folder(),
            ))
            .exits(0);
        }
    }
}

/// As `<(zcat app.hvt.gz)`, which can be read only once.
fn a_pipe_as_unikernel_is_refused() {
    for args in [
        &["--"][..],
        &["--check", "--"],
        &["inspect"],
        &["--config=/dev/fd/3", "--"],
    ] {
        let (reader, _writer) = pipe();
        let mut command = tender(args.iter().copied().chain(["/dev/fd/3"]));
        let output = run(&mut with(
            {
                command.stdin(Stdio::null());
                command
            },
            3,
            reader,
        ));
        let printed = format!("{}{}", output.stdout, output.stderr);
        output.exits(1);
        assert!(
            printed.contains("is a pipe (save its content as a file first)")
                || printed.contains("regular file"),
            "{printed}"
        );
    }
}

/// `tender` opens its own files at the free numbers; they are not the caller's.
fn a_number_that_was_not_passed_is_refused() {
    let place = Place::new();
    for number in 3..9 {
        let path = format!("/dev/fd/{number}");
        symlink(&path, place.path(&format!("link{number}"))).unwrap();
        for path in [path, format!("link{number}")] {
            for options in [
                &["--disk=disk.img", &format!("--stats={path}")][..],
                &[&format!("--disk={path}")],
                &["--disk=disk.img", &format!("--chroot={path}")],
                &["--disk=disk.img", &format!("--dumpcore={path}")],
                &["--disk=disk.img", &format!("--metrics=unix:{path}/x")],
                &["--disk=disk.img", &format!("--config={path}")],
            ] {
                run(&mut place.tender(options)).is_refused(&[]);
                run(&mut place.tender(&[&["--check"], options].concat())).exits(1);
            }
        }
        run(&mut place.tender(&[&format!("--disk=/dev/fd/{number}")]))
            .is_refused(&[&format!("descriptor {number} was not passed to tender")]);
    }
    place.is_unchanged_but(&[]);
}

#[track_caller]
fn is_refused(place: &Place, mut command: Command, args: &[&str]) {
    run(&mut command).is_refused(&[args, &["well; "]].concat());
    place.is_unchanged_but(&[]);
}

fn a_file_for_two_purposes_is_refused() {
    let place = Place::new();
    for kind in ["", "link-", "hard-", "./", "../"] {
        let name = |name: &str| match kind {
            "../" => format!(
                "../{}/{name}",
                text(Path::new(place.directory.path().file_name().unwrap()))
            ),
            kind => format!("{kind}{name}"),
        };
        let (app, disk, toml) = (name("app.hvt"), name("disk.img"), name("app.toml"));
        for (options, args) in [
            (
                &[format!("--disk={app}")][..],
                ["device 'storage'", "is the unikernel as well"],
            ),
            (
                &["--disk=disk.img".into(), format!("--stats={app}")],
                ["--stats", "is the unikernel as well"],
            ),
            (
                &["--disk=disk.img".into(), format!("--stats={disk}")],
                ["--stats", "is device 'storage' as well"],
            ),
            (
                &["--config=app.toml".into(), format!("--disk={toml}")],
                ["device 'storage'", "is the configuration file as well"],
            ),
            (
                &[
                    "--config=app.toml".into(),
                    "--disk=disk.img".into(),
                    format!("--stats={toml}"),
                ],
                ["--stats", "is the configuration file as well"],
            ),
        ] {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            is_refused(&place, place.tender(&options), &args);
            let check = run(&mut place.tender(&[&["--check"], &options[..]].concat()));
            check.exits(1).prints("missing  ");
            place.is_unchanged_but(&[]);
        }
    }
    let handed = |path: &str| {
        with(
            place.tender(&["--disk=@20"]),
            20,
            read_write(&place.path(path)),
        )
    };
    is_refused(
        &place,
        handed("app.hvt"),
        &["device 'storage': '@20' is the unikernel as well"],
    );
    let command = place.tender(&["--disk=@20", "--stats=disk.img"]);
    let command = with(command, 20, read_write(&place.path("disk.img")));
    is_refused(
        &place,
        command,
        &["--stats: 'disk.img' is device 'storage' as well"],
    );
    let app = fixture("block2");
    let mut two = tender([
        "--block:a=hard-disk.img",
        "--block:b=disk.img",
        "--",
        text(&app),
    ]);
    run(two.current_dir(place.directory.path()))
        .is_refused(&["'b'", "'disk.img' is given to two block devices"]);
    place.is_unchanged_but(&[]);
}

fn standard_streams_share_no_file_with_an_option() {
    let place = Place::new();
    let append = |name: &str| {
        OpenOptions::new()
            .append(true)
            .open(place.path(name))
            .unwrap()
    };
    let run_to = |options: &[&str], stdout: Option<&str>, stderr: Option<&str>| {
        let mut command = place.tender(options);
        let stream = |name: Option<&str>, file: &str| match name {
            Some(name) => append(name),
            None => File::create(place.path(file)).unwrap(),
        };
        command
            .stdout(stream(stdout, "out"))
            .stderr(stream(stderr, "err"))
            .stdin(Stdio::null());
        let status = common::children::spawn(&mut command)
            .unwrap()
            .wait()
            .unwrap();
        (
            status.code(),
            fs::read_to_string(place.path("err")).unwrap_or_default(),
        )
    };
    for (options, stdout, args) in [
        (
            &["--disk=disk.img"][..],
            "app.hvt",
            "standard output: its file is the unikernel as well; ",
        ),
        (
            &["--disk=disk.img"],
            "disk.img",
            "'disk.img' is standard output as well; ",
        ),
        (
            &["--disk=disk.img", "--config=app.toml"],
            "app.toml",
            "standard output: its file is the configuration file",
        ),
    ] {
        let (status, stderr) = run_to(options, Some(stdout), None);
        assert!(
            status == Some(1) && stderr.contains(args),
            "{status:?} {stderr}"
        );
        place.is_unchanged_but(&[]);
    }
    fs::write(place.path("log"), "first\n").unwrap();
    for (options, stdout, args) in [
        (
            &["--stats=log"],
            true,
            "is the file of standard output as well; '--stats=-'",
        ),
        (
            &["--stats=/proc/self/fd/1"],
            true,
            "is the file of standard output as well; '--stats=-'",
        ),
        (&["--stats=log"], false, ""),
        (&["--stats=/proc/self/fd/2"], false, ""),
    ] {
        let log = Some("log");
        let (status, stderr) = run_to(
            &[&["--disk=disk.img"][..], options].concat(),
            log.filter(|_| stdout),
            log.filter(|_| !stdout),
        );
        assert!(
            status == Some(1) && stderr.contains(args),
            "{options:?}: {status:?} {stderr}"
        );
        assert!(
            fs::read_to_string(place.path("log"))
                .unwrap()
                .starts_with("first\n")
        );
        place.is_unchanged_but(&[]);
    }
    // Both streams may have one file, as with >log 2>&1.
    let (status, _) = run_to(&["--disk=disk.img", "-v"], Some("log"), Some("log"));
    assert_eq!(status, Some(0));
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains("info: ") && log.contains("sectors of"),
        "{log}"
    );
}

/// Two concurrent runs of one unikernel.
fn files_that_are_only_read_can_be_shared() {
    let options = ["--mem=2", "--timeout=60"];
    let guest = common::Guest::start(&mut unikernel("clock", &options, &["poll=100000000000"]));
    guest.wait_for("Hz\n");
    run(&mut unikernel("clock", &options, &["poll=1"])).exits(0);
}

/// Detects each open of a file, other than with `O_PATH`.
struct Watch(OwnedFd);

impl Watch {
    fn new(path: &Path) -> Watch {
        let path = std::ffi::CString::new(text(path)).unwrap();
        // SAFETY: the calls take numbers and a string that ends with a NUL; the descriptor is new.
        unsafe {
            let watch =
                OwnedFd::from_raw_fd(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK));
            assert!(libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_OPEN) > 0);
            Watch(watch)
        }
    }

    fn was_opened(&self) -> bool {
        let mut events = [0_u8; 4096];
        // SAFETY: the kernel writes into the array, at most as many bytes as it has.
        unsafe { libc::read(self.0.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) > 0 }
    }
}

/// A pipe and, for the superuser, a device of this number.
fn special_files(directory: &Path, device: libc::dev_t) -> Vec<PathBuf> {
    let make = |name: &str, mode: libc::mode_t, number: libc::dev_t| {
        let path = directory.join(name);
        let name = std::ffi::CString::new(text(&path)).unwrap();
        // SAFETY: the string ends with a NUL.
        (unsafe { libc::mknod(name.as_ptr(), mode | 0o666, number) } == 0).then_some(path)
    };
    let device = make("device", libc::S_IFCHR, device);
    // Some devices cannot be opened, for example in a user namespace.
    let device = device.filter(|path| File::open(path).is_ok());
    make("pipe", libc::S_IFIFO, 0)
        .into_iter()
        .chain(device)
        .collect()
}

fn a_file_of_another_kind_is_not_opened() {
    let place = Place::new();
    for path in special_files(place.directory.path(), libc::makedev(1, 3)) {
        let watch = Watch::new(&path);
        let link = path.with_extension("link");
        symlink(&path, &link).unwrap();
        let link = text(&link);
        for args in [
            &["--", link][..],
            &["--check", "--", link],
            &["inspect", link],
            &["--config", link, "--", "app.hvt"],
            &["--disk", link, "--", "app.hvt"],
            &["--check", "--disk", link, "--", "app.hvt"],
        ] {
            run(tender(args).current_dir(place.directory.path())).exits(1);
            assert!(!watch.was_opened(), "{args:?}");
        }
        // The watch detects an open.
        drop(read_write(&path));
        assert!(watch.was_opened());
    }
}

/// Such as a watchdog. /dev/null has no side effects.
fn statistics_do_not_open_a_device() {
    let place = Place::new();
    for path in special_files(place.directory.path(), libc::makedev(10, 232)) {
        if fs::metadata(&path).unwrap().file_type().is_fifo() {
            continue;
        }
        let watch = Watch::new(&path);
        for check in [&[][..], &["--check"]] {
            let stats = format!("--stats={}", text(&path));
            let output = run(&mut place.tender(&[check, &["--disk=disk.img", &stats]].concat()));
            let printed = format!("{}{}", output.stdout, output.stderr);
            assert!(
                output.code() == 1 && printed.contains("this is a device"),
                "{printed}"
            );
            assert!(!watch.was_opened());
        }
    }
    place.is_unchanged_but(&[]);
    run(&mut place.tender(&["--disk=disk.img", "--stats=/dev/null"]))
        .exits(0)
        .is_quiet();
}

/// Statistics to a dangling link would create a file at the link's target.
fn a_new_file_is_not_made_through_a_link() {
    let place = Place::new();
    fs::create_dir(place.path("elsewhere")).unwrap();
    symlink("elsewhere/new", place.path("dangling")).unwrap();
    for check in [&[][..], &["--check"]] {
        let output: Output =
            run(&mut place.tender(&[check, &["--disk=disk.img", "--stats=dangling"]].concat()));
        output.exits(1);
        assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
    }
    place.is_unchanged_but(&[]);
    // A link to a file is that file.
    fs::write(place.path("elsewhere/new"), "old").unwrap();
    run(&mut place.tender(&["--disk=disk.img", "--stats=dangling"])).exits(0);
    assert!(
        fs::read_to_string(place.path("elsewhere/new"))
            .unwrap()
            .starts_with('{')
    );
    assert_eq!(
        fs::metadata(place.path("elsewhere/new"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o644
    );
}
