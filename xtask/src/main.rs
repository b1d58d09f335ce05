//! Builds, tests and demonstrates tender: `cargo xtask help` lists the commands.
//!
//! docs/architecture.md lists the rooms. Everything built or downloaded stays under `target/`.
//! Missing tools are reported with their Debian package, and installed only when this runs as root.

mod base;
mod bench;
mod build;
mod checks;
mod demo;
mod dist;
mod machines;
mod replay;

use base::error::{Result, fail};
use base::options::Options;
use bench::{fleet, layout};
use build::fixtures;
use checks::{book, fuzz, msrv, test, tutorial, words};
use dist::{apt, opam, package_test};
use machines::lab;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--once] [--machine host|pi3|virt|pc] [--engine kvm|process]
        run the `web` unikernel on a new tap and fetch its page; without --once, keep it running until Ctrl-C; without
        a usable /dev/kvm, the guest runs in a process
  test [--machine host|pi3|virt|pc] [--engine kvm|process] [-- FILTER]
        run all tests, here and inside the emulated Raspberry Pi 3B, and those that run guests by both engines; the last
        line is the total
  bench [--machine host|pi3|virt|pc] [--peer FILE] [--floor] [--starts] [--engine process]
        measure starts, hypercalls, network and memory, optionally against another tender; counts instructions on virt;
        --floor: compare with the least tender (xtask/floor) as well; --starts: measure only starts; --engine process:
        compare KVM with guests in processes, and those with a native process
  fleet [--count N] [--seconds N] [--tender FILE] [--peer FILE] [--metrics]
        measure each of many idle unikernels (default 100): memory, kernel memory, processor time, wake-ups; optionally
        against another tender
  lab [--machine pi3|virt|pc]
        open a shell inside an emulated machine, with tender and the test unikernels
  replay [--machine pi3|virt] [--deb FILE]
        boot a Debian with systemd on the emulated Raspberry Pi 3B, install the package, run a unikernel as a service on
        a bridge, inspect, kill and stop it; check every step, and write a transcript to target/replay/
  fuzz [TARGET] [--seconds N] [--minimise] [-- FILE...]
        fuzz each target, or one; --minimise replaces the seeds by the fewest inputs that cover
        as much; with files after --, try only these
  fixtures [--check]
        build the test unikernels into fixtures/bin/; --check compares instead
  dist [--arch aarch64|x86_64]
        build static binaries, tarballs and Debian packages in target/dist/; the same commit gives the same bytes
  apt-repo
        make target/dist/ an apt repository of its Debian packages; TENDER_APT_KEY=KEY: sign it with this key of gpg
  opam-repo
        make target/dist/ an opam repository with the package solo5-tender
  package-test [--if-root]
        install, try and remove the Debian package in a bare Debian 12, also by apt, and check that nothing is left; needs root;
        --if-root: not being root is no error
  layout [--check]
        trace starts and write xtask/start.ld, by which the linker places together what they execute; --check: fail if
        it is out of date
  msrv [--if-available]
        check that everything builds with the oldest supported Rust; --if-available: no such compiler is no error
  tutorial [--if-available]
        build the unikernels of examples/, and follow docs/first-unikernel.md as printed, in an empty directory;
        --if-available: no compiler or no KVM is no error
  words
        count the phrases that docs and comments avoid (xtask/words.txt), and compare with their budget
  book
        build the documentation as a website in target/book/ with MkDocs, and check its links

machines: pi3 = Raspberry Pi 3B (no vGIC, nVHE), virt = ARM64 server (VHE, GICv3), pc = x86_64 with AMD's SVM; all by QEMU.
TENDER_LAB_KERNEL=FILE.deb: boot another Debian kernel than this system's; TENDER_LAB_APPEND: add to its command line.
";

fn main() {
    if let Err(error) = dispatch() {
        eprintln!("xtask: {error}");
        std::process::exit(1);
    }
}

fn dispatch() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "help".into());
    let mut options = Options::parse(arguments)?;
    match command.as_str() {
        "demo" => demo::run(&mut options),
        "test" => test::run(&mut options),
        "fleet" => fleet::run(&mut options),
        "replay" => replay::run(&mut options),
        "lab" => lab::run(&mut options),
        "fixtures" => fixtures::run(&mut options),
        "fuzz" => fuzz::run(&mut options),
        "dist" => dist::run(&mut options),
        "apt-repo" => apt::run(&mut options),
        "opam-repo" => opam::run(&mut options),
        "package-test" => package_test::run(&mut options),
        "msrv" => msrv::run(&mut options),
        "tutorial" => tutorial::run(&mut options),
        "words" => words::run(&mut options),
        "book" => book::run(&mut options),
        "bench" => bench::run(&mut options),
        "layout" => layout::run(&mut options),
        bench::INSIDE => bench::inside(&mut options),
        // Started by `demo` in a network namespace, or inside an emulated machine; not for direct
        // use.
        demo::INSIDE => demo::inside(&mut options),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => fail(format!(
            "'{other}' is no command of xtask; see 'cargo xtask help'"
        )),
    }
}
