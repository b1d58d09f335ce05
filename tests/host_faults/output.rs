//! Nobody listens: standard streams that are closed, full or slow.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::common::inject::{Fault, first, inject, once_running};
use crate::common::net::Tap;
use crate::common::trace::Call;
use crate::common::{self, Device, FD, Guest, Output, hand_over, kvm_test, net_test, test, unikernel, with_devices};
use crate::{Image, says_only};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("output::a_reader_that_has_gone_costs_the_guest_nothing", a_reader_that_has_gone),
        kvm_test("output::a_full_disk_for_the_output_costs_the_guest_nothing", a_full_disk_for_the_output),
        kvm_test("output::a_reader_that_does_not_wait_loses_what_it_is_told", a_descriptor_that_does_not_wait),
        kvm_test("output::a_slow_reader_gets_every_byte", a_slow_reader_gets_every_byte),
        kvm_test("output::short_and_interrupted_writes_are_completed", short_and_interrupted_writes_are_completed),
        kvm_test("output::closed_streams_do_not_become_the_disk", closed_streams_do_not_become_the_disk),
        net_test("output::closed_streams_without_dev_null", closed_streams_without_dev_null),
        net_test("output::messages_nobody_reads_do_not_hold_up_the_guest", messages_nobody_reads),
        net_test("output::what_nobody_read_is_counted", what_nobody_read_is_counted),
        test("output::a_refusal_nobody_reads_is_over_all_the_same", a_refusal_nobody_reads),
    ]
}

fn flood(count: &str) -> Command {
    unikernel("hypercalls", &["--mem=4"], &["puts-flood", count])
}

/// What `flood` prints.
fn flooded(count: u32) -> String {
    let lines: String = (0..count).map(|i| format!("flood {i}\n")).collect();
    format!("hypercalls: puts-flood\n{lines}")
}

fn a_reader_that_has_gone() {
    let (reader, writer) = common::pipe();
    drop(reader);
    let output = Guest::spawn(flood("100").stdout(writer)).end();
    output.exits(0);
    let dropped = format!("console: 0 bytes written, {} dropped, failed 101 (101 reader gone)", flooded(100).len());
    says_only(&output, &[&["console: cannot write to standard output: Broken pipe"], &[&dropped]]);
}

fn a_full_disk_for_the_output() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Guest::spawn(flood("10").stdout(full)).end();
    output.exits(0);
    says_only(&output, &[&["No space left"], &["console: 0 bytes written, ", "11 disk full"]]);
}

fn a_descriptor_that_does_not_wait() {
    use std::os::fd::AsRawFd;
    let (_reader, writer) = common::full_pipe();
    // SAFETY: the request takes a number.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    let output = Guest::spawn(flood("10").stdout(writer)).end();
    output.exits(0);
    says_only(&output, &[&["Resource temporarily unavailable"], &["console: 0 bytes written", "11 reader too slow"]]);
}

/// The guest waits for it; nothing is dropped.
fn a_slow_reader_gets_every_byte() {
    let (mut reader, writer) = common::full_pipe();
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
    assert!(heard.trim_start_matches('.') == flooded(2000), "something is missing");
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
    // A failure is told here as elsewhere.
    let is_output = |call: &Call| call.number == libc::SYS_write && call.arguments[0] == 1;
    let output = inject(&mut flood("5"), once_running(first(2, Fault::Fails(libc::EIO), is_output)));
    output.exits(0).says("flood 4\n");
    says_only(&output, &[&["Input/output error", "output is dropped"], &["dropped, failed 2 (2 for other reasons)"]]);
}

/// Has the command start without standard streams.
fn without_streams(command: &mut Command) -> &mut Command {
    // SAFETY: close is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            (0..3).for_each(|fd| _ = libc::close(fd));
            Ok(())
        })
    }
}

/// Waits for it and takes its status only: it has nobody to talk to.
fn status(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let output = command.output().unwrap();
    Output { status: output.status, stdout: String::new(), stderr: String::new() }
}

