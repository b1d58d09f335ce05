//! Invalid input: one line on stderr that names the problem, status 1, and the guest does not run.

use libtest_mimic::Trial;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::common::Need::Kvm;
use crate::common::{self, fixture, run, tender, text, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<_> = REFUSED
        .iter()
        .map(|(args, parts)| {
            trial(&format!("refused::{}", args.join(" "))).run(move || is_refused(args, parts))
        })
        .collect();
    tests.extend([
        trial!(help_and_version_exit_with_0),
        trial!(a_mistyped_path_has_a_suggestion),
        trial!(the_version_can_be_json),
        trial!(arguments_that_are_no_text_are_refused),
        trial!(a_command_line_has_its_limit),
        trial!(every_declared_device_must_be_attached),
        trial!(only_declared_devices_can_be_attached),
        trial!(short_forms_mean_the_only_device),
        trial!(a_refusal_changes_nothing, Kvm),
        trial!(an_error_is_one_line_for_any_path, Kvm),
        trial!(a_malformed_rust_log_is_reported, Kvm),
        trial!(rust_log_selects_the_messages, Kvm),
        trial!(each_v_logs_more, Kvm),
    ]);
    tests
}

/// Arguments before a unikernel that are refused for any unikernel, and what the error names.
const REFUSED: &[(&[&str], &[&str])] = &[
    (
        &["--json", "x.hvt"],
        &["--json", "--check", "--log-format=json"],
    ),
    (&["--name=", "x.hvt"], &["--name=", "1 to 64"]),
    (&["--name=a\tb", "x.hvt"], &["--name=a\\tb", "printable"]),
    (&["--name= a", "x.hvt"], &["--name= a", "space"]),
    (
        &["--name=a", "--name=b", "x.hvt"],
        &["--name", "given twice"],
    ),
    (&[], &["no unikernel", "--help"]),
    (&["--"], &["no unikernel"]),
    (&["--mem=64"], &["no unikernel"]),
    (&[""], &["the unikernel's path is empty"]),
    (&["", "x.hvt"], &["the unikernel's path is empty"]),
    (
        &["--ipv4=10.0.0.2/24", "x.hvt"],
        &[
            "unknown option '--ipv4'",
            "those of the guest follow the unikernel",
        ],
    ),
    (
        &["--", "--ipv4=10.0.0.2/24", "x.hvt"],
        &[
            "--ipv4=10.0.0.2/24: cannot be opened",
            "options of the guest follow the unikernel",
        ],
    ),
    (
        &["run", "x.hvt"],
        &["there is no command 'run'; write 'tender UNIKERNEL'"],
    ),
    (
        &["help"],
        &["there is no command 'help'; write 'tender --help'"],
    ),
    (
        &["version"],
        &["there is no command 'version'; write 'tender --version'"],
    ),
    (
        &["check", "x.hvt"],
        &["there is no command 'check'; write 'tender --check UNIKERNEL'"],
    ),
    (
        &["inspec", "x.hvt"],
        &["there is no command 'inspec'; write 'tender inspect UNIKERNEL'"],
    ),
    (
        &["inspect", "--jsno", "x.hvt"],
        &["unknown option '--jsno'; 'tender inspect --help' lists them"],
    ),
    (
        &["--cpus=2", "x.hvt"],
        &["unknown option '--cpus'; a guest has one vCPU"],
    ),
    (
        &["--mem=67108864", "x.hvt"],
        &["--mem=67108864", "did you mean 64M?"],
    ),
    (
        &["--timeout=5d", "x.hvt"],
        &["--timeout=5d: not a time", "5m"],
    ),
    (
        &["--mem", "x.hvt"],
        &["no unikernel", "'--mem' took 'x.hvt'", "--mem=SIZE"],
    ),
    (
        &["--net:a", "x.hvt", "-v"],
        &[
            "no unikernel",
            "'--net:a' took 'x.hvt'",
            "--net:a=IFACE|@FD",
        ],
    ),
    (&["--frobnicate", "x.hvt"], &["--frobnicate", "--help"]),
    (&["--memory=64", "x.hvt"], &["--memory"]),
    (&["-x", "x.hvt"], &["-x"]),
    (&["--dumpcore"], &["--dumpcore", "value"]),
    (&["--dumpcore=", "x.hvt"], &["--dumpcore", "empty"]),
    (&["--mem:a=64", "x.hvt"], &["--mem:a"]),
    (&["--disk:a=/x", "x.hvt"], &["--disk:a"]),
    (&["--help=yes", "x.hvt"], &["--help"]),
    (&["--mem", "--", "x.hvt"], &["--mem", "value"]),
    (&["--net"], &["--net", "value"]),
    (&["--mem=", "x.hvt"], &["--mem", "64M"]),
    (&["--mem=lots", "x.hvt"], &["--mem=lots"]),
    (&["--mem=64 B", "x.hvt"], &["--mem=64 B"]),
    (&["--mem=-64", "x.hvt"], &["--mem=-64"]),
    (&["--mem=6.4", "x.hvt"], &["--mem=6.4"]),
    (&["--mem=0", "x.hvt"], &["--mem=0", "2M to 4G"]),
    (&["--mem=1", "x.hvt"], &["--mem=1", "2M to 4G"]),
    (&["--mem=2047K", "x.hvt"], &["--mem=2047K", "2M to 4G"]),
    (&["--mem=4097", "x.hvt"], &["--mem=4097", "2M to 4G"]),
    (&["--mem=5G", "x.hvt"], &["--mem=5G", "2M to 4G"]),
    (&["--mem=99999999999999999999G", "x.hvt"], &["2M to 4G"]),
    (&["--mem=64", "--mem=64", "x.hvt"], &["--mem", "twice"]),
    (
        &["--engine=qemu", "x.hvt"],
        &["--engine=qemu", "kvm, process or auto"],
    ),
    (
        &["--huge-pages=yes", "x.hvt"],
        &["--huge-pages=yes", "auto, on or off"],
    ),
    (&["--net=a", "--net=b", "x.hvt"], &["--net", "twice"]),
    (&["--net:a=x", "--net:a=y", "x.hvt"], &["--net:a", "twice"]),
    (
        &["--net:a=t0", "--net:b=t0", "x.hvt"],
        &["--net:b=t0", "t0"],
    ),
    (&["--net:a=@7", "--net:b=@7", "x.hvt"], &["--net:b=@7"]),
    (
        &["--block=/a", "--disk=/b", "x.hvt"],
        &["--block", "--disk"],
    ),
    (
        &["--block:a=/a", "--block:a=/b", "x.hvt"],
        &["--block:a", "twice"],
    ),
    (&["--net:=tap0", "x.hvt"], &["--net:"]),
    (&["--net:a-b=tap0", "x.hvt"], &["a-b"]),
    (&["--net=", "x.hvt"], &["--net="]),
    (
        &["--net=a-name-far-too-long", "x.hvt"],
        &["a-name-far-too-long", "15"],
    ),
    (&["--net=@", "x.hvt"], &["--net=@"]),
    (&["--net=@a:b", "x.hvt"], &["--net=@a:b"]),
    (&["--block=@", "x.hvt"], &["--block=@"]),
    (
        &["--net-mac=02:00:00:00:00", "x.hvt"],
        &["--net-mac=02:00:00:00:00"],
    ),
    (
        &["--net-mac=02-00-00-00-00-01", "x.hvt"],
        &["02-00-00-00-00-01"],
    ),
    (&["--net-mac=01:00:5e:00:00:01", "x.hvt"], &["multicast"]),
    (
        &["--net-mac=00:00:00:00:00:00", "x.hvt"],
        &["00:00:00:00:00:00"],
    ),
    (&["--block=", "x.hvt"], &["--block="]),
    (
        &["--block-sector-size:a=1000", "x.hvt"],
        &["--block-sector-size:a=1000", "512"],
    ),
    (&["--block-sector-size:a=256", "x.hvt"], &["256", "512"]),
    (&["--block-sector-size:a=65536", "x.hvt"], &["65536"]),
    (&["-v", "-q", "x.hvt"], &["-v", "-q"]),
    (
        &["--sandbox=none", "x.hvt"],
        &["--sandbox=none", "best-effort"],
    ),
    (
        &["--sandbox=off", "--sandbox=off", "x.hvt"],
        &["--sandbox", "twice"],
    ),
    (&["--user=:kvm", "x.hvt"], &["--user=:kvm", "nobody:kvm"]),
    (&["--user=a", "--user=b", "x.hvt"], &["--user", "twice"]),
    (&["--chroot=", "x.hvt"], &["--chroot=", "empty"]),
];

