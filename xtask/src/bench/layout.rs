//! `cargo xtask layout`: writes `xtask/start.ld`, by which the linker places together what a start
//! executes.
//!
//! The kernel maps a program's file in windows of 16 pages, each for about the price of 30 system
//! calls. The linker's own order puts code of a start into nearly every window.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::inside::Bench;
use super::sample::Subject;
use super::{CODE, Job, hypercalls, starts, steps};
use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::process;
use crate::base::progress;
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::build::toolchain::StaticToolchain;
use crate::dist;
use crate::machines::host;
use crate::machines::machine::Emulated;
use crate::machines::qemu::Clock;

/// Bytes of the file that the kernel maps at a time.
const WINDOW: u64 = 16 * 4096;

/// How many windows a start may execute outside of the script's part.
const STRAYS: usize = 3;

/// Prefixes of the lines of the hidden command's output with the addresses of a function: one that
/// a start without devices executes, and one with devices.
const EXECUTED: [&str; 2] = ["executed ", "executed with devices "];

const HEAD: &str = "\
/* Functions that a start executes. `cargo xtask layout` writes this file; do not edit it.
 *
 * Placed together, they are in few of the windows of 16 pages in which the kernel maps a program's file. Each window
 * costs a start about as much as 30 system calls. Functions that only starts with devices execute come last.
 * Asterisks stand for hashes, which change with the compiler.
 */
