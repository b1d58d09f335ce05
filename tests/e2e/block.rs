//! Block devices: written data is there afterwards, on the host and for the next run, and nowhere
//! else. Files that cannot be a disk are refused; errors of the host are returned to the guest.

use libtest_mimic::Trial;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Need::{Kvm, Mounts, Net, Root};
use crate::common::{self, Device, Guest, Output, fixture, run, text, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_disk_does_all_that_it_should, Kvm),
        trial!(every_sector_size_works, Kvm),
        trial!(the_smallest_disk_is_one_sector, Kvm),
        trial!(written_data_is_there_for_the_next_run, Kvm),
        trial!(large_disks_are_used_to_their_end, Kvm),
        trial!(two_disks_are_independent, Kvm),
        trial!(all_ways_to_name_a_disk_work, Kvm),
        trial!(an_image_in_use_names_its_user, Kvm),
        trial!(a_killed_run_leaves_its_disk_free, Kvm),
        trial!(a_full_host_disk_is_an_error_for_the_guest, Kvm, Net),
        trial!(impossible_sizes_are_refused, Kvm),
        trial!(a_file_that_is_no_raw_image_causes_a_warning, Kvm),
        trial!(no_suggested_command_changes_a_file_that_is_no_image, Kvm),
        trial!(paths_that_are_no_image_are_refused, Kvm),
        trial!(one_image_cannot_be_two_disks, Kvm),
        trial!(an_image_of_another_user_is_refused, Root, Mounts, Kvm),
    ]
}

/// An image of so many bytes, all zero.
struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    fn new(size: u64) -> Image {
        let image = Image {
            directory: common::directory(),
        };
        File::create(image.path()).unwrap().set_len(size).unwrap();
        image
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk, with=odd name.img")
    }

    fn option(&self, name: &str) -> String {
        format!("{name}={}", text(&self.path()))
    }
}

fn block(options: &[&str], arguments: &[&str]) -> Output {
    let options: Vec<_> = options.iter().copied().chain(["--mem=4"]).collect();
    run(&mut unikernel("block", &options, arguments))
}

fn a_disk_does_all_that_it_should() {
    let image = Image::new(1 << 20);
    let output = block(&[&image.option("--block:storage")], &[]);
    output
        .exits(0)
        .is_quiet()
        .prints("block: storage: handle 1, 1048576 bytes in sectors of 512\n");
    output
        .prints("block: 8 sectors in one call\n")
        .prints("block: bad offsets and bad handles are refused\n")
        .prints("block: ok");
    assert_eq!(fs::metadata(image.path()).unwrap().len(), 1 << 20);
}

fn every_sector_size_works() {
    for shift in 9..16 {
        let size = 1 << shift;
        let image = Image::new(size * 16);
        let output = block(
            &[
                &image.option("--block"),
                &format!("--block-sector-size:storage={size}"),
            ],
            &[],
        );
        output
            .exits(0)
            .is_quiet()
            .prints(&format!(" {} bytes in sectors of {size}\n", size * 16))
            .prints("block: ok");
    }
}

fn the_smallest_disk_is_one_sector() {
    let image = Image::new(512);
    block(&[&image.option("--block")], &[])
        .exits(0)
        .is_quiet()
        .prints(" 512 bytes")
        .prints("block: ok");
    assert_eq!(fs::metadata(image.path()).unwrap().len(), 512);
}

fn written_data_is_there_for_the_next_run() {
    let image = Image::new(64 << 10);
    let option = image.option("--block");
    block(&[&option], &["verify"])
        .exits(255)
        .prints("sector 0 is not what was written");
    block(&[&option], &["fill"]).exits(0).is_quiet();
    let written = fs::read(image.path()).unwrap();
    // Each run of 512 bytes: the chosen ones are full, all others unchanged.
    let full: Vec<_> = (0..128)
        .filter(|i| written[i * 512..][..512] != [0; 512])
        .collect();
    assert_eq!(full, [0, 1, 63, 126, 127]);
    block(&[&option], &["verify"]).exits(0).is_quiet();
    assert_eq!(
        fs::read(image.path()).unwrap(),
        written,
        "reading changes nothing"
    );
    // The verification can fail: one bit of the last sector.
    let last = written.len() - 1;
    File::options()
        .write(true)
        .open(image.path())
        .unwrap()
        .write_all_at(&[written[last] ^ 1], last as u64)
        .unwrap();
    block(&[&option], &["verify"])
        .exits(255)
        .prints("sector 127 is not what was written");
}

/// Offsets beyond 32 bits, in a sparse file.
fn large_disks_are_used_to_their_end() {
    let size = (5 << 30) + 512;
    let image = Image::new(size);
    let option = image.option("--block");
    block(&[&option], &["fill"])
        .exits(0)
        .is_quiet()
        .prints(&format!(" {size} bytes"));
    block(&[&option], &["verify"]).exits(0).is_quiet();
    let mut last = [0; 512];
    File::open(image.path())
        .unwrap()
        .read_exact_at(&mut last, size - 512)
        .unwrap();
    assert_ne!(last, [0; 512], "the last sector was written");
    assert!(
        fs::metadata(image.path()).unwrap().blocks() < 4096,
        "the rest was not"
    );
}