fn is_refused(args: &[&str], parts: &[&str]) {
    run(&mut tender(args)).is_refused(parts);
}

fn help_and_version_exit_with_0() {
    for args in [["--help"], ["-h"]] {
        let output = run(&mut tender(args));
        output.exits(0).is_quiet();
        for option in [
            "--mem",
            "--net:NAME",
            "--net-mac",
            "--block:NAME",
            "--block-sector-size",
            "--version",
            "tender [",
            "inspect",
        ] {
            output.prints(option);
        }
    }
    for args in [["--version"], ["-V"]] {
        let output = run(&mut tender(args));
        output.exits(0).prints(&format!(
            "tender {}\nABI version 2\nABI version 1\n",
            env!("CARGO_PKG_VERSION")
        ));
        output.prints("none (Solo5 0.3 to 0.4), 1 (Solo5 0.6 to 0.7), 2 (Solo5 0.8 and later)\n");
        // On stdout and in the lines that other programs expect of upstream's tenders.
        let upstream = format!(
            "tender, version v{}\nABI version 2\nABI version 1\n",
            env!("CARGO_PKG_VERSION")
        );
        assert!(output.stderr == upstream, "{output:#?}");
    }
    // They take precedence over all other options.
    run(&mut tender(["--mem=64", "--version", "no-such.hvt"])).exits(0);
    run(&mut tender(["--mem=64", "--help", "no-such.hvt"]))
        .exits(0)
        .is_quiet();
}

