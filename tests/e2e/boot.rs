//! A unikernel boots, gets its command line and exactly the requested memory, and its exit status
//! becomes `tender`'s.

use libtest_mimic::Trial;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::common::Need::Kvm;
use crate::common::{self, Guest, run, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(hello_prints_its_command_line, Kvm),
        trial!(every_argument_after_the_unikernel_is_the_guests, Kvm),
        trial!(arguments_need_not_be_utf8, Kvm),
        trial!(the_longest_command_line_arrives_whole, Kvm),
        trial!(the_guests_exit_status_is_the_tenders, Kvm),
        trial!(a_guest_that_aborts_ends_with_255, Kvm),
        trial!(memory_is_exactly_what_was_asked_for, Kvm),
        trial!(memory_is_rounded_down_with_a_notice, Kvm),
        trial!(paths_may_hold_anything, Kvm),
        trial!(lost_output_does_not_affect_the_guest, Kvm),
        trial!(standard_streams_may_be_closed, Kvm),
        trial!(verbosity_never_touches_the_guests_output, Kvm),
        trial("floating_point_works")
            .needs(&[Kvm])
            .try_run(floating_point_works),
    ]
}

fn hello_prints_its_command_line() {
    let output = run(&mut unikernel("hello", &[], &["Hello,", "world"]));
    output.exits(0).is_quiet();
    assert_eq!(
        output.stdout,
        "hello: Hello, world\nmemory: 536870912 bytes\n"
    );
    assert!(
        run(&mut unikernel("hello", &[], &[]))
            .stdout
            .starts_with("hello: \n")
    );
}

fn every_argument_after_the_unikernel_is_the_guests() {
    let arguments = [
        "--mem=1",
        "--help",
        "--",
        "-v",
        "--net:service=tap0",
        "a  b",
        "",
        "--ipv4=10.0.0.2/24",
    ];
    let expected = "hello: --mem=1 --help -- -v --net:service=tap0 a  b  --ipv4=10.0.0.2/24\n";
    run(&mut unikernel("hello", &["--mem=2"], &arguments))
        .exits(0)
        .is_quiet()
        .prints(expected);
    // The same without a `--` before the unikernel, and with a value as a separate argument.
    let mut command = common::tender(["--mem", "4"]);
    let output = run(command.arg(common::fixture("hello")).args(arguments));
    output
        .exits(0)
        .is_quiet()
        .prints(expected)
        .prints("memory: 4194304 bytes");
}

fn arguments_need_not_be_utf8() {
    let mut command = unikernel("hello", &["--mem=2"], &[]);
    let mut output = tempfile::tempfile().unwrap();
    command
        .arg(OsString::from_vec(b"\xff\xc3\x01\t".into()))
        .stdout(output.try_clone().unwrap());
    Guest::spawn(&mut command).end().exits(0);
    let mut bytes = Vec::new();
    // `tender` has moved the file position, which we share.
    std::io::Seek::rewind(&mut output).unwrap();
    output.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"hello: \xff\xc3\x01\t\nmemory: 2097152 bytes\n");
}

fn the_longest_command_line_arrives_whole() {
    let word = "0123456789abcde ".repeat(512);
    let longest = &word[..8191];
    run(&mut unikernel("hello", &["--mem=2"], &[longest]))
        .exits(0)
        .prints(&format!("hello: {longest}\n"));
}

fn the_guests_exit_status_is_the_tenders() {
    for status in [0, 1, 7, 254] {
        run(&mut unikernel(
            "hello",
            &["--mem=2"],
            &[&format!("exit={status}")],
        ))
        .exits(status)
        .is_quiet();
    }
}

fn a_guest_that_aborts_ends_with_255() {
    for (fixture, argument) in [("abort", ""), ("hello", "exit=255")] {
        run(&mut unikernel(fixture, &["--mem=2"], &[argument])).aborts();
        run(&mut unikernel(fixture, &["--mem=2", "-q"], &[argument]))
            .exits(255)
            .is_quiet();
    }
    run(&mut unikernel("abort", &["--mem=2"], &[]))
        .exits(255)
        .prints("panic: this unikernel aborts");
}

fn memory_is_exactly_what_was_asked_for() {
    let sizes = [
        ("2", 2 << 20),
        ("64M", 64 << 20),
        ("6MiB", 6 << 20),
        ("4096K", 4 << 20),
        ("1G", 1 << 30),
        ("4GiB", 4u64 << 30),
    ];
    for (size, bytes) in sizes {
        let output = run(&mut unikernel("hello", &[&format!("--mem={size}")], &[]));
        output
            .exits(0)
            .is_quiet()
            .prints(&format!("memory: {bytes} bytes\n"));
    }
}

fn memory_is_rounded_down_with_a_notice() {
    let output = run(&mut unikernel("hello", &["--mem=5"], &[]));
    output
        .exits(0)
        .prints("memory: 4194304 bytes\n")
        .complains("4 MiB")
        .complains("--mem");
    run(&mut unikernel("hello", &["-q", "--mem=5"], &[]))
        .exits(0)
        .prints("memory: 4194304 bytes\n")
        .is_quiet();
}

fn paths_may_hold_anything() {
    let directory = common::directory();
    for name in [
        OsStr::new("a b,c=d.hvt"),
        OsStr::new("-"),
        OsStr::from_bytes(b"\xff\xfe.hvt"),
    ] {
        std::fs::copy(common::fixture("hello"), directory.path().join(name)).unwrap();
        let mut command = common::tender(["--mem=2"]);
        let output = run(command.current_dir(directory.path()).arg(name).arg("here"));
        output.exits(0).is_quiet().prints("hello: here\n");
    }
}

fn lost_output_does_not_affect_the_guest() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Guest::spawn(unikernel("hello", &["--mem=2"], &["exit=3"]).stdout(full)).end();
    output
        .exits(3)
        .complains("console")
        .complains("(4 disk full)");
    assert_eq!(
        output.stderr.lines().count(),
        2,
        "one warning and one sum, however many lines: {output:?}"
    );

    let (reader, writer) = common::pipe();
    drop(reader);
    Guest::spawn(unikernel("hello", &["--mem=2"], &["exit=4"]).stdout(writer))
        .end()
        .exits(4);
}

fn standard_streams_may_be_closed() {
    let mut command = unikernel("hello", &["--mem=2"], &["exit=5"]);
    // SAFETY: close is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            (0..3).for_each(|fd| _ = libc::close(fd));
            Ok(())
        });
    }
    Guest::spawn(command.stdout(Stdio::null())).end().exits(5);
}

fn verbosity_never_touches_the_guests_output() {
    for option in ["-q", "-v", "-vv", "-vvv"] {
        let output = run(&mut unikernel("hello", &[option, "--mem=2"], &["x"]));
        output.exits(0);
        assert_eq!(
            output.stdout, "hello: x\nmemory: 2097152 bytes\n",
            "{option}"
        );
    }
}

fn floating_point_works() -> Result<(), String> {
    let output = run(&mut unikernel("fpu", &["--mem=2"], &[]));
    if output.stderr.contains("internal error: suberror 1") {
        return Err("this machine's KVM knows no floating point".into());
    }
    output.exits(0).prints("fpu: ok");
    Ok(())
}
