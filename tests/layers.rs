//! The rooms of `src/` depend on each other in one direction only, as docs/architecture.md shows
//! it, and so do those of `xtask/src/`.

#[macro_use]
#[path = "e2e/common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is made for the other tests")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::Need::Repository;

/// Each room, with the rooms that it names and one source position.
type Arrows = BTreeMap<(String, String), String>;

/// The sources, and the head of their table.
#[derive(Clone, Copy)]
struct Tree {
    sources: &'static str,
    head: &'static str,
}

const TREES: [Tree; 2] = [
    Tree {
        sources: "src",
        head: "| rooms |",
    },
    Tree {
        sources: "xtask/src",
        head: "| rooms of `xtask/src/` |",
    },
];

/// Everything that `guest` may use.
const GUEST_USES: [&str; 2] = ["memory", "report"];

fn main() -> ExitCode {
    libtest_mimic::run(
        &libtest_mimic::Arguments::from_args(),
        vec![
            trial!(the_table_has_every_room, Repository),
            trial!(arrows_point_down, Repository),
            trial!(there_is_no_circle, Repository),
            trial!(an_arrow_upwards_is_found, Repository),
            trial!(a_circle_is_found, Repository),
        ],
    )
    .exit_code()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rows of the table, from top to bottom.
fn floors(tree: Tree) -> Vec<Vec<String>> {
    let text = fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with(tree.head))
        .skip(2);
    let rooms = |row: &str| {
        row.split('|')
            .nth(1)
            .unwrap()
            .split(',')
            .map(|room| room.trim().replace('`', ""))
            .collect()
    };
    rows.take_while(|line| line.starts_with('|'))
        .map(rooms)
        .collect()
}

fn floor_of(floors: &[Vec<String>], room: &str) -> Option<usize> {
    floors
        .iter()
        .position(|floor| floor.iter().any(|name| name == room))
}

/// Collects the source files, without their tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("tests" | "tests.rs") => {}
            _ if path.is_dir() => sources(&path, found),
            _ => found.push(path),
        }
    }
}

fn room_of(tree: Tree, path: &Path) -> String {
    let first = path
        .strip_prefix(repository().join(tree.sources))
        .unwrap()
        .iter()
        .next()
        .unwrap()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the rooms that `text` names after `crate::`, outside comments and tests.
fn named(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let after = |rest: &str| rest.split(|c| !is_name(c)).next().unwrap().to_owned();
    code.split("crate::").skip(1).map(after).collect()
}

fn arrows(tree: Tree) -> Arrows {
    let mut files = Vec::new();
    sources(&repository().join(tree.sources), &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut arrows = Arrows::new();
    for path in files {
        let room = room_of(tree, &path);
        for other in named(&fs::read_to_string(&path).unwrap()) {
            assert!(
                !other.is_empty(),
                "{}: one `use crate::ROOM` for each room, please",
                path.display()
            );
            if other != room {
                arrows.insert(
                    (room.clone(), other),
                    path.strip_prefix(repository())
                        .unwrap()
                        .display()
                        .to_string(),
                );
            }
        }
    }
    arrows
}

/// Returns the errors of `arrows`, one a line.
fn against(floors: &[Vec<String>], arrows: &Arrows) -> Vec<String> {
    let is_wrong = |room: &str, other: &str| {
        // A macro, or a name at the crate's top.
        let Some(below) = floor_of(floors, other) else {
            return false;
        };
        floor_of(floors, room).is_some_and(|above| above > below)
            || room == "guest" && !GUEST_USES.contains(&other)
    };
    let wrong = arrows
        .iter()
        .filter(|((room, other), _)| is_wrong(room, other));
    let line = |((room, other), place): (&(String, String), &String)| {
        format!(
            "{place}: `{room}` may not use `{other}`: move what both need into a room below, pass it as an argument, or \
             change the table in docs/architecture.md and give the reason"
        )
    };
    wrong.map(line).collect()
}

/// Returns the rooms of a circle, if there is one.
fn circle(arrows: &Arrows) -> BTreeSet<String> {
    let mut rooms: BTreeSet<String> = arrows
        .keys()
        .flat_map(|(room, other)| [room.clone(), other.clone()])
        .collect();
    loop {
        let leads_on = |room: &String| {
            arrows
                .keys()
                .any(|(from, to)| from == room && rooms.contains(to))
        };
        let rest: BTreeSet<String> = rooms
            .iter()
            .filter(|room| leads_on(room))
            .cloned()
            .collect();
        if rest == rooms {
            return rest;
        }
        rooms = rest;
    }
}

fn the_table_has_every_room() {
    for tree in TREES {
        let floors = floors(tree);
        let directory = repository().join(tree.sources);
        for entry in fs::read_dir(&directory).unwrap() {
            let room = room_of(tree, &entry.unwrap().path());
            assert!(
                floor_of(&floors, &room).is_some(),
                "`{room}` of {} is not in the table of docs/architecture.md",
                tree.sources
            );
        }
        for room in floors.iter().flatten() {
            let there = directory.join(format!("{room}.rs")).exists()
                || directory.join(room).join("mod.rs").exists();
            assert!(
                there,
                "the table of docs/architecture.md has `{room}`, and {} has not",
                tree.sources
            );
        }
    }
}

fn arrows_point_down() {
    for tree in TREES {
        let wrong = against(&floors(tree), &arrows(tree));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn there_is_no_circle() {
    for tree in TREES {
        let circle = circle(&arrows(tree));
        assert!(circle.is_empty(), "these rooms need each other: {circle:?}");
    }
}

fn arrow(from: &str, to: &str) -> ((String, String), String) {
    ((from.into(), to.into()), "src/x.rs".into())
}

fn an_arrow_upwards_is_found() {
    let arrows = Arrows::from([
        arrow("host", "exit"),
        arrow("exit", "host"),
        arrow("guest", "host"),
    ]);
    let wrong = against(&floors(TREES[0]), &arrows);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].starts_with("src/x.rs: `guest` may not use `host`"),
        "{wrong:?}"
    );
    assert_eq!(
        named("use crate::exit::X;\n// crate::cli\nfn f() { crate::net::g() }\n"),
        ["exit", "net"]
    );
}

fn a_circle_is_found() {
    assert_eq!(
        circle(&Arrows::from([arrow("a", "b"), arrow("b", "c")])),
        BTreeSet::new()
    );
    let found = circle(&Arrows::from([
        arrow("a", "b"),
        arrow("b", "c"),
        arrow("c", "b"),
    ]));
    assert!(found.contains("b") && found.contains("c"), "{found:?}");
}