SECTIONS
{
  .text.start :
  {
";
const TAIL: &str = "  }\n}\nINSERT BEFORE .text;\n";

/// Code from one section of one object file.
#[derive(Debug, PartialEq)]
struct Code {
    /// The statement of a linker script that places it; `None` if none can.
    statement: Option<String>,
    addresses: Range<u64>,
    /// Whether only a start with devices executes it.
    with_devices: bool,
}

pub fn run(options: &mut Options) -> Result<()> {
    let check = options.flag("--check");
    options.finish()?;
    let script = fs::read_to_string(path()).context(path().display())?;
    let mut statements = BTreeSet::new();
    for arch in Arch::ALL {
        let code = executed(arch)?;
        let strays = strays(&code, &script);
        println!(
            "{}: a start executes {} functions; windows with some that xtask/start.ld omits: {strays}",
            arch.name(),
            code.len(),
        );
        if check && strays > STRAYS {
            return fail(format!(
                "xtask/start.ld is out of date: it omits functions of a start in {strays} windows, and {STRAYS} are \
                 allowed; run 'cargo xtask layout'"
            ));
        }
        statements.extend(
            code.into_iter()
                .map(|code| (code.with_devices, code.statement)),
        );
    }
    if check {
        return Ok(());
    }
    let mut script = HEAD.to_owned();
    let mut placed = BTreeSet::new();
    for statement in statements.iter().filter_map(|(_, s)| s.as_ref()) {
        // The first place counts.
        if placed.insert(statement) {
            let _ = writeln!(script, "    {statement}");
        }
    }
    script += TAIL;
    fs::write(path(), script).context(path().display())?;
    // Cargo does not know that the linker reads the script.
    Arch::ALL.into_iter().try_for_each(forget)
}

/// Removes the release, so that it is linked again.
fn forget(arch: Arch) -> Result<()> {
    let triple = StaticToolchain::choose(arch)?.triple;
    let mut clean = cargo::cargo("clean");
    clean.args(["--release", "--package", "tender-vmm", "--target", &triple]);
    process::output(&mut clean).map(drop)
}

fn path() -> PathBuf {
    cargo::root().join("xtask/start.ld")
}

/// Returns the code that starts execute on this machine, or in an emulated one.
fn executed(arch: Arch) -> Result<Vec<Code>> {
    let toolchain = StaticToolchain::choose(arch)?;
    dist::binary(arch)?;
    let map = toolchain.map();
    let code = sections(&fs::read_to_string(&map).context(map.display())?);
    let lines: String = code.iter().map(|code| line(&code.addresses)).collect();
    let list = map.with_extension("code");
    fs::write(&list, lines).context(list.display())?;
    let job = Job {
        others: vec![(CODE, list)],
        ..Job::default()
    };
    let mut found = EXECUTED.map(|_| BTreeSet::new());
    let mut note = |line: &str| {
        let ranges = EXECUTED.map(|prefix| line.strip_prefix(prefix).and_then(range));
        for (found, range) in found.iter_mut().zip(&ranges) {
            found.extend(range.as_ref().map(|range| range.start));
        }
        if ranges.iter().all(Option::is_none) {
            progress::note(line);
        }
    };
    if arch == Arch::host()? && host::kvm().is_ok() {
        let output = process::output(&mut super::host_command(&job)?)?;
        output.lines().for_each(note);
    } else {
        let machine = match arch {
            Arch::Aarch64 => Emulated::Virt,
            Arch::X86_64 => Emulated::Pc,
        };
        super::emulated(machine, Clock::Real, &job, |line| note(&line))?;
    }
    let [alone, with_devices] = &found;
    let code = code.into_iter().filter_map(|mut code| {
        let start = code.addresses.start;
        code.with_devices = !alone.contains(&start);
        (!code.with_devices || with_devices.contains(&start)).then_some(code)
    });
    Ok(code.collect())
}

fn line(range: &Range<u64>) -> String {
    format!("{:x}-{:x}\n", range.start, range.end)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

/// Prints which functions starts execute: without devices, and with an interface and a disk.
pub fn trace(bench: &Bench, list: &Path) -> Result<()> {
    let list = fs::read_to_string(list).context(list.display())?;
    let functions: Vec<_> = list.lines().filter_map(range).collect();
    for (_, tender) in bench.tenders() {
        let alone = starts::command(
            Subject::Ours,
            tender,
            &[],
            &bench.fixture(starts::UNIKERNEL),
        );
        let with_devices = hypercalls::common().find(|workload| workload.has_devices());
        let with_devices =
            with_devices.map(|workload| workload.command(bench, Subject::Ours, tender, 1));
        let commands = [alone].into_iter().chain(with_devices);
        for (executed, mut command) in EXECUTED.iter().zip(commands) {
            for function in steps::executed(tender, &mut command, &functions)? {
                print!("{executed}{}", line(&function));
            }
        }
    }
    Ok(())
}

/// Returns the number of windows with executed code that the script does not place.
fn strays(code: &[Code], script: &str) -> usize {
    let placed: BTreeSet<&str> = script.lines().map(str::trim).collect();
    let is_placed = |code: &&Code| {
        let statement = code.statement.as_deref();
        statement.is_some_and(|statement| placed.contains(statement))
    };
    let windows = code
        .iter()
        .filter(|code| !is_placed(code))
        .map(|code| code.addresses.start / WINDOW);
    windows.collect::<BTreeSet<_>>().len()
}

/// Returns the code in a linker's map.
fn sections(map: &str) -> Vec<Code> {
    match map.split_once("Linker script and memory map") {
        Some((_, map)) => gnu_sections(map),
        None => llvm_sections(map),
    }
}

/// GNU's map has section, address, size and file, on one line or two.
fn gnu_sections(map: &str) -> Vec<Code> {
    let fields: Vec<&str> = map.split_whitespace().collect();
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let entries = fields.windows(4).filter_map(|fields| {
        let (address, size) = (hex(fields[1])?, hex(fields[2])?);
        code(fields[0], fields[3], address, size)
    });
    entries.collect()
}

/// LLVM's map has a line with address, load address, size, alignment and `FILE:(SECTION)`.
fn llvm_sections(map: &str) -> Vec<Code> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let entries = map.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, size, _, name] = fields[..] else {
            return None;
        };
        let (file, section) = name.strip_suffix(')')?.rsplit_once(":(")?;
        code(section, file, hex(address)?, hex(size)?)
    });
    entries.collect()
}

fn code(section: &str, file: &str, address: u64, size: u64) -> Option<Code> {
    // Before a pattern, it is the size of all that the pattern matches.
    if !section.starts_with(".text") || size == 0 || file.starts_with('*') {
        return None;
    }
    Some(Code {
        statement: statement(section, file),
        addresses: address..address + size,
        with_devices: false,
    })
}

