//! `tender` as a replacement of upstream's tender: the command lines that albatross and urunc
//! build, with the streams, the environment and the exit statuses that they expect. The target of
//! the link `solo5-hvt` differs; neither of the two programs is run.

mod urunc;

use std::ffi::CString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{KvmEngine, Net};
use crate::common::net::{Tap, echo};
use crate::common::{self, Guest, fixture, on_one_processor, run, tender_path, text, trial};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        trial("albatross::finds_a_tender_for_each_abi_version")
            .run(finds_a_tender_for_each_abi_version),
        trial("albatross::runs_a_network_unikernel")
            .needs(&[KvmEngine, Net])
            .run(runs_a_network_unikernel),
        trial("albatross::runs_a_block_unikernel")
            .needs(&[KvmEngine])
            .run(runs_a_block_unikernel),
        trial("albatross::sees_why_a_unikernel_ended")
            .needs(&[KvmEngine])
            .run(sees_why_a_unikernel_ended),
    ];
    tests.extend(urunc::tests());
    tests
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The files of albatross on a host: its directory with the tender, the images, the disks, the
/// FIFOs.
struct Albatross(tempfile::TempDir);

impl Albatross {
    fn new() -> Albatross {
        let directory = common::directory();
        for folder in ["fifo", "block"] {
            std::fs::create_dir(directory.path().join(folder)).unwrap();
        }
        symlink(tender_path(), directory.path().join("solo5-hvt")).unwrap();
        Albatross(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts unikernel `name`, whose image is `image`: `taskset -c CPUS TENDER --mem=N OPTIONS --
    /// IMAGE ARGUMENTS`, with a FIFO as all three streams. `taskset` execs `tender`, on these
    /// processors.
    fn start(&self, name: &str, image: &str, options: &[&str], arguments: &[&str]) -> Guest {
        let file = self.path(&format!("{name}.img"));
        std::fs::copy(fixture(image), &file).unwrap();
        let mut command = Command::new(self.path("solo5-hvt"));
        command
            .arg("--mem=32")
            .args(options)
            .arg("--")
            .arg(file)
            .args(arguments)
            .env_remove("RUST_LOG");
        let fifo = self.path(&format!("fifo/{name}"));
        let path = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        assert!(
            // SAFETY: the call takes a string that ends with a NUL.
            unsafe { libc::mkfifo(path.as_ptr(), 0o640) } == 0,
            "{}",
            common::host_error("mkfifo")
        );
        let reader = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&fifo)
            .unwrap();
        let writer = File::options().append(true).open(&fifo).unwrap();
        Guest::on_one_file(on_one_processor(&mut command), waiting(reader), &writer)
    }
}

/// The same file, with blocking reads.
fn waiting(file: File) -> File {
    use std::os::fd::AsRawFd;
    assert!(
        // SAFETY: the request takes a number; the descriptor is open.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } == 0,
        "{}",
        common::host_error("fcntl")
    );
    file
}

/// It looks for the line `ABI version N` of the image's version, on both streams together, of
/// `solo5-hvt.N` and of `solo5-hvt`.
fn finds_a_tender_for_each_abi_version() {
    let albatross = Albatross::new();
    symlink(tender_path(), albatross.path("solo5-hvt.1")).unwrap();
    for name in ["solo5-hvt", "solo5-hvt.1"] {
        let output = run(Command::new(albatross.path(name)).arg("--version"));
        output.exits(0);
        for version in ["1", "2"] {
            let fits =
                |line: &str| line.split(' ').collect::<Vec<_>>() == ["ABI", "version", version];
            assert!(
                output.stderr.lines().any(fits) && output.stdout.lines().any(fits),
                "{output:#?}"
            );
        }
        output.complains(&format!("{name} tender, version v"));
    }
}

fn runs_a_network_unikernel() {
    let albatross = Albatross::new();
    let _tap = Tap::up("vmmtap0", HOST);
    for image in ["net", "net-abi1"] {
        let options = [
            "--net:service=vmmtap0",
            "--net-mac:service=00:80:41:0a:1b:2c",
        ];
        let name = format!("org:{image}");
        let mut guest = albatross.start(
            &name,
            image,
            &options,
            &["--name=net", "--ipv4=10.0.0.2/24"],
        );
        guest.wait_for("mac 00:80:41:0a:1b:2c");
        guest.wait_for("net: ready\n");
        echo(GUEST, b"hello");
        // The started process is `tender`, and has no child.
        let pid = guest.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        assert_eq!(children.unwrap_or_default(), "");
        // Albatross destroys a unikernel this way; an end by a signal means that it is not started
        // again.
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM);
    }
}

fn runs_a_block_unikernel() {
    let albatross = Albatross::new();
    let disk = albatross.path("block/org:data");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let options = [
        &format!("--block:storage={}", text(&disk)),
        "--block-sector-size:storage=4096",
    ];
    for (name, action) in [("org:first", "fill"), ("org:second", "verify")] {
        let output = albatross.start(name, "block", &options, &[action]).end();
        output.exits(0).prints("in sectors of 4096");
    }
}

/// 64 is started again without `--name`, 1 never, 255 and most others if the operator wants it.
fn sees_why_a_unikernel_ended() {
    let albatross = Albatross::new();
    for status in [0, 2, 64, 255] {
        let word = format!("exit={status}");
        let output = albatross
            .start(
                &format!("exit{status}"),
                "hello",
                &[],
                &["--name=hello", &word],
            )
            .end();
        output
            .exits(status)
            .prints(&format!("--name=hello {word}\n"));
    }
    albatross.start("abort", "abort", &[], &[]).end().exits(255);
    // `tender`'s messages go to the guest's output.
    albatross
        .start("refused", "net", &[], &[])
        .end()
        .exits(1)
        .prints("tender: ")
        .prints("'service'");
}
