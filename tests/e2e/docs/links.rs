//! Links between the documents work: the file exists, and has the heading. `cargo xtask book` checks
//! the same links in the book.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use libtest_mimic::Trial;

use crate::common::Need::Repository;
use crate::docs::repository;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(links_are_found, Repository),
        trial!(every_link_leads_somewhere, Repository),
    ]
}

/// Returns the targets of the links and pictures outside of code blocks, except for URLs.
fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|part| part.split("](").skip(1));
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains(':') && !target.contains(' '))
        .collect()
}

/// Returns the anchors that GitHub gives to the headings.
fn anchors(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.replace(' ', "-");
        kept.chars()
            .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect()
    };
    headings.map(anchor).collect()
}

/// Resolves `..` by name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Returns every Markdown file of the repository, except for build output.
fn documents(directory: &Path, found: &mut HashMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !path.is_symlink() && !name.starts_with('.') && name != "target" {
            documents(&path, found);
        } else if name.ends_with(".md") && path.is_file() {
            found.insert(path.clone(), fs::read_to_string(&path).unwrap());
        }
    }
}

fn links_are_found() {
    let text = "[a](b.md#c) ![d](e.svg)\n```\n[f](g)\n```\n[h](https://i.example) [j\nk](#l)";
    assert_eq!(links(text), ["b.md#c", "e.svg", "#l"]);
    assert_eq!(
        anchors("# A `b` (c)\n```\n# d\n```\n## E, f-g"),
        ["a-b-c", "e-f-g"]
    );
}

fn every_link_leads_somewhere() {
    let mut documents_by_path = HashMap::new();
    documents(repository(), &mut documents_by_path);
    assert!(documents_by_path.contains_key(&repository().join("README.md")));
    let mut broken = Vec::new();
    for (path, text) in &documents_by_path {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => plain(&path.parent().unwrap().join(file)),
            };
            let has_anchor = anchor.is_empty()
                || documents_by_path
                    .get(&target)
                    .is_some_and(|text| anchors(text).iter().any(|known| known == anchor));
            if !(target.exists() && has_anchor) {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links to nowhere: {broken:#?}");
}
