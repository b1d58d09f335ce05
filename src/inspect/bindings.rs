//! Finds the version of the Solo5 bindings in a unikernel, near the banner that they print at the
//! start. They print it since 0.6 (section 12 of `docs/hvt-abi.md`); no field of the file has it.

use crate::guest::image::{OVERLAP, Segment, Source, search};

/// The banner before the version.
const BANNER: &[u8] = b"Solo5: Bindings version ";

/// Maximum distance of the version from the banner, in bytes: both are constants of one source
/// file.
const NEAR: u64 = 4096;

/// Returns the version, if there is exactly one candidate.
pub fn version(source: &(impl Source + ?Sized), segments: &[Segment]) -> Option<String> {
    let mut banner = None;
    let mut candidates: Vec<(u64, String)> = Vec::new();
    let examine = |offset: u64, piece: &[u8]| {
        if banner.is_none() {
            banner = find(piece, BANNER).map(|at| offset + at as u64);
        }
        for (at, version) in versions(piece) {
            if candidates.len() < MOST {
                candidates.push((offset + at as u64, version));
            }
        }
    };
    search(
        source,
        segments.iter().map(|segment| segment.file.clone()),
        examine,
    )
    .ok()?;
    let banner = banner?;
    candidates.retain(|(at, _)| at.abs_diff(banner) <= NEAR);
    let (_, version) = candidates.first()?;
    candidates
        .iter()
        .all(|(_, other)| other == version)
        .then(|| version.clone())
}

/// Maximum number of candidates; no honest file has more.
const MOST: usize = 4096;

fn find(piece: &[u8], pattern: &[u8]) -> Option<usize> {
    piece
        .windows(pattern.len())
        .position(|window| window == pattern)
}

/// Returns all strings between two NULs that look like a version of Solo5: `v0.N.N`, optionally
/// with git's suffix.
fn versions(piece: &[u8]) -> impl Iterator<Item = (usize, String)> {
    let starts = piece
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == b"\0v0.");
    starts.filter_map(|(at, _)| {
        let text = &piece[at + 1..];
        let end = text.iter().take(OVERLAP).position(|&byte| byte == 0)?;
        let version = std::str::from_utf8(&text[..end]).ok()?;
        is_version(version).then(|| (at + 1, version.to_owned()))
    })
}

fn is_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("v0.") else {
        return false;
    };
    let (numbers, suffix) = rest.split_once('-').unwrap_or((rest, ""));
    let is_number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = numbers.split('.');
    let both = parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number);
    both && parts.next().is_none()
        && suffix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte))
}