fn two_disks_are_independent() {
    let (a, b) = (Image::new(1 << 20), Image::new(2 << 20));
    let options = [
        &*a.option("--block:a"),
        &*b.option("--block:b"),
        "--block-sector-size:b=4096",
        "--mem=4",
    ];
    let output = run(&mut unikernel("block2", &options, &[]));
    output.exits(0).is_quiet().prints("block: ok");
    output.prints("block: a: handle 1, 1048576 bytes in sectors of 512\n");
    output.prints("block: b: handle 2, 2097152 bytes in sectors of 4096\n");
    let [a, b] = [a, b].map(|image| fs::read(image.path()).unwrap());
    assert_ne!(a[..512], b[..512]);
}

fn all_ways_to_name_a_disk_work() {
    let image = Image::new(64 << 10);
    let path = image.path();
    let ways = [
        &["--disk", text(&path)][..],
        &["--block", text(&path)],
        &["--block:storage", text(&path)],
    ];
    for way in ways {
        block(way, &["fill"])
            .exits(0)
            .is_quiet()
            .prints("block: ok");
    }
    block(
        &[&image.option("--disk"), "--block-sector-size=1024"],
        &["fill"],
    )
    .exits(0)
    .prints("sectors of 1024");
    let mut command = Command::new(common::tender_path());
    let link = image.directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    command
        .current_dir(image.directory.path())
        .args(common::engine_option())
        .args(["--mem=4", "--disk=link", "--"])
        .arg(common::fixture("block"));
    run(&mut command).exits(0).is_quiet().prints("block: ok");
}

