//! Finds the version of the Solo5 bindings in a unikernel, near the banner that they print at the
//! start. They print it since 0.6 (section 12 of `docs/hvt-abi.md`); no field of the file has it.

use crate::guest::image::{Segment, Source, search};

/// The banner before the version.
const BANNER: &[u8] = b"Solo5: Bindings version ";

/// Maximum distance of the version from the banner, in bytes: both are constants of one source
/// file.
const NEAR: u64 = 4096;

/// Returns the version, if there is exactly one near the banner.
pub(super) fn version(source: &(impl Source + ?Sized), segments: &[Segment]) -> Option<String> {
    let mut banner = None;
    let files = segments.iter().map(|segment| segment.file.clone());
    let find = |offset, piece: &[u8]| {
        if banner.is_none() {
            let place = piece.windows(BANNER.len()).position(|at| at == BANNER);
            banner = place.map(|place| offset + place as u64);
        }
    };
    search(source, files, find).ok()?;
    let banner = banner?;
    let mut near = Vec::new();
    let range = banner.saturating_sub(NEAR)..banner.saturating_add(NEAR);
    let parts = segments.iter().map(|segment| {
        let (start, end) = (
            segment.file.start.max(range.start),
            segment.file.end.min(range.end),
        );
        start..end.max(start)
    });
    search(source, parts, |_, piece| near.extend_from_slice(piece)).ok()?;
    // Strings end with a NUL; the first may be incomplete.
    let strings = near.split_inclusive(|&byte| byte == 0).skip(1);
    let mut versions = strings.filter_map(|string| {
        let text = std::str::from_utf8(string.strip_suffix(b"\0")?).ok()?;
        is_version(text).then_some(text)
    });
    let version = versions.next()?;
    versions
        .all(|other| other == version)
        .then(|| version.to_owned())
}

/// Returns whether this is a version of Solo5: `v0.N.N`, optionally with git's suffix.
fn is_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("v0.") else {
        return false;
    };
    let (numbers, suffix) = rest.split_once('-').unwrap_or((rest, ""));
    let is_number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_suffix = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
    numbers
        .split_once('.')
        .is_some_and(|(minor, patch)| is_number(minor) && is_number(patch))
        && suffix.bytes().all(is_suffix)
}
