//! Where the core file is written: its directory, and files that are already there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Mounts, Net, Root};
use crate::common::{self, Device, as_nobody, directory, fixture, run, text, unikernel};
use crate::dumpcore::file::{Core, files};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(an_existing_file_is_not_changed, Kvm),
        trial!(a_path_that_is_no_directory_is_refused, Kvm),
        trial!(a_directory_of_another_user_is_refused, Root, Kvm),
        trial!(the_user_nobody_needs_only_the_directory, Root, Mounts, Kvm),
        trial!(another_root_does_not_move_the_directory, Root, Kvm),
        trial!(a_full_disk_is_reported, Kvm, Net),
    ]
}

/// Makes, in the process that becomes `tender`, a file with the name of its core file.
fn make_first(
    command: &mut Command,
    directory: &Path,
    make: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static,
) {
    let directory = text(directory).to_owned();
    // SAFETY: no other thread of this program holds a lock that this needs. It needs only the
    // memory allocator's, which the C library makes usable after a fork.
    unsafe {
        command.pre_exec(move || make(&format!("{directory}/core.tender.{}", std::process::id())))
    };
}

fn an_existing_file_is_not_changed() {
    for link in [false, true] {
        let (directory, elsewhere) = (directory(), directory());
        let target = elsewhere.path().join("target");
        let option = format!("--dumpcore={}", text(directory.path()));
        let mut command = unikernel("abort", &["--mem=4", &option], &[]);
        let to = target.clone();
        make_first(&mut command, directory.path(), move |name| {
            if link {
                std::os::unix::fs::symlink(&to, name)
            } else {
                fs::write(name, "kept")
            }
        });
        let output = run(&mut command);
        output
            .exits(255)
            .complains("warn: --dumpcore: ")
            .complains("File exists")
            .complains("move it away");
        assert_eq!(output.stderr.lines().count(), 2, "{output:?}");
        let [file] = &files(directory.path())[..] else {
            panic!("{directory:?}")
        };
        assert!(link || fs::read(file).unwrap() == b"kept");
        assert!(!target.exists());
    }
}

fn a_path_that_is_no_directory_is_refused() {
    let refused = |path: &str, parts: &[&str]| {
        let option = format!("--dumpcore={path}");
        run(&mut unikernel("hello", &["--mem=4", &option], &[]))
            .is_refused(&[parts, &["--dumpcore"]].concat());
    };
    refused("/no/such/directory", &["No such file", "give a directory"]);
    refused(
        text(&fixture("hello")),
        &["Not a directory", "give a directory"],
    );
}

/// Detected before the guest runs, for every reason why the run may lack the permission.
fn a_directory_of_another_user_is_refused() {
    let directory = directory();
    let option = format!("--dumpcore={}", text(directory.path()));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    for check in [&[][..], &["--check"]] {
        let options = [check, &["--mem=4", "--user=12:34", &option]].concat();
        let output = run(&mut unikernel("abort", &options, &[]));
        output.exits(1);
        let printed = if check.is_empty() {
            output.stderr.clone()
        } else {
            output.stdout.replace("\n", " ")
        };
        let printed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            printed.contains("unprivileged user 12 cannot create files there: Permission denied"),
            "{printed}"
        );
        assert!(!printed.contains("aborts"), "{printed}");
    }
    // The superuser's own privileges are dropped as well.
    std::os::unix::fs::chown(directory.path(), Some(12), Some(34)).unwrap();
    run(&mut unikernel("abort", &["--mem=4", &option], &[]))
        .is_refused(&["unprivileged user 0", "Permission denied"]);
    let output = run(&mut unikernel(
        "abort",
        &["--mem=4", "--user=12:34", &option],
        &[],
    ));
    output.exits(255);
    let core = Core::in_directory(directory.path(), &output, "abort");
    assert_eq!(core.path.metadata().unwrap().uid(), 12);
    let check = run(&mut unikernel(
        "abort",
        &["--check", "--mem=4", "--user=12:34", &option],
        &[],
    ));
    check
        .exits(0)
        .prints("ok       dumpcore   core files can be made\n");
}

fn the_user_nobody_needs_only_the_directory() {
    let (cores, place) = (directory(), directory());
    fs::set_permissions(cores.path(), Permissions::from_mode(0o777)).unwrap();
    let option = format!("--dumpcore={}", text(cores.path()));
    let devices = [Device::Made("kvm", 0o666)];
    let output = run(&mut as_nobody(
        "abort",
        place.path(),
        &devices,
        &["--mem=4", &option],
    ));
    output.exits(255).complains("open it with: gdb ");
    assert_eq!(files(cores.path()).len(), 1);
    assert_eq!(files(cores.path())[0].metadata().unwrap().uid(), 65534);
}

fn another_root_does_not_move_the_directory() {
    let (cores, root) = (directory(), directory());
    let chroot = format!("--chroot={}", text(root.path()));
    let option = format!("--dumpcore={}", text(cores.path()));
    let output = run(&mut unikernel("abort", &["--mem=4", &chroot, &option], &[]));
    Core::in_directory(cores.path(), output.exits(255), "abort");
    assert!(files(root.path()).is_empty());
}

/// The file system has 32 KiB.
fn a_full_disk_is_reported() {
    let directory = directory();
    let place = std::ffi::CString::new(text(directory.path())).unwrap();
    let (tmpfs, options) = (c"tmpfs".as_ptr(), c"size=32k".as_ptr());
    // SAFETY: all strings end with a NUL. The mount is in this test's own namespace.
    let mounted = unsafe { libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, options.cast()) };
    assert!(mounted == 0, "{}", common::host_error("tmpfs"));
    let option = format!("--dumpcore={}", text(directory.path()));
    let output = run(&mut unikernel("abort", &["--mem=4", &option], &[]));
    output
        .exits(255)
        .prints("this unikernel aborts")
        .complains("No space left on device")
        .complains("free as much space");
    output.complains(&format!(
        "warn: --dumpcore: {}",
        text(&files(directory.path())[0])
    ));
    assert_eq!(output.stderr.lines().count(), 2, "{output:?}");
    let output = run(&mut unikernel(
        "hypercalls",
        &["--mem=4", &option],
        &["badptr"],
    ));
    output
        .exits(1)
        .complains("No space left on device")
        .complains("hypercall PUTS");
    assert_eq!(output.stderr.lines().count(), 2, "{output:?}");
}
