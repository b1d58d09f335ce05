//! What a file evidently is, by its first bytes: for a file that is given where a unikernel or a raw disk image belongs.

/// A form that a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// What such a file is, for messages.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A disk image that is not raw.
    Disk,
    /// Compressed; the name has the program that undoes it.
    Packed,
    /// May be the beginning of a disk's content as well.
    Other,
    /// Is none of a disk's.
    Foreign,
}

/// How many bytes of a file [`Format::of`] looks at.
pub const LOOKED_AT: usize = 128;

const KNOWN: [(usize, &[u8], &str, Kind); 24] = [
    (0, b"#!", "a script", Kind::Foreign),
    (0, b"\x1f\x8b\x08", "gzip-compressed (gunzip it first)", Kind::Packed),
    (0, b"\xfd7zXZ\0", "xz-compressed (unxz it first)", Kind::Packed),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed (unzstd it first)", Kind::Packed),
    (4, b"1AY&SY", "bzip2-compressed (bunzip2 it first)", Kind::Packed),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed (unlz4 it first)", Kind::Packed),
    (0, b"LZIP", "lzip-compressed (lunzip it first)", Kind::Packed),
    (0, b"\x89LZO\0", "lzop-compressed (lzop -d it first)", Kind::Packed),
    (0, b"\x1f\x9d", "compressed (uncompress it first)", Kind::Packed),
    (0, b"\x5d\0\0\x80\0", "lzma-compressed (unlzma it first)", Kind::Packed),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive (7z x it first)", Kind::Packed),
    (0, b"PK\x03\x04", "a zip archive (unzip it first)", Kind::Packed),
    (0, b"QFI\xfb", "a qcow2 disk image", Kind::Disk),
    (0, b"QED\0", "a QED disk image", Kind::Disk),
    (0, b"KDMV", "a VMware (vmdk) disk image", Kind::Disk),
    (0, b"COWD", "a VMware (vmdk) disk image", Kind::Disk),
    (0, b"# Disk DescriptorFile", "a VMware (vmdk) disk image", Kind::Disk),
    (0, b"vhdxfile", "a vhdx disk image", Kind::Disk),
    (0, b"conectix", "a vhd disk image", Kind::Disk),
    (0, b"WithoutFreeSpace", "a Parallels disk image", Kind::Disk),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox (vdi) disk image", Kind::Disk),
    (0, b"\x7fELF", "an ELF file, as unikernels are", Kind::Foreign),
    (0, b"!<arch>", "an ar archive", Kind::Foreign),
    (0, b"MZ", "a PE program", Kind::Other),
];

impl Format {
    /// The form of a file that begins so, if it is one of those that are known.
    pub fn of(start: &[u8]) -> Option<Format> {
        let begins = |&&(at, magic, ..): &&(usize, &[u8], &str, Kind)| {
            start.get(at..).is_some_and(|rest| rest.starts_with(magic))
        };
        if let Some(&(_, _, name, kind)) = KNOWN.iter().find(begins) {
            return Some(Format { name, kind });
        }
        is_text(start).then_some(Format { name: "a text file", kind: Kind::Other })
    }

    /// Whether no raw disk image begins so.
    pub fn is_no_disk(self) -> bool {
        self.kind != Kind::Other
    }

    /// What to do where a raw disk image was meant.
    pub fn hint(self) -> &'static str {
        match self.kind {
            Kind::Disk => "'qemu-img convert -O raw' makes a raw image of it",
            Kind::Packed => "give what is in it",
            Kind::Other | Kind::Foreign => "give a raw disk image",
        }
    }
}

/// Whether this is the start of a text, which may end in the middle of a character.
fn is_text(start: &[u8]) -> bool {
    let whole = match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_some() => return false,
        Err(error) => error.valid_up_to(),
        Ok(text) => text.len(),
    };
    start[..whole].iter().all(|byte| !byte.is_ascii_control() || b"\t\n\r".contains(byte))
}
