//! Files of the repository name only addresses that exist.

use std::fs::{self};

use libtest_mimic::Trial;

use crate::common::Need::Repository;
use crate::docs::repository;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(addresses_are_found, Repository),
        trial!(every_address_is_known_to_exist, Repository),
    ]
}

/// Addresses that files may contain: known sites, and names that cannot be registered.
const KNOWN: [&str; 17] = [
    "ghcr.io/tender-vmm/tender",
    "github.com/Solo5/solo5",
    "github.com/firecracker-microvm/firecracker",
    "github.com/hermit-os/uhyve",
    "github.com/qemu/qemu",
    "github.com/robur-coop/aussi",
    "github.com/rust-lang/crates.io-index",
    "github.com/tender-vmm/tender",
    "github.com/urunc-dev/urunc",
    "json-schema.org/draft/",
    "keepachangelog.com/",
    "semver.org/",
    "toml.io",
    "www.apache.org/licenses/",
    "www.debian.org/doc/",
    "www.gnu.org/software/",
    "www.w3.org/2000/svg",
];

/// Returns hosts and paths of URLs, of repositories without a scheme, and of mail addresses in
/// angle brackets.
fn addresses(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~:/@{}[]%".contains(c);
    let up_to_the_end = |rest: &str| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let urls = text
        .match_indices("://")
        .map(|(at, scheme)| at + scheme.len());
    let sites = ["github.com/", "gitlab.com/", "codeberg.org/", "git@"];
    let repositories = sites
        .into_iter()
        .flat_map(|site| text.match_indices(site))
        .map(|(at, _)| at);
    let found = urls
        .chain(repositories)
        .map(|at| &text[at..][..up_to_the_end(&text[at..])]);
    let brackets = text
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(inside, _)| inside);
    let mails = brackets
        .filter(|inside| inside.contains('.') && !inside.contains([' ', '/']))
        .filter_map(|inside| inside.split_once('@'));
    found.chain(mails.map(|(_, host)| host)).collect()
}

/// Whether it is one of [`KNOWN`], this host, a number, made up at run time or reserved for
/// examples.
fn is_known(address: &str) -> bool {
    let host = address
        .split(['/', ':'])
        .next()
        .unwrap_or(address)
        .trim_end_matches('.');
    let reserved = [
        "example",
        "example.com",
        "example.net",
        "example.org",
        "localhost",
    ];
    let is_reserved = reserved
        .iter()
        .any(|name| host == *name || host.ends_with(&format!(".{name}")));
    let is_number = host.starts_with(|c: char| c.is_ascii_digit() || c == '{' || c == '[');
    host.is_empty()
        || is_reserved
        || is_number
        || KNOWN.iter().any(|known| address.starts_with(known))
}

fn addresses_are_found() {
    let text = "at https://a.net/b, (ssh://git@c.org:22/d) github.com/e/f; <g@h.io> unit@x.service <i> </dev/null> //";
    let found = addresses(text);
    assert_eq!(
        found,
        [
            "a.net/b",
            "git@c.org:22/d",
            "github.com/e/f",
            "git@c.org:22/d",
            "h.io"
        ]
    );
    assert!(found.into_iter().all(|address| !is_known(address)));
    for known in [
        "127.0.0.1:9111/metrics",
        "a.example/b",
        "www.example.org",
        "localhost",
        "{address}/",
        "toml.io",
    ] {
        assert!(is_known(known), "{known}");
    }
    assert!(!is_known("anexample.org") && !is_known("github.com/stranger/solo5"));
}

/// No document, message or package contains an address that a stranger could register.
fn every_address_is_known_to_exist() {
    let mut unknown = Vec::new();
    let mut directories = vec![repository().to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            // Without build output, fuzzer input, and this file.
            if ["target", ".git", "bin", "corpus", "seeds", "addresses.rs"].contains(&name) {
                continue;
            } else if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let others = addresses(&text)
                    .into_iter()
                    .filter(|address| !is_known(address))
                    .map(str::to_owned);
                unknown.extend(others.map(|address| (path.clone(), address)));
            }
        }
    }
    assert!(unknown.is_empty(), "not known to exist: {unknown:#?}");
}
