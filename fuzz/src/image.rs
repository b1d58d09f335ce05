//! The loader and `inspect`: any bytes give an error or an image that the tender can rely on, and a
//! report that agrees. The bytes are also parsed as a manifest alone, as few inputs would reach
//! that code inside a file.

use std::ffi::OsString;
use std::io;
use std::mem::offset_of;
use std::path::Path;

use guest_abi::manifest::{Entry, Header};
use tender::arch::{Architecture, Native};
use tender::cli::{self, Command};
use tender::guest::era::Era;
use tender::guest::image::{Image, Source};
use tender::guest::manifest::{Manifest, Properties};
use tender::inspect::Report;
use tender::memory::{Access, GuestAddress, GuestMemory, Mapping, PAGE_SIZE};
use tender::report::message::Message;

/// Lowest address of an image, and the end of the largest memory.
const BASE: u64 = 0x10_0000;
const LIMIT: u64 = 1 << 32;

/// Start of the boot pages; below are the page tables.
const BOOT: u64 = 0x1_0000;

/// Size of a file whose end is omitted.
const SPARSE_SIZE: usize = 0x2000;

/// Parses `bytes` as a unikernel and as a manifest.
pub fn check(bytes: &[u8]) {
    let refusal = examine(bytes, bytes.len() as u64);
    if refusal.is_some_and(|refusal| refusal.contains("truncated")) && bytes.len() < SPARSE_SIZE {
        examine(&Sparse(bytes), SPARSE_SIZE as u64);
    }
    match Manifest::parse(bytes) {
        Ok(manifest) => check_manifest(&manifest, bytes),
        Err(error) => check_message(&Message::from(error).to_string()),
    }
}

/// A file that ends in zeros, so that small inputs can be complete unikernels.
struct Sparse<'b>(&'b [u8]);

impl Source for Sparse<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(SPARSE_SIZE as u64)
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(SPARSE_SIZE);
        let count = target.len().min(SPARSE_SIZE - start);
        let there = self.0.get(start..).unwrap_or_default();
        let copied = count.min(there.len());
        target[..copied].copy_from_slice(&there[..copied]);
        target[copied..count].fill(0);
        Ok(count)
    }
}

/// Returns the error, if it is not a unikernel.
fn examine(source: &(impl Source + ?Sized), size: u64) -> Option<String> {
    let report = Report::new(Path::new("app.hvt"), source);
    check_report(&report);
    match Image::parse(source) {
        Ok(image) => {
            check_image(&image, size);
            assert_eq!(report.refusal.is_none(), image.least_memory() <= LIMIT);
            assert_eq!(report.command_line().is_some(), report.refusal.is_none());
            None
        }
        Err(error) => {
            let refusal = Message::from(error).to_string();
            check_message(&refusal);
            assert!(report.refusal.as_ref() == Some(&refusal) && report.command_line().is_none());
            Some(refusal)
        }
    }
}

fn check_image(image: &Image, file_size: u64) {
    let mut end = BASE;
    for segment in &image.segments {
        assert!(segment.pages.start >= end && segment.pages.end <= LIMIT);
        assert!(
            segment.pages.start <= segment.memory.start && segment.memory.end <= segment.pages.end
        );
        assert!(segment.file.is_empty() || segment.file.end <= file_size);
        assert!(segment.file.end - segment.file.start <= segment.memory.end - segment.memory.start);
        end = segment.pages.end;
    }
    assert_eq!(image.end(), end);
    let mut next = BASE;
    for mapping in image.mappings(LIMIT) {
        assert!(
            mapping.range.start == next
                && mapping.range.end > next
                && mapping.range.end % PAGE_SIZE == 0
        );
        assert!(!mapping.range.contains(&image.entry) || mapping.access.is_executable());
        assert!(image.era == Era::Legacy || mapping.access != Access::All);
        next = mapping.range.end;
    }
    assert_eq!(next, LIMIT);
    check_tables(image);
}

/// Checks that the tables fit, or that the image is refused.
fn check_tables(image: &Image) {
    let size = image.least_memory().min(LIMIT);
    let mut mappings = vec![
        Mapping {
            range: 0..BOOT,
            access: Access::None,
        },
        Mapping {
            range: BOOT..BASE,
            access: image.era.rules().boot_pages,
        },
    ];
    mappings.extend(image.mappings(size));
    let mut memory = GuestMemory::new(BOOT + PAGE_SIZE).expect("68 KiB");
    if let Err(error) = Native::build_tables(&memory, &mappings) {
        check_message(&Message::from(error).to_string());
    }
    let after = memory
        .read::<[u8; 0x1000]>(GuestAddress(BOOT))
        .expect("it is there");
    assert!(
        after.iter().all(|&byte| byte == 0),
        "tables beyond their place"
    );
    memory.protect(mappings.to_vec());
}

fn check_manifest(manifest: &Manifest, bytes: &[u8]) {
    let mut expected = bytes.to_vec();
    for entry in expected[size_of::<Header>()..].chunks_exact_mut(size_of::<Entry>()) {
        // The tender's own fields: whatever the file has there, the guest finds zeros.
        entry[offset_of!(Entry, host)..][..8].fill(0);
        entry[offset_of!(Entry, pad)..].fill(0);
    }
    assert_eq!(manifest.to_bytes([]), expected);
    for device in manifest.devices() {
        assert!((1..64).contains(&device.handle));
        check_message(&device.option());
    }
    let attached = manifest.devices().iter();
    let attached = attached.map(|device| (device.handle, Properties::net([0xff; 6], u16::MAX)));
    assert_eq!(manifest.to_bytes(attached).len(), bytes.len());
}

/// Checks that the output of `inspect` has lines of text for any file, and that the suggested
/// command is one line.
fn check_report(report: &Report) {
    let text = report.to_text();
    let json = report.to_json();
    for lines in [&text, &json] {
        assert!(
            !lines.chars().any(|c| c.is_control() && c != '\n'),
            "{lines:?}"
        );
    }
    let Some(args) = report.command_line() else {
        return;
    };
    let devices = report.manifest.iter().flat_map(Manifest::devices).count();
    // The operator puts in what the command line has placeholders for.
    let args = args
        .into_iter()
        .map(|arg| arg.replace("=IFACE", "=tap0").replace("=PATH", "=disk.img"));
    let parsed = cli::parse(args.map(OsString::from));
    // With more devices, only the operator can distinguish them.
    let Ok(Command::Run(config)) = parsed else {
        assert!(devices > 1, "{parsed:?}");
        return;
    };
    assert_eq!(config.unikernel, report.file);
    assert!(config.memory.given >= report.least_memory.expect("it can be run"));
}

/// Checks that nothing from a file reaches the operator's terminal unescaped.
fn check_message(message: &str) {
    assert!(
        !message.is_empty() && !message.chars().any(char::is_control),
        "{message:?}"
    );
}
