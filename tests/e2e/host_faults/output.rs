//! Standard streams that are closed, full or slow.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine, Net};
use crate::common::children::spawn;
use crate::common::inject::{Fault, first, inject, once_running};
use crate::common::net::Tap;
use crate::common::trace::Call;
use crate::common::{self, Device, FD, Guest, pass_fd, trial, unikernel, with_devices};
use crate::host_faults::{Image, logs_only};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("output::a_reader_that_has_gone_costs_the_guest_nothing")
            .needs(&[Kvm])
            .run(a_reader_that_has_gone),
        trial("output::a_full_disk_for_the_output_costs_the_guest_nothing")
            .needs(&[Kvm])
            .run(a_full_disk_for_the_output),
        trial("output::a_slow_reader_gets_every_byte")
            .needs(&[Kvm])
            .run(|| a_slow_reader_gets_every_byte(0)),
        trial("output::a_slow_reader_gets_every_byte::non_blocking")
            .needs(&[Kvm])
            .run(|| {
                a_slow_reader_gets_every_byte(libc::O_NONBLOCK);
            }),
        trial("output::a_signal_ends_the_wait_for_a_reader")
            .needs(&[Kvm])
            .run(a_signal_ends_the_wait_for_a_reader),
        trial("output::output_is_dropped_where_no_wait_is_possible")
            .needs(&[Kvm])
            .run(no_wait_is_possible),
        trial("output::help_waits_for_a_slow_reader").run(help_waits_for_a_slow_reader),
        trial("output::short_and_interrupted_writes_are_completed")
            .needs(&[Kvm])
            .run(short_and_interrupted_writes_are_completed),
        trial("output::closed_streams_lead_nowhere")
            .needs(&[KvmEngine])
            .run(closed_streams_lead_nowhere),
        trial("output::closed_streams_without_dev_null")
            .needs(&[KvmEngine, Net])
            .run(closed_streams_without_dev_null),
        trial("output::unread_messages_do_not_block_the_guest")
            .needs(&[Kvm, Net])
            .run(unread_messages),
        trial("output::unread_messages_are_counted")
            .needs(&[Kvm, Net])
            .run(unread_messages_are_counted),
        trial("output::an_unread_error_does_not_block_the_exit").run(an_unread_error),
    ]
}

fn flood(count: &str) -> Command {
    unikernel("hypercalls", &["--mem=4"], &["puts-flood", count])
}

/// Returns what `flood` prints.
fn flooded(count: u32) -> String {
    let lines: String = (0..count).map(|i| format!("flood {i}\n")).collect();
    format!("hypercalls: puts-flood\n{lines}")
}

fn a_reader_that_has_gone() {
    let (reader, writer) = common::pipe();
    drop(reader);
    let output = Guest::spawn(flood("100").stdout(writer)).end();
    output.exits(0);
    let dropped = format!(
        "console: 0 bytes written, {} dropped, failed 101 (101 reader gone)",
        flooded(100).len()
    );
    logs_only(
        &output,
        &[
            &["console: cannot write to standard output: Broken pipe"],
            &[&dropped],
        ],
    );
}

fn a_full_disk_for_the_output() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Guest::spawn(flood("10").stdout(full)).end();
    output.exits(0);
    logs_only(
        &output,
        &[
            &["No space left"],
            &["console: 0 bytes written, ", "11 disk full"],
        ],
    );
}

/// A full pipe whose writing end has these flags.
fn full_pipe(flags: libc::c_int) -> (File, File) {
    use std::os::fd::AsRawFd;
    let (reader, writer) = common::full_pipe();
    assert_eq!(
        // SAFETY: the request takes a number.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) },
        0
    );
    (reader, writer)
}

fn a_signal_ends_the_wait_for_a_reader() {
    for flags in [0, libc::O_NONBLOCK] {
        for options in [&["--mem=4"][..], &["--mem=4", "--console-timestamps"]] {
            let (_reader, writer) = full_pipe(flags);
            let mut command = unikernel("hypercalls", options, &["puts-flood", "10"]);
            let mut guest = Guest::spawn(command.stdout(writer));
            std::thread::sleep(Duration::from_millis(500));
            guest.signal(libc::SIGTERM);
            guest.end().dies_by(libc::SIGTERM);
        }
    }
}

