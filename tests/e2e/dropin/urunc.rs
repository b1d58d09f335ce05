//! As urunc starts it: in a container, behind a seccomp filter.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use libc::c_long;
use libtest_mimic::Trial;

use crate::common::Need::{KvmEngine, Net, Vdso};
use crate::common::net::{Tap, echo};
use crate::common::{self, Guest, LIMIT, Root, fixture, run, tender_path, trial};
use crate::dropin::{GUEST, HOST};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("urunc::runs_a_web_server")
            .needs(&[KvmEngine, Net])
            .run(runs_a_web_server),
        trial("urunc::runs_a_block_unikernel")
            .needs(&[KvmEngine, Net])
            .run(runs_a_block_unikernel_in_a_container),
        trial("urunc::passes_arguments_unchanged")
            .needs(&[KvmEngine, Net])
            .run(passes_arguments_unchanged),
        trial("urunc::runs_what_it_builds_since_2026")
            .needs(&[KvmEngine, Net])
            .run(runs_what_it_builds_since_2026),
        trial("urunc::runs_behind_its_filter")
            .needs(&[KvmEngine, Net, Vdso])
            .run(runs_behind_its_filter),
        trial("urunc::a_signal_ends_a_sleep_behind_its_filter")
            .needs(&[KvmEngine, Net, Vdso])
            .run(a_signal_ends_a_sleep_behind_its_filter),
        trial("urunc::the_clock_is_right_behind_its_filter")
            .needs(&[KvmEngine, Vdso])
            .run(the_clock_is_right_behind_its_filter),
        trial("urunc::a_sigsys_that_was_sent_kills").run(a_sigsys_that_was_sent_kills),
    ]
}

/// A container's root directory as urunc makes it: `tender` with its libraries, the unikernel, and
/// the two devices; no /proc, no /sys and, here, nothing writable.
struct Container(Root);

const TENDER: &str = "/usr/local/bin/solo5-hvt";

impl Container {
    fn new(image: &str) -> Container {
        let root = Root::new();
        for folder in ["dev/net", "usr/local/bin", "unikernel"] {
            std::fs::create_dir_all(root.path(folder)).unwrap();
        }
        for name in ["lib", "lib64", "usr/lib", "dev/kvm", "dev/net/tun"] {
            let original = Path::new("/").join(name);
            if original.exists() {
                root.show(&original, name);
            }
        }
        std::fs::copy(tender_path(), root.path(&TENDER[1..])).unwrap();
        std::fs::copy(fixture(image), root.path("unikernel/app.hvt")).unwrap();
        Container(root)
    }

    /// The final exec of urunc: the first argument is the program and its name. It lasts as long as
    /// `self`.
    fn exec<'w>(&self, args: impl IntoIterator<Item = &'w str>) -> Command {
        self.0.make_read_only();
        let mut args = args.into_iter();
        let mut command = Command::new(args.next().unwrap());
        self.0.enter(
            command
                .args(args)
                .env_remove("RUST_LOG")
                .env("HOSTNAME", "pod"),
        );
        command
    }

    /// Up to 2025, urunc splits one text at each space, so that a missing part leaves an empty
    /// argument.
    fn exec_text(&self, line: &str) -> Command {
        self.exec(line.split(' '))
    }
}

fn page() -> String {
    let address = SocketAddr::from((GUEST, 8080));
    let deadline = Instant::now() + LIMIT;
    let mut stream = loop {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
        }
    };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: 10.0.0.2\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn serves(mut command: Command) {
    let mut guest = Guest::start(&mut command);
    guest.wait_for("listening on 8080/TCP");
    assert!(page().starts_with("HTTP/1.1 200"));
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).is_quiet();
}

fn runs_a_web_server() {
    let _tap = Tap::up("tap0_urunc", HOST);
    let container = Container::new("web");
    let options = "--mem=256 --net:service=tap0_urunc";
    serves(container.exec_text(&format!(
        "{TENDER} {options} /unikernel/app.hvt --ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 "
    )));
}

fn runs_a_block_unikernel_in_a_container() {
    let container = Container::new("block");
    let directory = common::directory();
    let disk = directory.path().join("disk");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    container.0.show(&disk, "disk.img");
    let line = format!("{TENDER} --mem=256 --block:storage=/disk.img /unikernel/app.hvt   fill");
    run(&mut container.exec_text(&line)).exits(0).is_quiet();
}

fn passes_arguments_unchanged() {
    let container = Container::new("hello");
    let start = format!("{TENDER} --mem=256 /unikernel/app.hvt");
    // Without a network, its two arguments are empty.
    run(&mut container.exec_text(&format!("{start}   --hello=world")))
        .exits(0)
        .prints("hello:   --hello=world\n");
    let json = r#"{"cmdline":"redis-server /data/redis.conf","net":{"if":"ukvmif0","addr":"10.0.0.2","mask":"1"}}"#;
    run(&mut container.exec_text(&format!("{start} {json}")))
        .exits(0)
        .prints(&format!("hello: {json}\n"));
}

