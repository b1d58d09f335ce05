//! Known file formats, by their first bytes: for hints about a file that is no unikernel or no raw
//! disk image.

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Description for messages.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A disk image that is not raw.
    Disk,
    /// Compressed; the name includes the program that decompresses it.
    Packed,
    /// Possible start of a raw disk as well.
    Other,
    /// Impossible start of a raw disk.
    Foreign,
}

/// Bytes of a file that [`Format::of`] examines.
pub const LOOKED_AT: usize = 128;

/// A mark of a format: its offset in the file, its bytes, and the name of the format.
type Mark = (usize, &'static [u8], &'static str);

const FOREIGN: [Mark; 3] = [
    (0, b"#!", "a script"),
    (0, b"\x7fELF", "an ELF file, as unikernels are"),
    (0, b"!<arch>", "an ar archive"),
];

const PACKED: [Mark; 11] = [
    (0, b"\x1f\x8b\x08", "gzip-compressed (gunzip it first)"),
    (0, b"\xfd7zXZ\0", "xz-compressed (unxz it first)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed (unzstd it first)"),
    (4, b"1AY&SY", "bzip2-compressed (bunzip2 it first)"),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed (unlz4 it first)"),
    (0, b"LZIP", "lzip-compressed (lunzip it first)"),
    (0, b"\x89LZO\0", "lzop-compressed (lzop -d it first)"),
    (0, b"\x1f\x9d", "compressed (uncompress it first)"),
    (0, b"\x5d\0\0\x80\0", "lzma-compressed (unlzma it first)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive (7z x it first)"),
    (0, b"PK\x03\x04", "a zip archive (unzip it first)"),
];

const DISK: [Mark; 9] = [
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"QED\0", "a QED disk image"),
    (0, b"KDMV", "a VMware (vmdk) disk image"),
    (0, b"COWD", "a VMware (vmdk) disk image"),
    (0, b"# Disk DescriptorFile", "a VMware (vmdk) disk image"),
    (0, b"vhdxfile", "a vhdx disk image"),
    (0, b"conectix", "a vhd disk image"),
    (0, b"WithoutFreeSpace", "a Parallels disk image"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox (vdi) disk image"),
];

const OTHER: [Mark; 1] = [(0, b"MZ", "a PE program")];

const KNOWN: [(Kind, &[Mark]); 4] = [
    (Kind::Foreign, &FOREIGN),
    (Kind::Packed, &PACKED),
    (Kind::Disk, &DISK),
    (Kind::Other, &OTHER),
];

impl Format {
    /// Recognises a format by the first bytes of a file.
    pub fn of(start: &[u8]) -> Option<Format> {
        for (kind, marks) in KNOWN {
            for &(at, mark, name) in marks {
                if start.get(at..).is_some_and(|rest| rest.starts_with(mark)) {
                    return Some(Format { name, kind });
                }
            }
        }
        is_text(start).then_some(Format {
            name: "a text file",
            kind: Kind::Other,
        })
    }

    /// Whether no raw disk image begins like this.
    pub fn is_no_disk(self) -> bool {
        self.kind != Kind::Other
    }

    /// Hint for a file given as a raw disk image.
    pub fn hint(self) -> &'static str {
        match self.kind {
            Kind::Disk => "'qemu-img convert -O raw' makes a raw image of it",
            Kind::Packed => "give its decompressed content",
            Kind::Other | Kind::Foreign => "give a raw disk image",
        }
    }
}

/// Whether this is the start of a text; the last character may be cut.
fn is_text(start: &[u8]) -> bool {
    let whole = match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_some() => return false,
        Err(error) => error.valid_up_to(),
        Ok(text) => text.len(),
    };
    start[..whole]
        .iter()
        .all(|byte| !byte.is_ascii_control() || b"\t\n\r".contains(byte))
}