/// What the guest prints would land in its image, were that the first file to be opened.
fn closed_streams_do_not_become_the_disk() {
    let (open, closed) = (Image::new(), Image::new());
    common::run(&mut open.block(&["fill"])).exits(0);
    status(without_streams(&mut closed.block(&["fill"]))).exits(0);
    assert!(fs::read(open.path()).unwrap() == fs::read(closed.path()).unwrap(), "the disk is not what it should be");
}

/// In a container there may be no such device.
fn closed_streams_without_dev_null() {
    let (open, closed) = (Image::new(), Image::new());
    common::run(&mut open.block(&["fill"])).exits(0);
    let directory = common::directory();
    let mut command = closed.block(&["fill"]);
    with_devices(&mut command, directory.path(), &[Device::Ours("kvm")]);
    status(without_streams(&mut command)).exits(0);
    assert!(fs::read(open.path()).unwrap() == fs::read(closed.path()).unwrap(), "the disk is not what it should be");
}

/// Starts it with a standard error that is full, and waits for its end: it must not wait for a reader.
fn status_with_full_stderr(command: &mut Command, stdout: &Path, said: impl FnOnce(&str)) -> Option<i32> {
    let (mut reader, writer) = common::full_pipe();
    let mut child = command.stdin(Stdio::null()).stdout(File::create(stdout).unwrap()).stderr(writer).spawn().unwrap();
    // Ours is with the command still.
    command.stderr(Stdio::null());
    let deadline = Instant::now() + common::LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it waits for a reader; the guest said {:?}", fs::read_to_string(stdout));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut heard = String::new();
    reader.read_to_string(&mut heard).unwrap();
    said(heard.trim_start_matches('.'));
    status.code()
}

fn messages_nobody_reads() {
    let tap = Tap::down("tap0");
    let directory = common::directory();
    let stdout = directory.path().join("stdout");
    let command = unikernel("net", &["--mem=4", &format!("--net=@{FD}")], &["flood=300"]);
    let mut command = hand_over(command, tap.attach());
    let status = status_with_full_stderr(&mut command, &stdout, |heard| assert_eq!(heard, ""));
    let said = fs::read_to_string(&stdout).unwrap();
    assert!(said.contains("300 frames of 60 bytes sent"), "{said}");
    assert_eq!(status, Some(0));
}

fn a_refusal_nobody_reads() {
    let directory = common::directory();
    let stdout = directory.path().join("stdout");
    let mut command = unikernel("hello", &["--mem=0"], &[]);
    assert_eq!(status_with_full_stderr(&mut command, &stdout, |heard| assert_eq!(heard, "")), Some(1));
}

/// Two warnings while nobody reads; then somebody does, and hears of them in number, before the summary.
fn what_nobody_read_is_counted() {
    let tap = Tap::down("tap0");
    let (mut reader, writer) = common::full_pipe();
    let option = format!("--net=@{FD}");
    let command = unikernel("net", &["--mem=4", &option], &["--ipv4=10.0.0.2/24"]);
    let mut child = hand_over(command, tap.attach());
    let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer);
    let mut tender = child.spawn().unwrap();
    child.stderr(Stdio::null());
    let mut line = String::new();
    let mut stdout = BufReader::new(tender.stdout.take().unwrap());
    while line != "net: ready\n" {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    // Makes room, then ends the run.
    let mut heard = vec![0; 1 << 20];
    let length = reader.read(&mut heard).unwrap();
    assert!(heard[..length].iter().all(|&byte| byte == b'.'), "nothing else had room");
    // SAFETY: kill takes numbers; the child was not waited for, so the process id is its own.
    assert_eq!(unsafe { libc::kill(tender.id() as i32, libc::SIGTERM) }, 0);
    let mut heard = String::new();
    reader.read_to_string(&mut heard).unwrap();
    tender.wait().unwrap();
    let wanted = "tender: warn: 2 messages were left out, as nobody read them\ntender: warn: tap0: sent 0 frames";
    assert!(heard.starts_with(wanted), "{heard}");
}
