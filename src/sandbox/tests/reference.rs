//! The same lists compiled by seccompiler, whose programs are longer and equivalent: the reference
//! for ours.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::sandbox::rules::{Parameters, Rule, When};

/// Returns the program of a list: its calls are allowed, any other gets SIGSYS.
pub fn compile(rules: &[Rule], parameters: &Parameters) -> BpfProgram {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let alternatives = calls.entry(rule.call).or_default();
        for conditions in alternatives_of(rule.when, parameters).unwrap() {
            alternatives.push(SeccompRule::new(conditions).unwrap());
        }
    }
    // A call without an applicable rule, such as pread64 without a disk: to seccompiler, no rule
    // means any arguments.
    calls.retain(|call, alternatives| {
        !alternatives.is_empty() || rules.iter().any(|rule| is_any(rule, *call))
    });
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Trap, SeccompAction::Allow, arch);
    filter.and_then(BpfProgram::try_from).unwrap()
}

fn is_any(rule: &Rule, call: i64) -> bool {
    rule.call == call && rule.when.is_empty()
}

/// Returns every combination of values that fulfils `when`; none if a parameter has no value, or
/// for an empty `when`.
fn alternatives_of(
    when: &[When],
    parameters: &Parameters,
) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    use SeccompCmpArgLen::Dword;
    use SeccompCmpOp::{Eq, MaskedEq};
    let mut alternatives = vec![Vec::new()];
    for condition in when {
        let choices = match *condition {
            When::Is(argument, value) => vec![SeccompCondition::new(argument, Dword, Eq, value)?],
            When::Masked(argument, mask, values) => values
                .iter()
                .map(|value| SeccompCondition::new(argument, Dword, MaskedEq(mask), *value))
                .collect::<Result<_, _>>()?,
            When::OneOf(argument, parameter) => {
                let equal = |value| SeccompCondition::new(argument, Dword, Eq, value);
                parameters
                    .values(parameter)
                    .into_iter()
                    .map(equal)
                    .collect::<Result<_, _>>()?
            }
        };
        let with = |before: &Vec<_>, choice: &SeccompCondition| {
            [&before[..], std::slice::from_ref(choice)].concat()
        };
        alternatives = alternatives
            .iter()
            .flat_map(|before| choices.iter().map(move |choice| with(before, choice)))
            .collect();
    }
    alternatives.retain(|conditions| !conditions.is_empty());
    Ok(alternatives)
}
