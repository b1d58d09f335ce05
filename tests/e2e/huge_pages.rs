//! `--huge-pages`: which parts of guest memory may be huge pages of the host, read from
//! `/proc/PID/smaps` of a running tender.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, KvmEngine};
use crate::common::{self, Guest, fixture, run, tender, text, trial, unikernel};

/// Settings of the kernel; missing on one without huge pages.
const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";

/// Options, and the expected flags of tables, heap and stack: `nh` forbids huge pages, `hg` advises
/// them.
const CHOICES: [(&[&str], [&str; 3]); 6] = [
    (&["--mem=64"], ["nh", "nh", "nh"]),
    (&["--mem=66"], ["nh", "", "nh"]),
    (&["--mem=66", "--huge-pages=auto"], ["nh", "", "nh"]),
    (&["--mem=8", "--huge-pages=on"], ["hg", "hg", "hg"]),
    (&["--mem=66", "--huge-pages=on"], ["hg", "hg", "hg"]),
    (&["--mem=66", "--huge-pages=off"], ["nh", "nh", "nh"]),
];

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<_> = CHOICES
        .into_iter()
        .map(|(options, flags)| {
            trial(&format!("advice::{}", options.join(" ")))
                .needs(&[KvmEngine])
                .try_run(move || {
                    has_huge_pages()?;
                    assert_eq!(advice(&start(options)), flags);
                    Ok(())
                })
        })
        .collect();
    tests.extend([
        trial("a_file_may_choose")
            .needs(&[KvmEngine])
            .try_run(a_file_may_choose),
        trial!(scattered_writes_take_small_pages_by_default, KvmEngine),
        trial!(locked_memory_follows_the_choice, KvmEngine),
        trial!(a_check_is_the_same_for_each_choice, Kvm),
    ]);
    tests
}

fn has_huge_pages() -> Result<(), String> {
    match Path::new(SETTINGS).exists() {
        true => Ok(()),
        false => Err("this kernel has no transparent huge pages".into()),
    }
}

/// Returns whether advised memory gets huge pages of 2 MiB here.
fn gives_huge_pages() -> bool {
    let setting = |name| fs::read_to_string(Path::new(SETTINGS).join(name)).unwrap_or_default();
    let is_enabled = !setting("enabled").is_empty() && !setting("enabled").contains("[never]");
    is_enabled && setting("hpage_pmd_size").trim() == "2097152"
}

fn wait_until_asleep(command: &mut Command) -> Guest {
    let guest = Guest::start(command);
    guest.wait_for("memory again");
    guest
}

/// Starts a guest that writes a byte in each MiB of its memory and sleeps.
fn start(options: &[&str]) -> Guest {
    let arguments = ["step=1048576", "sleep=600000000000"];
    wait_until_asleep(&mut unikernel("memory", options, &arguments))
}

/// A mapping of guest memory.
#[derive(Clone, Debug, Default)]
struct Mapping {
    range: Range<u64>,
    has_name: bool,
    flags: Vec<String>,
    /// Memory in huge pages.
    huge_kib: u64,
}

/// Returns the mappings of guest memory in ascending order: without a file or name, and omitted in
/// core files (`dd`).
fn mappings(guest: &Guest) -> Vec<Mapping> {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", guest.pid())).unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    let mut mappings = Vec::new();
    let mut mapping = Mapping::default();
    for line in smaps.lines() {
        let mut args = line.split_whitespace();
        match args.next().unwrap() {
            "AnonHugePages:" => mapping.huge_kib = args.next().unwrap().parse().unwrap(),
            "VmFlags:" => {
                mapping.flags = args.map(String::from).collect();
                mappings.push(mapping.clone());
            }
            first => {
                if let Some((start, end)) = first.split_once('-') {
                    // A name would follow permissions, offset, device and inode.
                    mapping.has_name = args.nth(4).is_some();
                    mapping.range = hex(start)..hex(end);
                }
            }
        }
    }
    mappings.retain(|mapping| !mapping.has_name && mapping.flags.iter().any(|flag| flag == "dd"));
    mappings
}

/// The advice for the first page, for the heap's last MiB, and for the last page.
fn advice(guest: &Guest) -> [String; 3] {
    let mappings = mappings(guest);
    let (first, end) = (mappings[0].range.start, mappings.last().unwrap().range.end);
    [first, end - (3 << 20), end - 4096].map(|address| {
        let mut mappings = mappings.iter();
        let mapping = mappings.find(|mapping| mapping.range.contains(&address));
        let mut flags = mapping.unwrap().flags.iter();
        let advice = flags.find(|flag| ["nh", "hg"].contains(&flag.as_str()));
        advice.cloned().unwrap_or_default()
    })
}

fn huge_kib(guest: &Guest) -> u64 {
    mappings(guest).iter().map(|mapping| mapping.huge_kib).sum()
}

fn a_file_may_choose() -> Result<(), String> {
    has_huge_pages()?;
    let directory = common::directory();
    let file = directory.path().join("app.toml");
    fs::write(&file, "mem = 8\nhuge-pages = 'on'\n").unwrap();
    for (options, expected) in [(&[][..], "hg"), (&["--huge-pages=off"], "nh")] {
        let mut command = tender(["--config", text(&file)]);
        command.args(options).arg(fixture("memory"));
        let guest = wait_until_asleep(command.arg("sleep=600000000000"));
        assert_eq!(advice(&guest), [expected; 3], "{options:?}");
    }
    Ok(())
}

fn scattered_writes_take_small_pages_by_default() {
    assert_eq!(huge_kib(&start(&["--mem=64"])), 0);
    assert_eq!(huge_kib(&start(&["--mem=66", "--huge-pages=off"])), 0);
    let huge = huge_kib(&start(&["--mem=66", "--huge-pages=on"]));
    assert!(huge > 0 || !gives_huge_pages());
}

/// Locking allocates all of the memory, so the advice must precede it.
fn locked_memory_follows_the_choice() {
    for choice in ["auto", "on", "off"] {
        let option = format!("--huge-pages={choice}");
        let guest = start(&["--mem=8", "--lock-memory", &option]);
        assert_eq!(common::status(guest.pid(), "VmLck"), "8192 kB", "{choice}");
        match huge_kib(&guest) {
            0 => assert!(choice != "on" || !gives_huge_pages()),
            huge => assert_eq!(choice, "on", "{huge} KiB"),
        }
    }
}

fn a_check_is_the_same_for_each_choice() {
    let check = |options: &[&str]| {
        let options = [&["--check", "--mem=66"], options].concat();
        let output = run(&mut unikernel("hello", &options, &[]));
        output.exits(0).prints(" would start\n");
        output.stdout
    };
    let expected = check(&[]);
    for choice in ["auto", "on", "off"] {
        assert_eq!(check(&[&format!("--huge-pages={choice}")]), expected);
    }
}
