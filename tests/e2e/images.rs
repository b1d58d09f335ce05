//! Files that are no unikernels for this machine: each error names the kind of the file and the
//! expected kind.

use libtest_mimic::Trial;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::common::Need::Kvm;
use crate::common::{self, Output, fixture, run, tender};
use guest_abi::note::{NAME, TYPE_ABI1, target};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(paths_that_are_no_file_are_refused),
        trial!(files_that_are_not_elf_are_refused),
        trial!(an_ordinary_program_is_refused),
        trial!(a_truncated_unikernel_is_refused),
        trial!(unikernels_for_other_targets_are_refused),
        trial!(unikernels_of_other_versions_are_refused),
        trial!(a_unikernel_for_another_processor_is_refused),
        trial!(a_damaged_manifest_is_refused),
        trial!(an_image_that_does_not_fit_is_reported_with_its_size),
        trial!(a_large_image_runs_with_what_it_needs, Kvm),
        trial!(notes_that_share_a_segment_are_read, Kvm),
        trial!(permissions_of_segments_are_those_of_the_file, Kvm),
    ]
}

/// Type of a program header of notes.
const PT_NOTE: u32 = 4;

/// Runs a file with 16 MiB of memory.
fn load(path: &Path) -> Output {
    run(tender(["--mem=16"]).arg(path))
}

/// Runs a file with these contents, called `image.hvt`.
fn load_bytes(bytes: &[u8]) -> Output {
    let directory = common::directory();
    let path = directory.path().join("image.hvt");
    fs::write(&path, bytes).unwrap();
    load(&path)
}