/// As behind a seccomp filter that rejects every call that waits.
fn no_wait_is_possible() {
    for refusal in [libc::EPERM, libc::ENOSYS] {
        let fault = once_running(move |call: &Call| match call.number {
            libc::SYS_write if call.arguments[0] == 1 => Some(Fault::Fails(libc::EAGAIN)),
            libc::SYS_ppoll
            | libc::SYS_epoll_create1
            | libc::SYS_epoll_ctl
            | libc::SYS_epoll_pwait => Some(Fault::Fails(refusal)),
            _ => None,
        });
        let mut command = unikernel(
            "hypercalls",
            &["--mem=4", "--sandbox=off"],
            &["puts-flood", "10"],
        );
        let output = inject(&mut command, fault);
        assert_eq!((output.code(), output.stdout.as_str()), (0, ""));
        // After EPERM it is unknown whether a message would block.
        assert!(
            refusal == libc::EPERM || output.stderr.contains("11 reader too slow"),
            "{output:#?}"
        );
    }
}

/// `tender`'s own output is not lost either.
fn help_waits_for_a_slow_reader() {
    let (mut reader, writer) = full_pipe(libc::O_NONBLOCK);
    let mut command = common::tender(["--help"]);
    let guest = Guest::spawn(command.stdout(writer));
    drop(command);
    std::thread::sleep(Duration::from_millis(100));
    let mut heard = String::new();
    reader.read_to_string(&mut heard).unwrap();
    guest.end().exits(0).is_quiet();
    let help = common::run(&mut common::tender(["--help"])).stdout;
    assert!(
        heard.trim_start_matches('.') == help,
        "something is missing"
    );
}

/// The guest waits for the reader; nothing is dropped. Other processes may set O_NONBLOCK on a
/// shared file.
fn a_slow_reader_gets_every_byte(flags: libc::c_int) {
    let (mut reader, writer) = full_pipe(flags);
    let mut piece = [0; 997];
    let mut guest = Guest::spawn(flood("2000").stdout(writer));
    let mut heard = Vec::new();
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        heard.extend_from_slice(&piece[..count]);
        std::thread::sleep(Duration::from_millis(5));
    }
    while guest.is_running() {
        std::thread::sleep(Duration::from_millis(5));
    }
    guest.end().exits(0).is_quiet();
    let heard = String::from_utf8(heard).unwrap();
    assert!(
        heard.trim_start_matches('.') == flooded(2000),
        "something is missing"
    );
}

fn short_and_interrupted_writes_are_completed() {
    let mut count = 0;
    let fault = once_running(|call: &Call| {
        let write = call.number == libc::SYS_write && call.arguments[0] == 1;
        count += usize::from(write);
        match count % 3 {
            _ if !write => None,
            0 => Some(Fault::Fails(libc::EINTR)),
            1 => Some(Fault::Short(3)),
            _ => None,
        }
    });
    let output = inject(&mut flood("20"), fault);
    output.exits(0).is_quiet();
    assert_eq!(output.stdout, flooded(20));
    // A failure is reported here as elsewhere.
    let is_output = |call: &Call| call.number == libc::SYS_write && call.arguments[0] == 1;
    let output = inject(
        &mut flood("5"),
        once_running(first(2, Fault::Fails(libc::EIO), is_output)),
    );
    output.exits(0).prints("flood 4\n");
    logs_only(
        &output,
        &[
            &["Input/output error", "output is dropped"],
            &["dropped, failed 2 (2 for other reasons)"],
        ],
    );
}

/// Makes the command start without standard streams.
fn without_streams(command: &mut Command) -> &mut Command {
    // SAFETY: close is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            (0..3).for_each(|fd| _ = libc::close(fd));
            Ok(())
        })
    }
}

/// Starts it without standard streams, and returns the targets of those descriptors once its vCPU
/// exists.
fn streams_of(mut command: Command) -> Vec<String> {
    let mut tender = spawn(without_streams(&mut command)).unwrap();
    let place = format!("/proc/{}/fd", tender.id());
    let target = |fd: &Path| {
        fs::read_link(fd).map_or(String::new(), |target| common::text(&target).to_owned())
    };
    let is_vcpu =
        |entry: std::io::Result<fs::DirEntry>| target(&entry.unwrap().path()).contains("kvm-vcpu");
    wait_until(&mut tender, |_| {
        fs::read_dir(&place).unwrap().any(is_vcpu).then_some(())
    });
    let streams = (0..3)
        .map(|fd| target(&Path::new(&place).join(fd.to_string())))
        .collect();
    tender.kill().unwrap();
    tender.wait().unwrap();
    streams
}