/// Starts a guest that holds the disk and is blocked until the pipe is read, as its first line does
/// not fit.
fn start_and_hold(option: &str) -> (Guest, File) {
    let (reader, writer) = common::full_pipe();
    let mut guest = Guest::spawn(unikernel("block", &[option, "--mem=4"], &[]).stdout(writer));
    let holder = format!(" {} ", guest.pid());
    let deadline = Instant::now() + common::LIMIT;
    while !fs::read_to_string("/proc/locks").unwrap().contains(&holder) {
        assert!(
            guest.is_running() && Instant::now() < deadline,
            "the disk is not locked: {:?}",
            guest.messages()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    (guest, reader)
}

fn an_image_in_use_names_its_user() {
    let image = Image::new(1 << 20);
    let option = image.option("--block");
    let (first, mut reader) = start_and_hold(&option);
    let name = text(&image.path()).to_owned();
    block(&[&option], &[]).is_refused(&[
        &name,
        "in use",
        &format!("process {} (tender)", first.pid()),
    ]);
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    first.end().exits(0).is_quiet();
    assert!(
        printed.ends_with(b"block: ok\n"),
        "the first one was disturbed: {}",
        String::from_utf8_lossy(&printed)
    );
    block(&[&option], &["fill"]).exits(0).is_quiet();
}

fn a_killed_run_leaves_its_disk_free() {
    let image = Image::new(1 << 20);
    let option = image.option("--block");
    let (mut first, _reader) = start_and_hold(&option);
    first.signal(libc::SIGKILL);
    first.end().dies_by(libc::SIGKILL);
    block(&[&option], &[])
        .exits(0)
        .is_quiet()
        .prints("block: ok");
}

/// On a file system of two pages, with an image of nominally one megabyte.
fn a_full_host_disk_is_an_error_for_the_guest() {
    let directory = common::directory();
    let mut command = unikernel(
        "block",
        &[
            "--mem=4",
            &format!("--disk={}/small.img", text(directory.path())),
        ],
        &["fill"],
    );
    mount_small(&mut command, directory.path());
    let output = run(&mut command);
    output
        .exits(255)
        .prints("Err(Unspecified)")
        .complains("small.img")
        .complains("No space left");
    output
        .complains("failed 1 (1 disk full)")
        .complains("the guest aborted");
    assert_eq!(output.stderr.lines().count(), 3, "{output:?}");
}

/// Makes the command start with a tmpfs of 8 KiB at `place`, in a private mount namespace, and an
/// image in it.
fn mount_small(command: &mut Command, place: &Path) {
    let image = CString::new(format!("{}/small.img", text(place))).unwrap();
    let place = CString::new(text(place)).unwrap();
    // SAFETY: all calls are system calls, which are safe between fork and exec, and all strings end
    // with a NUL.
    unsafe {
        command.pre_exec(move || {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let (none, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            let done = libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()) == 0
                && libc::mount(none, place.as_ptr(), tmpfs, 0, c"size=8k".as_ptr().cast()) == 0;
            let file = libc::open(
                image.as_ptr(),
                libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC,
                0o600,
            );
            if done && file >= 0 && libc::ftruncate(file, 1 << 20) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

fn impossible_sizes_are_refused() {
    for (size, part) in [(1, "has 1 byte,"), (511, "511"), (513, "513"), (0, "empty")] {
        let image = Image::new(size);
        let name = image.path();
        block(&[&image.option("--block")], &[]).is_refused(&["'storage'", text(&name), part]);
        assert_eq!(
            fs::metadata(&name).unwrap().len(),
            size,
            "the image was changed"
        );
    }
    let image = Image::new(4096 + 512);
    let option = image.option("--block");
    block(&[&option, "--block-sector-size=4096"], &[]).is_refused(&["4608", "4096"]);
    block(&[&option, "--block-sector-size=1536"], &[]).is_refused(&["1536", "512"]);
}

/// Files that are clearly no raw image, by their first bytes.
fn foreign() -> Vec<(Vec<u8>, &'static str)> {
    let vdi = [
        &b"<<< Oracle VM VirtualBox Disk Image >>>\n"[..],
        &[0; 24],
        &[0x7f, 0x10, 0xda, 0xbe],
    ]
    .concat();
    let mut foreign = vec![
        (vdi, "a VirtualBox (vdi) disk image"),
        (fs::read(fixture("hello")).unwrap(), "an ELF file"),
    ];
    for (start, name) in [
        (&b"QFI\xfb\0\0\0\x03"[..], "a qcow2 disk image"),
        (b"KDMV\x01\0\0\0", "a VMware (vmdk) disk image"),
        (b"# Disk DescriptorFile\n", "a VMware (vmdk) disk image"),
        (b"vhdxfile", "a vhdx disk image"),
        (b"conectix", "a vhd disk image"),
        (b"\x1f\x8b\x08\0", "gzip-compressed"),
        (b"\xfd7zXZ\0", "xz-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"BZh91AY&SY", "bzip2-compressed"),
        (b"\x04\x22\x4d\x18", "lz4-compressed"),
        (b"PK\x03\x04", "a zip archive"),
    ] {
        foreign.push((start.to_vec(), name));
    }
    foreign
}

fn a_file_that_is_no_raw_image_causes_a_warning() {
    let image = Image::new(0);
    for (mut bytes, name) in foreign() {
        bytes.resize(1 << 20, 0);
        fs::write(image.path(), bytes).unwrap();
        let output = block(&[&image.option("--block")], &[]);
        output
            .exits(0)
            .complains(&format!("' is {name}"))
            .complains("the guest gets its raw bytes");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    for start in [
        &b"\x1f\x8b"[..],
        b"\xeb\x3c\x90mkfs.fat",
        b"Hello\n",
        b"LUKS\xba\xbe",
        b"MZ\x90\0",
    ] {
        let mut bytes = start.to_vec();
        bytes.resize(1 << 20, 0);
        fs::write(image.path(), bytes).unwrap();
        block(&[&image.option("--block")], &[]).exits(0).is_quiet();
    }
}

fn no_suggested_command_changes_a_file_that_is_no_image() {
    let image = Image::new(0);
    let text = b"To whom it may concern,\n".repeat(30);
    for (mut bytes, name) in foreign().into_iter().chain([(text, "a text file")]) {
        let size = bytes.len().next_multiple_of(512) + 513;
        bytes.resize(size, b' ');
        fs::write(image.path(), &bytes).unwrap();
        let output = block(&[&image.option("--block")], &[]);
        output.fails(&["not a multiple of its sectors of 512; it is ", name]);
        assert!(!output.stderr.contains("truncate"), "{output:?}");
    }
}

fn paths_that_are_no_image_are_refused() {
    let directory = common::directory();
    let missing = directory.path().join("missing");
    for (path, part) in [
        (text(&missing), "no file"),
        (text(directory.path()), "directory"),
        ("/dev/null", "character device"),
        ("/dev/null/x", "Not a directory"),
        ("/dev/none", "'lsblk'"),
    ] {
        block(&[&format!("--block={path}")], &[]).is_refused(&[
            "block.hvt",
            "'storage'",
            path,
            part,
        ]);
    }
    assert!(!missing.exists());
}

fn one_image_cannot_be_two_disks() {
    let image = Image::new(1 << 20);
    let again = image.directory.path().join("again");
    fs::hard_link(image.path(), &again).unwrap();
    for second in [image.path(), again] {
        let options = [
            &*image.option("--block:a"),
            &format!("--block:b={}", text(&second)),
            "--mem=4",
        ];
        run(&mut unikernel("block2", &options, &[])).is_refused(&["'b'", "two"]);
    }
}

/// As the user nobody, with copies of `tender` and its unikernel that this user may read.
fn an_image_of_another_user_is_refused() {
    let image = Image::new(1 << 20);
    let devices = [Device::Made("kvm", 0o666)];
    let mut command = common::as_nobody(
        "block",
        image.directory.path(),
        &devices,
        &[&image.option("--disk")],
    );
    let other = format!("user {}", tender::host::ids::user_name(65534));
    run(&mut command).is_refused(&[&other, text(&image.path())]);
}
