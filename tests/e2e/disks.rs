//! Block devices of the host work like image files. The tests use loop devices of the host; where
//! these are unavailable, the tests are ignored with that reason.

use libtest_mimic::Trial;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::common::Need::Kvm;
use crate::common::{self, FD, pass_fd, run, text, trial, unikernel};

const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LOOP_SET_FD: u32 = 0x4c00;
const LOOP_CLR_FD: u32 = 0x4c01;

const SIZE: u64 = 1 << 20;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("a_disk_does_all_that_it_should")
            .needs(&[Kvm])
            .try_run(a_disk_does_all_that_it_should),
        trial("one_disk_cannot_be_two")
            .needs(&[Kvm])
            .try_run(one_disk_cannot_be_two),
        trial("an_image_of_a_loop_device_is_in_use")
            .needs(&[Kvm])
            .try_run(an_image_of_a_loop_device_is_in_use),
        trial("a_disk_that_is_read_only_is_refused")
            .needs(&[Kvm])
            .try_run(a_disk_that_is_read_only_is_refused),
    ]
}

/// Keeps the tests from taking each other's free device.
static FREE: Mutex<()> = Mutex::new(());

/// A loop device. It ends with its test.
struct Disk {
    device: File,
    path: PathBuf,
    image: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn new(writable: bool) -> Result<Disk, String> {
        let directory = common::directory();
        let image = directory.path().join("disk.img");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        let image_file = File::options()
            .read(true)
            .write(writable)
            .open(&image)
            .unwrap();
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).open(path);
            file.map_err(|error| format!("no loop devices: {}: {error}", path.display()))
        };
        let _free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let control = open(Path::new("/dev/loop-control"))?;
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        // SAFETY: the request takes the number of a descriptor.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, image_file.as_raw_fd()) } != 0
        {
            return Err(common::host_error("no loop device for an image"));
        }
        Ok(Disk {
            device,
            path,
            image,
            _directory: directory,
        })
    }

    fn option(&self, name: &str) -> String {
        format!("{name}={}", text(&self.path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: the request takes no argument.
        unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
    }
}

fn a_disk_does_all_that_it_should() -> Result<(), String> {
    let disk = Disk::new(true)?;
    let output = run(&mut unikernel(
        "block",
        &["--mem=4", &disk.option("--disk")],
        &["fill"],
    ));
    output
        .exits(0)
        .is_quiet()
        .prints(&format!("{SIZE} bytes in sectors of 512"));
    assert!(
        std::fs::read(&disk.image)
            .unwrap()
            .iter()
            .any(|&byte| byte != 0),
        "nothing was written"
    );
    Ok(())
}

fn one_disk_cannot_be_two() -> Result<(), String> {
    let disk = Disk::new(true)?;
    let link = disk.image.with_file_name("link");
    std::os::unix::fs::symlink(&disk.path, &link).unwrap();
    let options = [
        disk.option("--block:a"),
        format!("--block:b={}", text(&link)),
    ];
    run(&mut unikernel("block2", &[&options[0], &options[1]], &[]))
        .is_refused(&["'b'", "two block devices"]);
    Ok(())
}

/// By its path, through a link and as a descriptor; once the loop device is gone, the image is
/// free.
fn an_image_of_a_loop_device_is_in_use() -> Result<(), String> {
    let disk = Disk::new(true)?;
    let directory = common::directory();
    let link = directory.path().join("link.img");
    std::fs::hard_link(&disk.image, &link).unwrap();
    let run_with = |path: &Path| {
        run(&mut unikernel(
            "block",
            &["--mem=4", &format!("--disk={}", text(path))],
            &[],
        ))
    };
    for path in [&disk.image, &link] {
        let device = text(&disk.path);
        run_with(path).is_refused(&[
            &format!("is in use by {device}; "),
            &format!("'losetup -d {device}'"),
        ]);
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open(&disk.image)
        .unwrap();
    let mut command = pass_fd(
        unikernel("block", &["--mem=4", &format!("--disk=@{FD}")], &[]),
        file,
    );
    run(&mut command).is_refused(&["is in use by ", text(&disk.path)]);
    // The lock belongs to the descriptor and lasts as long.
    drop(command);
    drop(disk);
    run_with(&link).exits(0).is_quiet();
    Ok(())
}

/// The host opens it for writing, and then refuses every write.
fn a_disk_that_is_read_only_is_refused() -> Result<(), String> {
    let disk = Disk::new(false)?;
    let output = run(&mut unikernel(
        "block",
        &["--mem=4", &disk.option("--disk")],
        &[],
    ));
    output.is_refused(&[text(&disk.path), "read-only", "blockdev --setrw"]);
    Ok(())
}