fn a_mistyped_path_has_a_suggestion() {
    let hello = fixture("hello");
    let suggestion = format!("did you mean '{}'?", text(&hello));
    let mistyped = hello.with_file_name("helo.hvt");
    run(tender(["--mem=2"]).arg(&mistyped)).is_refused(&["helo.hvt", "No such file", &suggestion]);
    run(tender(["inspect"]).arg(&mistyped)).is_refused(&["helo.hvt", &suggestion]);
    // By a name without a directory.
    run(tender(["helo.hvt"]).current_dir(hello.parent().unwrap()))
        .is_refused(&["did you mean 'hello.hvt'?"]);
}

fn arguments_that_are_no_text_are_refused() {
    for word in [
        &b"--mem=\xff"[..],
        b"--\xff",
        b"--net=\xff",
        b"--net:\xff=tap0",
    ] {
        run(tender([OsStr::from_bytes(word)]).arg("x.hvt")).is_refused(&[]);
    }
}

fn a_command_line_has_its_limit() {
    let word = "x".repeat(4096);
    run(&mut unikernel("hello", &["--mem=2"], &[&word, &word, ""])).is_refused(&["8194", "8191"]);
    run(&mut unikernel("hello", &["--mem=2"], &[&word, &word[1..]])).is_refused(&["8192", "8191"]);
    run(&mut unikernel("hello", &["--mem=2"], &[&word.repeat(8)])).is_refused(&["32768", "8191"]);
}

fn every_declared_device_must_be_attached() {
    let nothing: &[&str] = &[];
    run(&mut unikernel("net", nothing, &[])).is_refused(&[
        "net.hvt",
        "'service'",
        "NET_BASIC",
        "--net:service=",
    ]);
    run(&mut unikernel("block", nothing, &[])).is_refused(&[
        "'storage'",
        "BLOCK_BASIC",
        "--block:storage=",
    ]);
    run(&mut unikernel("net", &["--net-mac=02:00:00:00:00:01"], &[])).is_refused(&["'service'"]);
    run(&mut unikernel("block", &["--block-sector-size=512"], &[])).is_refused(&["'storage'"]);
    run(&mut unikernel("net2", &["--net:service0=tap0"], &[])).is_refused(&["'service1'"]);
}

fn only_declared_devices_can_be_attached() {
    run(&mut unikernel("hello", &["--net:eth0=tap0"], &[])).is_refused(&["'eth0'", "no devices"]);
    run(&mut unikernel("hello", &["--block=/x"], &[])).is_refused(&["--block", "no devices"]);
    run(&mut unikernel(
        "hello",
        &["--net-mac=02:00:00:00:00:01"],
        &[],
    ))
    .is_refused(&["no devices"]);
    run(&mut unikernel("net", &["--net:services=tap0"], &[]))
        .is_refused(&["'services'", "service (NET_BASIC)"]);
    // A network device is not a block device of that name.
    run(&mut unikernel(
        "net",
        &["--net=tap0", "--block:service=/x"],
        &[],
    ))
    .is_refused(&["'service'", "BLOCK_BASIC"]);
}