/// A list of arguments with `--` before the unikernel, and all of the guest's as one of them.
fn runs_what_it_builds_since_2026() {
    let _tap = Tap::up("tap0_urunc", HOST);
    let net = [
        "--net:service=tap0_urunc",
        "--net-mac:service=02:42:ac:11:00:02",
    ];
    let start = [
        TENDER,
        "--mem=256",
        net[0],
        net[1],
        "--",
        "/unikernel/app.hvt",
    ];
    let guests = "--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 ";
    serves(Container::new("web").exec(start.into_iter().chain([guests])));
    let hello = Container::new("hello");
    run(&mut hello.exec([TENDER, "--mem=256", "--", "/unikernel/app.hvt", "a  b --c"]))
        .exits(0)
        .prints("hello: a  b --c\n");
}

/// The calls that urunc allows to the tender of a container with a seccomp profile, whatever the
/// profile is. clock_gettime is not one of them.
const ALLOWED: [c_long; 40] = [
    libc::SYS_rt_sigaction,
    libc::SYS_ioctl,
    libc::SYS_pread64,
    libc::SYS_mmap,
    libc::SYS_recvmsg,
    libc::SYS_openat,
    libc::SYS_sendto,
    libc::SYS_mprotect,
    libc::SYS_write,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_read,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_execve,
    libc::SYS_timerfd_create,
    libc::SYS_lseek,
    libc::SYS_personality,
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_epoll_pwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_timerfd_settime,
    libc::SYS_pwrite64,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prlimit64,
    libc::SYS_getrandom,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
];

/// The calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_access,
    libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const OLD: &[c_long] = &[];

fn filtered(mut command: Command) -> Command {
    common::refuse::all_but(&mut command, &[&ALLOWED, OLD].concat());
    command
}

const NOTICE: &str = "an inherited seccomp filter prevents";

fn runs_behind_its_filter() {
    let _tap = Tap::up("tap0_urunc", HOST);
    let options = "--mem=256 --net:service=tap0_urunc --net-mac:service=02:42:ac:11:00:02 --";
    let line = format!(
        "{TENDER} {options} /unikernel/app.hvt --ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 "
    );
    let container = Container::new("web");
    let mut guest = Guest::start(&mut filtered(container.exec_text(&line)));
    guest.wait_for("listening on 8080/TCP");
    for _ in 0..3 {
        assert!(page().starts_with("HTTP/1.1 200"));
    }
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM).complains(NOTICE);

    // With the ring.
    let line = format!("{TENDER} {options} /unikernel/app.hvt poll-echo --ipv4=10.0.0.2/24");
    let container = Container::new("ring");
    let guest = Guest::start(&mut filtered(container.exec_text(&line)));
    guest.wait_for("ready\n");
    (0..10).for_each(|i| echo(GUEST, &[i; 500]));
    echo(GUEST, b"quit");
    guest.end().exits(0);

    let (container, directory) = (Container::new("block"), common::directory());
    let disk = directory.path().join("disk");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    container.0.show(&disk, "disk.img");
    let line = format!("{TENDER} --mem=256 --block:storage=/disk.img /unikernel/app.hvt   fill");
    run(&mut filtered(container.exec_text(&line)))
        .exits(0)
        .complains("cannot be locked");

    let (container, cores) = (Container::new("abort"), common::directory());
    container.0.show(cores.path(), "cores");
    let line = format!("{TENDER} --mem=2 --dumpcore=/cores -- /unikernel/app.hvt");
    run(&mut filtered(container.exec_text(&line)))
        .exits(255)
        .complains("; open it with: gdb ");
    assert_eq!(std::fs::read_dir(cores.path()).unwrap().count(), 1);
    // An error is reported, and nothing else happens.
    let line = format!("{TENDER} --mem=256 --net:service=tap7 -- /unikernel/app.hvt");
    run(&mut filtered(Container::new("net").exec_text(&line))).is_refused(&["tap7"]);
}

/// No timer repeats the interrupt here, and the guest sleeps until something arrives.
fn a_signal_ends_a_sleep_behind_its_filter() {
    let _tap = Tap::up("tap0_urunc", HOST);
    let container = Container::new("net");
    for _ in 0..10 {
        let line = format!(
            "{TENDER} --mem=256 --net:service=tap0_urunc /unikernel/app.hvt --ipv4=10.0.0.2/24"
        );
        let mut guest = Guest::start(&mut filtered(container.exec_text(&line)));
        guest.wait_for("net: ready\n");
        guest.signal(libc::SIGTERM);
        guest.end().dies_by(libc::SIGTERM);
    }
}

fn the_clock_is_right_behind_its_filter() {
    run(&mut filtered(common::unikernel("clock", &["--mem=4"], &[])))
        .exits(0)
        .prints("clock: ok")
        .complains(NOTICE);
}

/// A SIGSYS from kill(2) ends `tender`, as it does any program.
fn a_sigsys_that_was_sent_kills() {
    let mut guest = Guest::start(&mut common::unikernel(
        "sleeper",
        &["--mem=4", "--sandbox=off"],
        &[],
    ));
    guest.signal(libc::SIGSYS);
    guest.end().dies_by(libc::SIGSYS);
}