/// A copy of a unikernel's file, to be changed.
fn copy(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

fn number(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// Offsets of the program headers of this type: ELF64, section 6.2.
fn program_headers(bytes: &[u8], kind: u32) -> Vec<usize> {
    let start = number(bytes, 32) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let headers = (0..count).map(|i| start + i * 56);
    headers
        .filter(|&offset| bytes[offset..offset + 4] == kind.to_le_bytes())
        .collect()
}

/// Offset of the content of the ABI note, which follows the note's type and name.
fn abi_note(bytes: &[u8]) -> usize {
    let start = [&TYPE_ABI1.to_le_bytes()[..], &NAME].concat();
    bytes
        .windows(start.len())
        .position(|window| window == start)
        .expect("every unikernel has an ABI note")
        + 12
}

fn paths_that_are_no_file_are_refused() {
    let directory = common::directory();
    load(directory.path()).is_refused(&["a directory", "hvt unikernel"]);
    load(Path::new("/dev/null")).is_refused(&["/dev/null", "a device"]);
    load(&directory.path().join("none.hvt")).is_refused(&["none.hvt", "No such file"]);
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    load(&socket).is_refused(&["socket"]);
    // The pipe has no writer, and `tender` must not wait for one.
    let pipe = directory.path().join("pipe");
    let name = std::ffi::CString::new(common::text(&pipe)).unwrap();
    // SAFETY: the name ends with a NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    load(&pipe).is_refused(&["pipe"]);
}

fn files_that_are_not_elf_are_refused() {
    load_bytes(b"").is_refused(&["image.hvt", "empty", "hvt unikernel"]);
    load_bytes(b"Hello\n").is_refused(&["a text file", "hvt unikernel"]);
    load_bytes(b"#!/bin/sh\nexit 0\n").is_refused(&["a script"]);
    load_bytes(b"\x1f\x8b\x08\x00rest").is_refused(&["gzip", "gunzip"]);
    load_bytes(&[0; 4096]).is_refused(&["unknown kind", "ELF"]);
    load_bytes(b"\x7fELF").is_refused(&["truncated"]);
    load_bytes(b"\x7fEL").is_refused(&["not an ELF file"]);
}

fn an_ordinary_program_is_refused() {
    // The test program: static or not, it has no unikernel's note.
    load(&common::ordinary_program()).is_refused(&["ordinary program"]);
}

fn a_truncated_unikernel_is_refused() {
    let whole = copy("hello");
    // Within the header, after it, and before the end of the last segment.
    for length in [63, 64, 100, 4096, 0x3100] {
        load_bytes(&whole[..length]).is_refused(&["image.hvt", "truncated"]);
    }
}

fn unikernels_for_other_targets_are_refused() {
    let targets = [
        (target::SPT, "spt"),
        (target::VIRTIO, "virtio"),
        (target::MUEN, "muen"),
        (target::GENODE, "genode"),
        (target::XEN, "xen"),
        (99, "99"),
    ];
    for (number, name) in targets {
        let mut bytes = copy("hello");
        let note = abi_note(&bytes);
        put(&mut bytes, note, &number.to_le_bytes());
        load_bytes(&bytes).is_refused(&[name, "hvt"]);
    }
}

fn unikernels_of_other_versions_are_refused() {
    for version in [0u32, 3, u32::MAX] {
        let mut bytes = copy("hello");
        let note = abi_note(&bytes);
        put(&mut bytes, note + 4, &version.to_le_bytes());
        load_bytes(&bytes).is_refused(&[&format!("version {version}")]);
    }
}

fn a_unikernel_for_another_processor_is_refused() {
    let mut bytes = copy("hello");
    let (other, name) = if cfg!(target_arch = "x86_64") {
        (183u16, "aarch64")
    } else {
        (62, "x86_64")
    };
    put(&mut bytes, 18, &other.to_le_bytes());
    load_bytes(&bytes).is_refused(&[name, std::env::consts::ARCH]);
    put(&mut bytes, 18, &243u16.to_le_bytes());
    load_bytes(&bytes).is_refused(&["243"]);
    // A real one, if the tests run in the repository.
    if let Some(path) = common::foreign_fixture("hello") {
        load(&path).is_refused(&[name, std::env::consts::ARCH]);
    }
}

fn a_damaged_manifest_is_refused() {
    let whole = copy("net");
    let name = whole
        .windows(8)
        .position(|window| window == b"service\0")
        .expect("its device is called that");
    // The type of the entry follows its name of 68 bytes; the first entry precedes it, and the
    // header precedes that.
    for (offset, value, word) in [
        (name + 68, 9, "9"),
        (name - 8 - 104, 9, "version"),
        (name - 4 - 104, 0, "0 entries"),
    ] {
        let mut bytes = whole.clone();
        put(&mut bytes, offset, &[value]);
        load_bytes(&bytes).is_refused(&["manifest", word]);
    }
}

/// hello, with 20 MiB more of zeros after its last segment.
fn large() -> Vec<u8> {
    let mut bytes = copy("hello");
    let last = *program_headers(&bytes, 1).last().unwrap();
    let size = number(&bytes, last + 40) + (20 << 20);
    put(&mut bytes, last + 40, &size.to_le_bytes());
    bytes
}

fn an_image_that_does_not_fit_is_reported_with_its_size() {
    load_bytes(&large()).is_refused(&["got 16", "--mem=22"]);
}

fn a_large_image_runs_with_what_it_needs() {
    let directory = common::directory();
    let path = directory.path().join("large.hvt");
    fs::write(&path, large()).unwrap();
    run(tender(["--mem=22"]).arg(&path).arg("here"))
        .exits(0)
        .is_quiet()
        .prints("hello: here\n");
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    run(tender(["--mem=22"]).arg(&path).arg("still"))
        .exits(0)
        .is_quiet()
        .prints("hello: still\n");
}

/// As linkers that merge notes lay them out: both in one segment after a build ID, and one note of
/// another owner in a separate segment.
fn notes_that_share_a_segment_are_read() {
    let whole = copy("hello");
    let notes = program_headers(&whole, PT_NOTE);
    let content = |header: &usize| {
        let start = number(&whole, header + 8) as usize;
        whole[start..start + number(&whole, header + 32) as usize].to_vec()
    };
    let build_id = [
        &[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..],
        b"GNU\0",
        &[0x11; 20],
    ]
    .concat();
    let [first, second] = [0, 1].map(|index| content(&notes[index]));
    let gap = vec![0; 4];
    for merged in [
        [&build_id[..], &first, &second].concat(),
        [&second[..], &gap, &first, &build_id].concat(),
    ] {
        for alone in [&[][..], &build_id] {
            let mut bytes = whole.clone();
            for (&header, content) in notes.iter().zip([&merged[..], alone]) {
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                let place = [bytes.len(), 0, 0, content.len(), content.len(), 4]
                    .map(|word| (word as u64).to_le_bytes());
                put(&mut bytes, header + 8, &place.concat());
                bytes.extend_from_slice(content);
                if content.is_empty() {
                    put(&mut bytes, header, &[0; 4]);
                }
            }
            load_bytes(&bytes).exits(0).is_quiet().prints("hello");
        }
    }
}

/// A segment that is both writable and executable is refused; one whose text may also be read is
/// not.
fn permissions_of_segments_are_those_of_the_file() {
    let mut bytes = copy("hello");
    let text = program_headers(&bytes, 1)
        .into_iter()
        .find(|&header| bytes[header + 4] & 1 == 1)
        .unwrap();
    bytes[text + 4] = 0b111;
    load_bytes(&bytes).is_refused(&["writable and executable"]);
    bytes[text + 4] = 0b101;
    load_bytes(&bytes).exits(0).is_quiet();
}