/// The guest's output would go to whichever file is opened first: its image, /dev/kvm or a disk.
fn closed_streams_lead_nowhere() {
    let streams = streams_of(unikernel("hypercalls", &["--mem=4"], &["poll-forever"]));
    assert_eq!(streams, ["/dev/null"; 3]);
    let (open, closed) = (Image::new(), Image::new());
    common::run(&mut open.block(&["fill"])).exits(0);
    let mut tender = spawn(without_streams(&mut closed.block(&["fill"]))).unwrap();
    assert_eq!(end_of(&mut tender).code(), Some(0));
    assert!(
        fs::read(open.path()).unwrap() == fs::read(closed.path()).unwrap(),
        "the disk is not what it should be"
    );
}

/// In a container there may be no /dev/null; a directory that can be neither read nor written takes
/// its place.
fn closed_streams_without_dev_null() {
    let directory = common::directory();
    let mut command = unikernel("hypercalls", &["--mem=4"], &["poll-forever"]);
    with_devices(&mut command, directory.path(), &[Device::Ours("kvm")]);
    assert_eq!(streams_of(command), ["/"; 3]);
}

/// Waits for `done`; after the time limit, kills `tender` and fails.
fn wait_until<T>(tender: &mut Child, mut done: impl FnMut(&mut Child) -> Option<T>) -> T {
    let deadline = Instant::now() + common::LIMIT;
    loop {
        if let Some(done) = done(tender) {
            return done;
        }
        if Instant::now() > deadline {
            tender.kill().unwrap();
            tender.wait().unwrap();
            panic!("the tender waits for something");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end_of(tender: &mut Child) -> ExitStatus {
    wait_until(tender, |tender| tender.try_wait().unwrap())
}

/// Starts it with a full standard error. Only `tender` has the write end of the returned pipe.
fn with_full_stderr(mut command: Command, stdout: &Path) -> (Child, File) {
    let (reader, writer) = common::full_pipe();
    command
        .stdin(Stdio::null())
        .stdout(File::create(stdout).unwrap())
        .stderr(writer);
    (spawn(&mut command).unwrap(), reader)
}

/// Returns the remaining bytes of a pipe whose other end is closed, without the filling.
fn rest(mut reader: File) -> String {
    let mut heard = String::new();
    reader.read_to_string(&mut heard).unwrap();
    heard.trim_start_matches('.').to_owned()
}

fn unread_messages() {
    let tap = Tap::down("tap0");
    let directory = common::directory();
    let stdout = directory.path().join("stdout");
    let command = unikernel("net", &["--mem=4", &format!("--net=@{FD}")], &["flood=300"]);
    let (mut tender, reader) = with_full_stderr(pass_fd(command, tap.attach()), &stdout);
    assert_eq!(end_of(&mut tender).code(), Some(0));
    let printed = fs::read_to_string(&stdout).unwrap();
    assert!(printed.contains("300 frames of 60 bytes sent"), "{printed}");
    assert_eq!(rest(reader), "");
}

fn an_unread_error() {
    let directory = common::directory();
    let command = unikernel("hello", &["--mem=0"], &[]);
    let (mut tender, reader) = with_full_stderr(command, &directory.path().join("stdout"));
    assert_eq!(end_of(&mut tender).code(), Some(1));
    assert_eq!(rest(reader), "");
}

/// There are two warnings without a reader. Then a reader gets their number, before the totals.
fn unread_messages_are_counted() {
    let tap = Tap::down("tap0");
    let directory = common::directory();
    let stdout = directory.path().join("stdout");
    let command = unikernel(
        "net",
        &["--mem=4", &format!("--net=@{FD}")],
        &["--ipv4=10.0.0.2/24"],
    );
    let (mut tender, mut reader) = with_full_stderr(pass_fd(command, tap.attach()), &stdout);
    wait_until(&mut tender, |_| {
        fs::read_to_string(&stdout)
            .unwrap()
            .ends_with("net: ready\n")
            .then_some(())
    });
    // Makes room, then ends the run.
    let mut heard = vec![0; 1 << 20];
    let length = reader.read(&mut heard).unwrap();
    assert!(
        heard[..length].iter().all(|&byte| byte == b'.'),
        "nothing else had room"
    );
    let listener = std::thread::spawn(move || rest(reader));
    // SAFETY: kill takes numbers; the child was not waited for, so the process id is its own.
    assert_eq!(unsafe { libc::kill(tender.id() as i32, libc::SIGTERM) }, 0);
    end_of(&mut tender);
    let heard = listener.join().unwrap();
    let mut lines = heard.lines();
    assert_eq!(
        lines.next(),
        Some("tender: warn: 2 messages dropped: standard error was not read"),
        "{heard}"
    );
    // There is room for one line at a time, and a message waits at most a second.
    assert!(
        lines
            .next()
            .is_none_or(|line| line.starts_with("tender: warn: tap0: sent 0 frames")),
        "{heard}"
    );
}
