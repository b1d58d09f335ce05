//! Files for more than one purpose.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::common::Need::Kvm;
use crate::common::{self, fixture, run, tender, text, unikernel};
use crate::paths::{Place, read_write, with};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(a_file_for_two_purposes_is_refused, Kvm),
        trial!(standard_streams_share_no_file_with_an_option, Kvm),
        trial!(files_that_are_only_read_can_be_shared, Kvm),
    ]
}

#[track_caller]
fn is_refused(place: &Place, mut command: Command, args: &[&str]) {
    run(&mut command).is_refused(&[args, &["well; "]].concat());
    place.is_unchanged_but(&[]);
}

fn a_file_for_two_purposes_is_refused() {
    let place = Place::new();
    for kind in ["", "link-", "hard-", "./", "../"] {
        let name = |name: &str| match kind {
            "../" => format!(
                "../{}/{name}",
                text(Path::new(place.directory.path().file_name().unwrap()))
            ),
            kind => format!("{kind}{name}"),
        };
        let (app, disk, toml) = (name("app.hvt"), name("disk.img"), name("app.toml"));
        for (options, args) in [
            (
                &[format!("--disk={app}")][..],
                ["device 'storage'", "is the unikernel as well"],
            ),
            (
                &["--disk=disk.img".into(), format!("--stats={app}")],
                ["--stats", "is the unikernel as well"],
            ),
            (
                &["--disk=disk.img".into(), format!("--stats={disk}")],
                ["--stats", "is device 'storage' as well"],
            ),
            (
                &["--config=app.toml".into(), format!("--disk={toml}")],
                ["device 'storage'", "is the configuration file as well"],
            ),
            (
                &[
                    "--config=app.toml".into(),
                    "--disk=disk.img".into(),
                    format!("--stats={toml}"),
                ],
                ["--stats", "is the configuration file as well"],
            ),
        ] {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            is_refused(&place, place.tender(&options), &args);
            let check = run(&mut place.tender(&[&["--check"], &options[..]].concat()));
            check.exits(1).prints("missing  ");
            place.is_unchanged_but(&[]);
        }
    }
    let handed = |path: &str| {
        with(
            place.tender(&["--disk=@20"]),
            20,
            read_write(&place.path(path)),
        )
    };
    is_refused(
        &place,
        handed("app.hvt"),
        &["device 'storage': '@20' is the unikernel as well"],
    );
    let command = place.tender(&["--disk=@20", "--stats=disk.img"]);
    let command = with(command, 20, read_write(&place.path("disk.img")));
    is_refused(
        &place,
        command,
        &["--stats: 'disk.img' is device 'storage' as well"],
    );
    let app = fixture("block2");
    let two = |format| {
        let disks = ["--block:a=hard-disk.img", "--block:b=disk.img"];
        let mut tender = tender([&[format], &disks[..], &["--", text(&app)]].concat());
        run(tender.current_dir(place.directory.path()))
    };
    two("--log-format=text").is_refused(&["'b'", "'disk.img' is given to two block devices"]);
    let in_json = two("--log-format=json").stderr;
    assert!(in_json.contains(r#", "device": "b""#), "{in_json}");
    place.is_unchanged_but(&[]);
}

fn standard_streams_share_no_file_with_an_option() {
    let place = Place::new();
    let append = |name: &str| {
        OpenOptions::new()
            .append(true)
            .open(place.path(name))
            .unwrap()
    };
    let run_to = |options: &[&str], stdout: Option<&str>, stderr: Option<&str>| {
        let mut command = place.tender(options);
        let stream = |name: Option<&str>, file: &str| match name {
            Some(name) => append(name),
            None => File::create(place.path(file)).unwrap(),
        };
        command
            .stdout(stream(stdout, "out"))
            .stderr(stream(stderr, "err"))
            .stdin(Stdio::null());
        let status = common::children::spawn(&mut command)
            .unwrap()
            .wait()
            .unwrap();
        (
            status.code(),
            fs::read_to_string(place.path("err")).unwrap_or_default(),
        )
    };
    for (options, stdout, args) in [
        (
            &["--disk=disk.img"][..],
            "app.hvt",
            "standard output: its file is the unikernel as well; ",
        ),
        (
            &["--disk=disk.img"],
            "disk.img",
            "'disk.img' is standard output as well; ",
        ),
        (
            &["--disk=disk.img", "--config=app.toml"],
            "app.toml",
            "standard output: its file is the configuration file",
        ),
    ] {
        let (status, stderr) = run_to(options, Some(stdout), None);
        assert!(
            status == Some(1) && stderr.contains(args),
            "{status:?} {stderr}"
        );
        place.is_unchanged_but(&[]);
    }
    fs::write(place.path("log"), "first\n").unwrap();
    for (options, stdout, args) in [
        (
            &["--stats=log"],
            true,
            "is the file of standard output as well; '--stats=-'",
        ),
        (
            &["--stats=/proc/self/fd/1"],
            true,
            "is the file of standard output as well; '--stats=-'",
        ),
        (&["--stats=log"], false, ""),
        (&["--stats=/proc/self/fd/2"], false, ""),
    ] {
        let log = Some("log");
        let (status, stderr) = run_to(
            &[&["--disk=disk.img"][..], options].concat(),
            log.filter(|_| stdout),
            log.filter(|_| !stdout),
        );
        assert!(
            status == Some(1) && stderr.contains(args),
            "{options:?}: {status:?} {stderr}"
        );
        assert!(
            fs::read_to_string(place.path("log"))
                .unwrap()
                .starts_with("first\n")
        );
        place.is_unchanged_but(&[]);
    }
    // Both streams may have one file, as with >log 2>&1.
    let (status, _) = run_to(&["--disk=disk.img", "-v"], Some("log"), Some("log"));
    assert_eq!(status, Some(0));
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains("info: ") && log.contains("sectors of"),
        "{log}"
    );
}

/// Two concurrent runs of one unikernel.
fn files_that_are_only_read_can_be_shared() {
    let options = ["--mem=2", "--timeout=60"];
    let guest = common::Guest::start(&mut unikernel("clock", &options, &["poll=100000000000"]));
    guest.wait_for("Hz\n");
    run(&mut unikernel("clock", &options, &["poll=1"])).exits(0);
}
