//! Paths of the operator: paths that lead through descriptors, files for more than one purpose, and
//! that no file is opened before its kind is checked.

mod kinds;
mod shared;
mod user;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::{self, fixture, pipe, run, tender, text, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial!(a_path_of_a_descriptor_is_the_callers_disk, Kvm),
        trial!(a_path_of_a_descriptor_takes_statistics, Kvm),
        trial!(a_path_of_a_descriptor_is_the_callers_directory, Kvm),
        trial!(a_pipe_as_unikernel_is_refused, Kvm),
        trial!(a_number_that_was_not_passed_is_refused, Kvm),
    ];
    tests.extend(user::tests());
    tests.extend(shared::tests());
    tests.extend(kinds::tests());
    tests
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
    // SAFETY: dup2 is safe between fork and exec; the descriptor is open until then, as `file`
    // moves into the closure.
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
