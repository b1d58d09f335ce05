//! Hostile guests: for every request and every address, `tender` answers or ends the run with one
//! line that gives the reason. It never panics and never dies by a signal.
//!
//! `TENDER_HOSTILE_CALLS` sets the number of random calls in each era, `TENDER_HOSTILE_RUNS` the
//! number of runs with random violations, and `TENDER_HOSTILE_SEED` the first seed.

use std::collections::BTreeMap;

use crate::common::Need::{Kvm, KvmEngine};
use crate::common::hostile::{ERAS, Environment, ends_cleanly};
use crate::common::{Output, run, trial};
use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<Trial> = Vec::new();
    for program in ERAS {
        let name = |what: &str| format!("{what}::{program}");
        tests.extend([
            trial(&name("random_calls_are_answered"))
                .needs(&[Kvm])
                .run(|| random_calls_are_answered(program)),
            trial(&name("random_violations_end_cleanly"))
                .needs(&[Kvm])
                .run(|| random_violations_end_cleanly(program)),
            trial(&name("what_lies_across_a_border_ends_cleanly"))
                .needs(&[Kvm])
                .run(|| across_borders(program)),
            trial(&name("a_read_over_its_own_structure_is_harmless"))
                .needs(&[Kvm])
                .run(|| over_its_own_structure(program)),
            trial(&name("own_page_tables_give_no_access"))
                .needs(&[KvmEngine])
                .run(|| own_page_tables(program)),
        ]);
    }
    for way in ["tables-outside", "tables-self", "mmu-off", "no-vectors"] {
        tests.push(
            trial(&format!("a_broken_processor_can_be_ended::{way}"))
                .needs(&[if way == "no-vectors" { Kvm } else { KvmEngine }])
                .run(move || broken_processor(way)),
        );
    }
    tests.push(trial!(reads_over_the_ring_end_cleanly, KvmEngine));
    tests
}

/// A number from the environment; the default is smaller on machines that emulate every
/// instruction.
fn many(name: &str, x86_64: u64, aarch64: u64) -> u64 {
    let default = if cfg!(target_arch = "x86_64") {
        x86_64
    } else {
        aarch64
    };
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

fn seed() -> u64 {
    many("TENDER_HOSTILE_SEED", 1, 1)
}

fn hostile(program: &str, options: &[&str], args: &[&str]) -> Output {
    let (mut command, _surroundings) = Environment::of(program, &[&["-v"], options].concat(), args);
    run(&mut command)
}

/// Each run has a different seed, and takes some seconds.
fn random_calls_are_answered(program: &str) {
    const CALLS_OF_A_RUN: u64 = 5_000;
    let mut left = many("TENDER_HOSTILE_CALLS", 5_000, 1_000);
    for seed in seed().. {
        let calls = left.min(CALLS_OF_A_RUN);
        let output = hostile(
            program,
            &[],
            &["random", &calls.to_string(), &seed.to_string()],
        );
        output
            .exits(0)
            .prints(&format!("hostile: {calls} calls"))
            .prints("hostile: random is over\n");
        assert!(ends_cleanly(&output).is_none());
        left -= calls;
        if left == 0 {
            break;
        }
    }
}

/// Runs of calls and ring requests with everything at random. Most end with the first. A guest that
/// has overwritten itself may do anything, also nothing forever.
fn random_violations_end_cleanly(program: &str) {
    let mut ends = BTreeMap::<&str, u64>::new();
    let runs = many("TENDER_HOSTILE_RUNS", 100, 20);
    for seed in seed()..seed() + runs {
        let output = hostile(
            program,
            &["--timeout=5"],
            &["violate", "1000", &seed.to_string()],
        );
        let report = ends_cleanly(&output);
        *ends
            .entry(report.as_deref().map_or("the guest's own end", kind))
            .or_default() += 1;
    }
    let reported = runs - ends.get("the guest's own end").unwrap_or(&0);
    assert!(reported > runs / 2, "hardly a rule was broken: {ends:?}");
    eprintln!("{program}: {runs} runs with random violations: {ends:?}");
}

/// Returns the kind of a report.
fn kind(report: &str) -> &'static str {
    let kinds = [
        ("must be within", "outside of memory"),
        ("must be memory", "not the guest's to write"),
        ("unknown hypercall", "no such hypercall"),
        ("requests, limit", "ring index"),
        ("--timeout", "did nothing for ever"),
    ];
    kinds
        .iter()
        .find(|(args, _)| report.contains(args))
        .map_or("anything else", |(_, kind)| kind)
}

/// Every call with its structure, and with its buffer, across each border of memory, in a separate
/// run.
fn across_borders(program: &str) {
    let (mut refused, mut answered) = (0, 0);
    for number in 0.. {
        let output = hostile(
            program,
            &["--timeout=30"],
            &["straddle", &number.to_string()],
        );
        if output.stdout.contains("there is no straddle") {
            assert_eq!(output.code(), 64);
            break;
        }
        let reported = ends_cleanly(&output).is_some();
        let must = output.stdout.contains("must be refused");
        assert!(
            reported || !must,
            "what must be refused was answered: {output:?}"
        );
        assert!(
            must || output.stdout.contains("may be answered"),
            "{output:?}"
        );
        *(if reported {
            &mut refused
        } else {
            &mut answered
        }) += 1;
    }
    assert!(
        refused > 40 && answered > 20,
        "{refused} refused, {answered} answered"
    );
    eprintln!(
        "{program}: {refused} structures and buffers across borders were refused, {answered} answered"
    );
}

fn over_its_own_structure(program: &str) {
    let output = hostile(program, &[], &["race-structure", "1000", "3"]);
    assert_eq!((ends_cleanly(&output), output.code()), (None, 0));
    output.prints("race-structure is over\n");
}

fn reads_over_the_ring_end_cleanly() {
    for seed in seed()..seed() + many("TENDER_HOSTILE_RUNS", 100, 20) / 10 {
        let output = hostile(
            "hostile",
            &["--timeout=20"],
            &["race-ring", "100", &seed.to_string()],
        );
        let report = ends_cleanly(&output);
        assert!(
            report.is_some_and(|report| report.contains("ring")),
            "{output:?}"
        );
    }
}

/// The guest may map all of memory and write to it; `tender` still does not write where it would
/// not.
fn own_page_tables(program: &str) {
    hostile(program, &[], &["tables-own", "100"])
        .exits(0)
        .prints("tables-own is over\n");
    let report = |way: &str| ends_cleanly(&hostile(program, &[], &[way])).unwrap_or_default();
    let report_of_write = report("tables-refused");
    assert!(
        report_of_write.contains("hypercall WALLTIME with its argument structure at 0x9000"),
        "{report_of_write}"
    );
    assert!(
        report_of_write.contains("must be memory that the guest may write"),
        "{report_of_write}"
    );
    let report_of_read = report("tables-beyond");
    assert!(
        report_of_read.contains("guest read 8 bytes from 0x401000: no memory there"),
        "{report_of_read}"
    );
}

/// x86_64 usually stops; ARM64 continues forever.
fn broken_processor(way: &str) {
    for program in ERAS {
        let output = hostile(program, &["--timeout=1"], &[way]);
        assert!(ends_cleanly(&output).is_some(), "{output:?}");
        assert!(!output.stdout.contains("is over"), "{output:?}");
    }
}
