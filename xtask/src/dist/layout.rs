//! Checks that each pattern of `xtask/seldom.ld` still matches code of the build.

use crate::base::error::{Result, fail};

/// The linker script.
const SCRIPT: &str = include_str!("../../seldom.ld");

/// Rejects `map`, from GNU's or LLVM's linker, if a pattern matches nothing in it.
pub fn check(map: &str) -> Result<()> {
    // GNU's linker first lists the sections that it has discarded, and later repeats the patterns.
    let map = map
        .split_once("Linker script and memory map")
        .map_or(map, |(_, map)| map);
    let names: Vec<&str> = map
        .split_whitespace()
        .filter(|name| name.contains(".text.") || name.contains(".a("))
        .filter(|name| !name.contains('*'))
        .collect();
    let unused: Vec<String> = patterns(SCRIPT)
        .into_iter()
        .filter(|pattern| !names.iter().any(|name| is_match(pattern, name)))
        .collect();
    if unused.is_empty() {
        return Ok(());
    }
    fail(format!(
        "xtask/seldom.ld: no code of this build matches {}; adapt or remove",
        unused.join(" ")
    ))
}

/// Returns the patterns of a linker script. The pattern `*libc.a:NAME(.text)` is returned as
/// `*libc.a(NAME)`, the form in linker maps.
fn patterns(script: &str) -> Vec<String> {
    let code = script
        .split("*/")
        .filter_map(|part| part.split("/*").next());
    let code: String = code.collect();
    let statements = code
        .split(')')
        .filter_map(|statement| statement.split_once('('));
    let mut found = Vec::new();
    for (file, sections) in statements {
        match file
            .split_whitespace()
            .last()
            .unwrap_or("*")
            .split_once(':')
        {
            Some((library, member)) => found.push(format!("{library}({member})")),
            None => found.extend(sections.split_whitespace().map(str::to_owned)),
        }
    }
    found
}

/// Whether the parts of `pattern`, between its asterisks, are in `name` in this order.
fn is_match(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    parts
        .try_fold(name, |rest, part| Some(rest.split_once(part)?.1))
        .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_in_a_script() {
        let script =
            "/* (x) */ S { .text.a : { *(.text.*b* .text.*c*)\n *libc.a:d*(.text .text.*) } }";
        assert_eq!(patterns(script), [".text.*b*", ".text.*c*", "*libc.a(d*)"]);
        assert!(patterns(SCRIPT).len() > 40);
    }

    #[test]
    fn names_are_those_of_both_linkers() {
        for name in ["/lib/libc.a(dl-open.o)", "/lib/libc.a(dl-open.o):(.text)"] {
            assert!(is_match("*libc.a(dl-o*)", name));
            assert!(!is_match("*libc.a(dl-c*)", name));
        }
        for name in [".text._RN6tender5check", "t.o:(.text._RN6tender5check)"] {
            assert!(is_match(".text.*6tender5check*", name));
            assert!(!is_match(".text.*5check*6tender*", name));
        }
    }

    #[test]
    fn an_unused_pattern_is_named() {
        let error = check("Linker script and memory map\n *(.text.*5gimli*)").unwrap_err();
        assert!(error.to_string().contains(".text.*5gimli*"), "{error}");
    }
}