/// Returns the statement that places a function of Rust, a member of the C library, or what calls it.
fn statement(section: &str, file: &str) -> Option<String> {
    let is_rust = section.starts_with(".text._ZN") || section.starts_with(".text._R");
    match file
        .strip_suffix(')')
        .and_then(|file| file.rsplit_once('('))
    {
        Some((archive, member)) if !is_rust && archive.ends_with(".a") => {
            let (_, name) = archive.rsplit_once('/').unwrap_or(("", archive));
            Some(format!("*{name}:{member}(.text .text.*)"))
        }
        _ if section.starts_with(".text.") => Some(format!("*({})", without_hashes(section))),
        // The first instructions of all: crt1.o, crti.o and others.
        _ if file
            .rsplit('/')
            .next()
            .is_some_and(|name| name.contains("crt")) =>
        {
            Some("*crt*.o(.text)".to_owned())
        }
        _ => None,
    }
}

/// Puts asterisks in the place of the hashes in both kinds of Rust's names.
fn without_hashes(name: &str) -> String {
    // The older kind ends with its only hash, `17h` and 16 digits, and perhaps a suffix.
    if let Some((name, _)) = name.rsplit_once("17h") {
        return format!("{name}17h*");
    }
    // The other has one for each crate, `Cs…_`; a suffix begins with a period.
    let mut parts = name.split("Cs");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('_') {
            Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                result += "Cs*_";
                result += rest;
            }
            _ => {
                result += "Cs";
                result += part;
            }
        }
    }
    let suffix = result
        .rfind('.')
        .filter(|at| result[at + 1..].parse::<u64>().is_ok());
    if let Some(at) = suffix {
        result.truncate(at);
        result.push('*');
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: &str = "*(.text._ZN6tender5setup3run17h*)";

    #[test]
    fn both_maps_are_read() {
        let gnu = "x\nLinker script and memory map\n.text 0x1 0x9\n *(.text)\n .text._ZN6tender5setup3run17h01abE\n   \
                   0x400010  0x20 /t/a.o\n .text          0x400040       0x58 /l/libc.a(memcpy.o)\n .text 0x4000a0 0x34 /l/rcrt1.o\n \
                   .data 0x1 0x2 x.o\n";
        let llvm = "VMA LMA Size Align Out In Symbol\n\
                    400010 400010 20 16 /t/a.o:(.text._ZN6tender5setup3run17h01abE)\n\
                    400040 400040 58 16 /l/libc.a(memcpy.o):(.text)\n\
                    4000a0 4000a0 34 16 /l/rcrt1.o:(.text)\n 1 1 2 1 x.o:(.data)\n";
        for map in [gnu, llvm] {
            let found = sections(map);
            let statements: Vec<_> = found
                .iter()
                .filter_map(|code| code.statement.as_deref())
                .collect();
            let others = ["*libc.a:memcpy.o(.text .text.*)", "*crt*.o(.text)"];
            assert_eq!(statements, [[FUNCTION].as_slice(), &others].concat());
            assert_eq!(found[1].addresses, 0x40_0040..0x40_0098);
        }
    }

    #[test]
    fn hashes_become_asterisks() {
        for (name, expected) in [
            (
                ".text._ZN4core3fmt17h0123456789abcdefE.llvm.7",
                ".text._ZN4core3fmt17h*",
            ),
            (
                ".text._RNvMs4_NtCsd4IX_5gimli4read3new.75",
                ".text._RNvMs4_NtCs*_5gimli4read3new*",
            ),
            (".text.tuntap_setup", ".text.tuntap_setup"),
        ] {
            assert_eq!(without_hashes(name), expected);
        }
    }

    #[test]
    fn code_outside_the_script_is_counted_by_windows() {
        let code = |statement: &str, start| Code {
            statement: Some(statement.to_owned()),
            addresses: start..start + 8,
            with_devices: false,
        };
        let code = [
            code(FUNCTION, 0),
            code("*(.text.a)", 0x40_0000),
            code("*(.text.b)", 0x40_1000),
        ];
        assert_eq!(strays(&code, &format!("  {FUNCTION}\n")), 1);
        assert_eq!(strays(&code, "  *(.text.a)\n"), 2);
    }
}
