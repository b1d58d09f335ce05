//! No file is opened before its kind is checked.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::{Output, run, tender, text};
use crate::paths::{Place, read_write};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_file_of_another_kind_is_not_opened, Kvm),
        trial!(statistics_do_not_open_a_device, Kvm),
        trial!(a_new_file_is_not_made_through_a_link, Kvm),
    ]
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