fn short_forms_mean_the_only_device() {
    let declared = "service0 (NET_BASIC), service1 (NET_BASIC)";
    run(&mut unikernel("net2", &["--net=tap0"], &[])).is_refused(&["--net", declared]);
    run(&mut unikernel("block2", &["--disk=/x"], &[]))
        .is_refused(&["a (BLOCK_BASIC), b (BLOCK_BASIC)"]);
    run(&mut unikernel(
        "net",
        &["--net=tap0", "--net:service=tap1"],
        &[],
    ))
    .is_refused(&["service"]);
    run(&mut unikernel(
        "block",
        &["--block=/x", "--block:storage=/y"],
        &[],
    ))
    .is_refused(&["storage"]);
}

/// Devices are checked first: a wrong command line makes and touches no image.
fn a_refusal_changes_nothing() {
    let directory = common::directory();
    let (there, missing) = (
        directory.path().join("there"),
        directory.path().join("missing"),
    );
    std::fs::write(&there, [7; 1000]).unwrap();
    for path in [&there, &missing] {
        run(&mut unikernel(
            "block",
            &[&format!("--block={}", text(path))],
            &[],
        ))
        .is_refused(&[text(path)]);
    }
    assert!(!missing.exists(), "an image was made");
    assert_eq!(std::fs::read(&there).unwrap(), [7; 1000]);
    run(tender(["--mem=2"]).arg(fixture("no-such"))).is_refused(&["no-such.hvt"]);
}

fn an_error_is_one_line_for_any_path() {
    run(&mut tender(["no\nsuch.hvt"])).is_refused(&["no\\nsuch.hvt"]);
    run(&mut unikernel("block", &["--block=/no\nsuch\x1b[31m"], &[]))
        .is_refused(&["/no\\nsuch\\u{1b}[31m"]);
}

fn a_malformed_rust_log_is_reported() {
    let mut command = unikernel("hello", &["--mem=2"], &[]);
    run(command.env("RUST_LOG", "a=b=c"))
        .exits(0)
        .complains("tender: warn: RUST_LOG is ignored: ");
    // It does no harm where the warning cannot be printed.
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(
        command
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap()
            .code(),
        Some(0)
    );
}

fn rust_log_selects_the_messages() {
    let mut command = unikernel("hello", &["--mem=5"], &[]);
    run(command.env("RUST_LOG", "error")).exits(0).is_quiet();
    run(command.env("RUST_LOG", "trace"))
        .exits(0)
        .complains("4 MiB");
    let output = run(command.env("RUST_LOG", "tender::setup=debug"));
    output.exits(0).complains("segment 0x100000..0x");
    assert!(!output.stderr.contains("sandbox: "), "{output:?}");
}

fn each_v_logs_more() {
    let logged = |option: &str| {
        run(&mut unikernel("hello", &[option, "--mem=2"], &[]))
            .exits(0)
            .stderr
            .clone()
    };
    let [v, vv, vvv] = ["-v", "-vv", "-vvv"].map(logged);
    let contain = |args: &str| [&v, &vv, &vvv].map(|logged| logged.contains(args));
    assert_eq!(contain("2 MiB of memory"), [true, true, true], "{vvv}");
    assert_eq!(
        contain("segment 0x100000..0x"),
        [false, true, true],
        "{vvv}"
    );
    assert_eq!(
        contain("page tables: 0x0..0x"),
        [false, false, true],
        "{vvv}"
    );
}

fn the_version_can_be_json() {
    let schema = serde_json::from_str(include_str!("../../docs/version.schema.json"))
        .expect("the schema is JSON");
    for args in [["--version", "--json"], ["--json", "-V"]] {
        let output = run(&mut tender(args));
        let text = &output.exits(0).is_quiet().stdout;
        let document: serde_json::Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        common::schema::check(&schema, &document);
        assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
        let abis: Vec<_> = document["eras"].as_array().unwrap().iter().collect();
        assert_eq!(
            (&abis[0]["abi"], &abis[2]["abi"]),
            (&().into(), &2.into()),
            "{text}"
        );
    }
}
