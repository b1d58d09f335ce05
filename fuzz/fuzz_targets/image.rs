//! The loader: whatever the bytes, an error or an image that the rest of the tender can rely on. The same bytes are
//! tried as a manifest of their own, too, which few of them would reach inside of a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tender::image::Image;
use tender::manifest::Manifest;
use tender::memory::{Access, PAGE_SIZE};

/// Lowest address of an image, and the end of the largest memory.
const BASE: u64 = 0x10_0000;
const LIMIT: u64 = 1 << 32;

fuzz_target!(|bytes: &[u8]| {
    match Image::parse(bytes) {
        Ok(image) => check(&image, bytes.len() as u64),
        Err(error) => check_message(&error.to_string()),
    }
    match Manifest::parse(bytes) {
        Ok(manifest) => assert_eq!(manifest.to_bytes(), bytes),
        Err(error) => check_message(&error.to_string()),
    }
});

fn check(image: &Image, file_size: u64) {
    let mut end = BASE;
    for segment in &image.segments {
        assert!(segment.pages.start >= end && segment.pages.end <= LIMIT);
        assert!(segment.pages.start <= segment.memory.start && segment.memory.end <= segment.pages.end);
        assert!(segment.file.is_empty() || segment.file.end <= file_size);
        assert!(segment.file.end - segment.file.start <= segment.memory.end - segment.memory.start);
        end = segment.pages.end;
    }
    assert_eq!(image.end(), end);
    let mut next = BASE;
    for mapping in image.mappings(LIMIT) {
        assert!(mapping.range.start == next && mapping.range.end > next && mapping.range.end % PAGE_SIZE == 0);
        assert!(!mapping.range.contains(&image.entry) || mapping.access == Access::ReadExecute);
        next = mapping.range.end;
    }
    assert_eq!(next, LIMIT);
}

/// Nothing in a file writes to the operator's terminal.
fn check_message(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
