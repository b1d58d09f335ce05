//! `--config`: options from a file, and the errors of a wrong file.

use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::Need::Kvm;
use crate::common::{self, FD, fixture, pass_fd, run, tender, text};
use tender::cli;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_unikernel_runs_as_its_file_specifies, Kvm),
        trial!(the_command_line_wins, Kvm),
        trial!(the_address_option_uses_the_tap_of_the_file, Kvm),
        trial!(a_core_file_goes_where_the_file_specifies, Kvm),
        trial!(errors_have_a_position),
        trial!(all_errors_are_reported),
        trial!(devices_that_are_not_declared_have_a_position, Kvm),
        trial!(a_start_by_a_file_suggests_a_check, Kvm),
        trial!(errors_have_the_log_format_of_the_file),
        trial!(missing_paths_have_a_position),
        trial!(files_that_are_no_configuration_are_refused),
        trial!(the_example_is_valid),
        trial!(the_documented_file_is_valid),
    ]
}

/// A directory with the unikernel `name` and a file app.toml next to it.
fn directory(name: &str, config: &str) -> tempfile::TempDir {
    let directory = common::directory();
    fs::copy(fixture(name), directory.path().join("app.hvt")).unwrap();
    fs::write(directory.path().join("app.toml"), config).unwrap();
    directory
}

/// A `tender` with that file, started from / as by systemd.
fn configured(directory: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = tender(["--config", text(&directory.path().join("app.toml"))]);
    command.args(arguments).current_dir("/");
    command
}

fn a_unikernel_runs_as_its_file_specifies() {
    let directory = directory(
        "hello",
        "unikernel = 'app.hvt'\nargs = ['a', 'b c']\nmem = 4\n",
    );
    let output = run(&mut configured(&directory, &[]));
    output
        .exits(0)
        .is_quiet()
        .prints("memory: 4194304 bytes")
        .prints("a b c");
    run(configured(&directory, &["--check"]).env("LANG", "C"))
        .exits(0)
        .prints("ok       arguments  5 bytes of 8191\n");
    // From the file's directory, by a name without a directory.
    run(tender(["--config=app.toml"]).current_dir(directory.path()))
        .exits(0)
        .prints("a b c");
}

fn the_command_line_wins() {
    let directory = directory(
        "hello",
        "unikernel = 'app.hvt'\nargs = ['from', 'file']\nmem = 4\n",
    );
    let output = run(&mut configured(
        &directory,
        &["--mem=6", text(&fixture("hello")), "from", "line"],
    ));
    output
        .exits(0)
        .prints("memory: 6291456 bytes")
        .prints("from line");
    run(&mut configured(
        &directory,
        &["--", text(&fixture("hello"))],
    ))
    .exits(0)
    .prints("from file");
}

