//! The walk of docs/service.md, and the unit of docs/without-kvm.md: each block of these pages is a
//! step, as it is printed.

use super::step::Step;

const PAGE: &str = include_str!("../../../docs/service.md");
const WITHOUT_KVM: &str = include_str!("../../../docs/without-kvm.md");

/// What the output of each block must contain, in the order of the page.
const SHOWS: [&[&str]; 8] = [
    &["master br100", "group kvm"],
    &["NET_BASIC"],
    &[],
    &[],
    &["Active: active (running)", "Status: \"ABI version 2"],
    &["<title>"],
    &["tender-web[", "listening on 8080/TCP", "GET / 200 OK"],
    &["tender_guest_memory_bytes"],
];

pub fn steps() -> Vec<Step> {
    let steps = blocks(PAGE).into_iter().zip(SHOWS);
    steps
        .map(|((title, run), shows)| Step::new(title, run).shows(shows))
        .collect()
}

/// Allows a unit to run a unikernel without KVM.
pub fn without_kvm() -> impl Iterator<Item = Step> {
    let blocks = blocks(WITHOUT_KVM).into_iter();
    blocks.map(|(_, run)| Step::new("A unit without KVM: the drop-in", run))
}

/// Returns the blocks that need only systemd, each with the bold text before it. A block of TOML
/// becomes the command that writes it.
fn blocks(page: &'static str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut pieces = page.split("*Needs systemd:*\n```");
    let (mut before, mut title) = (pieces.next().unwrap_or_default(), "");
    for piece in pieces {
        if let Some((_, bold)) = before.rsplit_once("\n**") {
            title = bold.split("**").next().unwrap_or_default();
        }
        let block = piece.split("\n```").next().unwrap_or_default();
        match block.split_once('\n') {
            Some(("sh", text)) => found.push((title, text.to_owned())),
            Some(("toml", text)) => {
                let run = format!("cat >/etc/tender/web.toml <<'END'\n{text}\nEND");
                found.push((title, run));
            }
            _ => {}
        }
        before = piece;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_the_page_is_a_step() {
        let blocks = blocks(PAGE);
        assert_eq!(blocks.len(), SHOWS.len());
        assert!(blocks[0].0.starts_with("1. Tap"));
        assert_eq!(blocks[7].0, "8. Metrics.");
        let (_, file) = &blocks[3];
        assert!(file.contains("web.toml <<'END'\nunikernel = "));
        assert!(file.ends_with("tap = \"tap101\"\nEND"));
        assert!(blocks.iter().all(|(_, run)| !run.contains("```")));
        assert_eq!(without_kvm().count(), 1);
    }
}
