//! The compiled filters: their length, and comparison with seccompiler.

use super::*;

#[test]
fn the_guest_runs_on_nine_instructions() {
    for count in [0, 1, 63] {
        let nets = (10..10 + count).collect();
        let parameters = Parameters {
            nets,
            ..parameters()
        };
        assert_eq!(
            run(
                &guest(&parameters),
                libc::SYS_ioctl,
                [6, KVM_RUN, 0, 0, 0, 0]
            ),
            (ALLOW, 9)
        );
    }
}

/// Every device that a manifest can have, and their duplicates for the ring.
#[test]
fn programs_are_never_too_long() {
    let many: Vec<i32> = (10..73).collect();
    for (nets, disks) in [(many.clone(), Vec::new()), (Vec::new(), many.clone())] {
        let parameters = Parameters {
            ring_nets: nets.clone(),
            nets,
            disks,
            ..parameters()
        };
        assert!(guest(&parameters).len() <= 4096);
    }
}

/// Numbers that some rule mentions, and their neighbours.
fn significant(parameters: &Parameters) -> Vec<u64> {
    let numbers = [
        0,
        1,
        2,
        3,
        4,
        5,
        9,
        15,
        34,
        35,
        137,
        265,
        1 << 31,
        1 << 32,
        u64::MAX,
        KVM_RUN,
        1 << 32 | KVM_RUN,
    ];
    let fds = [
        &parameters.nets[..],
        &parameters.ring_nets,
        &parameters.disks,
        &[6, 42, 43, 44],
    ]
    .concat();
    let observing = [
        &parameters.stats,
        &parameters.statm,
        &parameters.listener,
        &parameters.client,
    ];
    let fds = [
        fds,
        observing
            .into_iter()
            .chain([&parameters.metrics_end])
            .flatten()
            .copied()
            .collect(),
    ]
    .concat();
    let reports = arch::Vcpu::REPORT_REQUESTS;
    let mut all: Vec<u64> = numbers
        .into_iter()
        .chain(fds.into_iter().map(|fd| fd as u64))
        .collect();
    all.extend(reports);
    all
}

/// Every call and, for those whose arguments matter, arguments of all kinds.
#[test]
fn seccompiler_gives_the_same_answers() {
    let many = Parameters {
        nets: (10..73).collect(),
        ring_nets: (80..143).collect(),
        ..parameters()
    };
    for (parameters, rules) in [parameters(), many, bare()]
        .iter()
        .flat_map(|p| [(p, GUEST), (p, METRICS)])
    {
        let (ours, theirs) = (
            compile(rules, parameters),
            reference_program(rules, parameters),
        );
        assert!(
            ours.len() < theirs.len(),
            "{} and {} steps",
            ours.len(),
            theirs.len()
        );
        let same = |call, arguments| {
            let (answer, expected) = (
                run(&ours, call, arguments).0,
                run(&theirs, call, arguments).0,
            );
            assert_eq!(answer, expected, "{call}, {arguments:x?}");
        };
        (0..1000)
            .chain([-1, 0x4000_0001])
            .for_each(|call| same(call, [6, KVM_RUN, 0, 0, 0, 0]));
        let significant = significant(parameters);
        for rule in rules {
            for (first, second) in significant
                .iter()
                .flat_map(|first| significant.iter().map(move |second| (*first, *second)))
            {
                same(rule.call, [first, second, 15, 0, 0, 0]);
                same(rule.call, [42, 43, first, second, 0, 0]);
                same(rule.call, [first, 1, second, second, 0, 0]);
            }
        }
    }
}

/// Each instruction costs a start about a thousand instructions in the kernel.
#[test]
fn programs_are_short() {
    assert!(guest(&bare()).len() <= 85, "{}", guest(&bare()).len());
}