/// The tap from the file with its address from the command line; or another tap, by the short form.
fn the_address_option_uses_the_tap_of_the_file() {
    let directory = directory(
        "net",
        &format!("unikernel = 'app.hvt'\nargs = ['check']\n[net.service]\ntap = '@{FD}'\n"),
    );
    let mac = "--net-mac:service=02:00:00:00:00:07";
    let (_ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let output = run(&mut pass_fd(
        configured(&directory, &["--mem=4", "-v", mac]),
        theirs,
    ));
    output
        .exits(0)
        .complains("device 'service': @99, 02:00:00:00:00:07, MTU 1500");
    run(&mut configured(&directory, &["--net=tap9", mac]))
        .is_refused(&["'service'", "no interface 'tap9'"]);
}

/// Relative to the file's directory, as all paths.
fn a_core_file_goes_where_the_file_specifies() {
    let directory = directory(
        "abort",
        "unikernel = 'app.hvt'\nmem = 4\ndumpcore = 'cores'\n",
    );
    let cores = directory.path().join("cores");
    run(&mut configured(&directory, &[])).is_refused(&[
        "app.toml:3:12: 'dumpcore' is '",
        "/cores', which does not exist",
    ]);
    fs::create_dir(&cores).unwrap();
    run(&mut configured(&directory, &[])).exits(255);
    assert_eq!(fs::read_dir(cores).unwrap().count(), 1);
}

fn errors_have_a_position() {
    for (config, arguments) in [
        (
            "\nmme = 64",
            &["app.toml:2:1: unknown key 'mme'; did you mean 'mem'?"][..],
        ),
        (
            "mem = [64]",
            &["app.toml:1:7: 'mem' is a list", "whole number or a string"],
        ),
        (
            "mem = '64 MB'",
            &["app.toml:1:7: --mem=64 MB: not an amount of memory; write whole MiB"],
        ),
        (
            "[net.service]\nmac = '01:00:00:00:00:00'",
            &["app.toml:2:7: --net-mac:service=", "multicast"],
        ),
        ("mem = 64\nmem = 64", &["app.toml:2:1: not TOML: "]),
        (
            "unikernel = app.hvt",
            &["app.toml:1:13: not TOML; put strings in quotes: unikernel = \"app.hvt\"\n"],
        ),
        (
            "[net]\ntap = 'tap0'",
            &["app.toml:2:1: 'net.tap' names no device; write it in [net.NAME]"],
        ),
        (
            "",
            &["app.toml: no unikernel given", "unikernel = \"NAME.hvt\""],
        ),
    ] {
        let directory = directory("hello", config);
        for check in [&[][..], &["--check"]] {
            run(&mut configured(&directory, check)).is_refused(arguments);
        }
    }
}

fn all_errors_are_reported() {
    for (config, lines) in [
        (
            "unikernel = 'ap.hvt'\nmme = 64\nmem = 1",
            &["2:1: unknown key 'mme'", "3:7: --mem=1: too little memory"],
        ),
        (
            "unikernel = app.hvt\nnet = tap0",
            &["1:13: not TOML; ", "2:7: not TOML; "],
        ),
        (
            "unikernel = 'ap.hvt'\nchroot = 'none'",
            &["1:13: 'unikernel' is '", "2:10: 'chroot' is '"],
        ),
    ] {
        let directory = directory("hello", config);
        let file = directory.path().join("app.toml");
        let output = run(&mut configured(&directory, &[]));
        output.exits(1);
        let logged: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(logged.len(), lines.len(), "{output:#?}");
        for (line, expected) in logged.iter().zip(lines) {
            let expected = format!("tender: {}:{expected}", text(&file));
            assert!(line.starts_with(&expected), "{line}");
        }
    }
}

fn devices_that_are_not_declared_have_a_position() {
    let directory = directory(
        "net",
        "unikernel = 'app.hvt'\n[net.servic]\nmac = '02:00:00:00:00:01'\ntap = 'tap0'\n",
    );
    run(&mut configured(&directory, &[])).is_refused(&[
        "app.toml:2:6: there is no NET_BASIC device 'servic' in this unikernel; it declares service (NET_BASIC)",
    ]);
    run(&mut configured(&directory, &["--check"]))
        .exits(1)
        .prints("app.toml:2:6: there is no");
}

/// For an error in the file, an error in the command line, and a path that does not exist.
fn errors_have_the_log_format_of_the_file() {
    for (config, arguments) in [
        ("mme = 64", "app.toml:1:1: unknown key 'mme'"),
        ("chroot = 'none'", "app.toml:1:10: 'chroot' is "),
        ("mem = = 5", "app.toml:1:7: not TOML: "),
    ] {
        let directory = directory(
            "hello",
            &format!("{config}\nlog-format = 'json'\nunikernel = 'app.hvt'\n"),
        );
        let output = run(&mut configured(&directory, &[]));
        assert!(
            output
                .exits(1)
                .complains(arguments)
                .stderr
                .starts_with("{\"ts\""),
            "{output:?}"
        );
        let output = run(&mut configured(&directory, &["--log-format=journald"]));
        assert!(
            output
                .exits(1)
                .complains(arguments)
                .stderr
                .starts_with("<3>tender: "),
            "{output:?}"
        );
    }
    let directory = directory("hello", "log-format = 'journald'\n");
    let output = run(&mut configured(&directory, &["--mem=1", "app.hvt"]));
    assert!(
        output.exits(1).stderr.starts_with("<3>tender: --mem=1: "),
        "{output:?}"
    );
}

fn a_start_by_a_file_suggests_a_check() {
    let directory = directory("net", "unikernel = 'app.hvt'\n[net.servic]\ntap = 'tap0'");
    let hint = "it declares service (NET_BASIC); add --check to list every problem\n";
    run(&mut configured(&directory, &[])).is_refused(&[hint]);
    let unikernel = directory.path().join("app.hvt");
    let output = run(&mut tender(["--net:servic=tap0", text(&unikernel)]));
    output.is_refused(&["it declares service (NET_BASIC)\n"]);
}

fn missing_paths_have_a_position() {
    let refused = |config: &str, arguments: &[&str]| {
        run(&mut configured(&directory("block", config), &[])).is_refused(arguments)
    };
    refused(
        "\nunikernel = 'ap.hvt'",
        &[
            "app.toml:2:13: 'unikernel' is '",
            "/ap.hvt', which does not exist",
            "/app.hvt'?",
        ],
    );
    let disk = "unikernel = 'app.hvt'\n[block]\nstorage = 'disk.img'";
    refused(
        disk,
        &[
            "app.toml:3:11: 'block.storage' is '",
            "/disk.img', which does not exist\n",
        ],
    );
    refused(
        "unikernel = 'app.hvt'\nchroot = '/no/such/place'",
        &["app.toml:2:10: 'chroot' is '/no/such/place'"],
    );
    refused(
        "unikernel = 'app.hvt'\nstats = '/no/such/place.json'",
        &["app.toml:2:9: 'stats' is '/no/such/place.json', whose directory does not exist"],
    );
    refused(
        "unikernel = 'app.hvt'\nmetrics = 'unix:nowhere/m.sock'",
        &[
            "app.toml:2:11: 'metrics' is '",
            "/nowhere/m.sock', whose directory does not exist",
        ],
    );
    // A check reports all of them.
    let output = run(&mut configured(&directory("block", disk), &["--check"]));
    output
        .exits(1)
        .prints("missing  block:storage  there is no file '");
}

fn files_that_are_no_configuration_are_refused() {
    let directory = common::directory();
    let refused = |path: &Path, arguments: &[&str]| {
        run(&mut tender(["--config", text(path), "x.hvt"])).is_refused(arguments)
    };
    refused(
        &directory.path().join("missing"),
        &[
            "cannot read configuration file '",
            "/missing': No such file",
        ],
    );
    refused(directory.path(), &["is not a regular file"]);
    refused(
        Path::new("/dev/zero"),
        &["'/dev/zero' is not a regular file"],
    );
    let large = directory.path().join("large");
    fs::write(&large, vec![b'#'; 65537]).unwrap();
    refused(&large, &["is longer than 65536 bytes"]);
    fs::write(&large, b"mem = 64 # \xff").unwrap();
    refused(&large, &["large:1:12: not UTF-8"]);
    run(&mut tender(["--config="])).is_refused(&["--config=: the path is empty"]);
    run(&mut tender(["--config"])).is_refused(&["'--config' needs a value: --config=FILE"]);
}

/// Parses a file together with these arguments.
fn parsed(file: &str, text: &str, arguments: &[&str]) -> cli::Command {
    let line = ["tender", "--config", file]
        .into_iter()
        .chain(arguments.iter().copied())
        .map(Into::into);
    match cli::parse(line) {
        Ok(cli::Command::Configured(configured)) => configured.parse(text.as_bytes()).unwrap().0,
        other => panic!("{other:?}"),
    }
}

fn the_example_is_valid() {
    let example = include_str!("../../packaging/examples/presentation.toml");
    let arguments = [
        "--net=tap100",
        "--mem=64M",
        "--check",
        "/usr/share/tender/examples/web.hvt",
        "--ipv4=10.100.0.2/24",
    ];
    let Ok(cli::Command::Check(mut expected)) =
        cli::parse(["tender"].iter().chain(&arguments).map(Into::into))
    else {
        panic!()
    };
    expected.nets[0].name = Some("service".into());
    expected.nets[0].in_file = Some("/etc/tender/presentation.toml:13:6".into());
    assert_eq!(
        parsed("/etc/tender/presentation.toml", example, &["--check"]),
        cli::Command::Check(expected)
    );
    // As a check of `tender` reads it on a host without any of its devices.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/presentation.toml");
    if path.exists() {
        let output = run(&mut tender(["--check", "--config", text(&path)]));
        output
            .exits(1)
            .prints("missing  net:service  ")
            .prints("web.hvt would not start: ");
    }
}

fn the_documented_file_is_valid() {
    let page = include_str!("../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let cli::Command::Run(config) = parsed(
        "/srv/router.toml",
        example,
        &["--net-mac:lan=02:00:00:00:00:99"],
    ) else {
        panic!()
    };
    assert_eq!(config.unikernel, Path::new("/srv/router.hvt"));
    assert_eq!(
        (config.nets.len(), config.blocks.len(), config.memory.given),
        (3, 1, 96 << 20)
    );
    assert!(
        config
            .nets
            .iter()
            .any(|net| net.mac == Some([2, 0, 0, 0, 0, 0x99]))
    );
    assert!(
        config
            .nets
            .iter()
            .all(|net| net.mac != Some([2, 0, 0, 0, 0, 1]))
    );
}
