//! A core file, read by goblin.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;

use crate::common::{Output, fixture, text};

/// Returns the files in a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// A core file and its contents.
pub struct Core {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Core {
    /// Reads the only file in a directory; `tender` must have logged how to open it.
    #[track_caller]
    pub fn in_directory(directory: &Path, output: &Output, name: &str) -> Core {
        let [path] = &files(directory)[..] else {
            panic!("not one file: {:?}, {output:#?}", files(directory))
        };
        let file_name = text(path.file_name().unwrap().as_ref());
        assert!(
            file_name
                .strip_prefix("core.tender.")
                .is_some_and(|pid| pid.parse::<u32>().is_ok()),
            "{path:?}"
        );
        output.complains(&format!(
            "open it with: gdb {} {}\n",
            text(&fixture(name)),
            text(path)
        ));
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600);
        let taken = metadata.blocks() * 512;
        assert!(
            taken < metadata.len() / 2,
            "{taken} bytes of {} are on disk",
            metadata.len()
        );
        Core {
            bytes: fs::read(path).unwrap(),
            path: path.clone(),
        }
    }

    /// Returns the guest's memory.
    pub fn memory(&self) -> &[u8] {
        let elf = Elf::parse(&self.bytes).unwrap();
        let segment = elf
            .program_headers
            .iter()
            .find(|segment| segment.p_type == PT_LOAD)
            .expect("there is memory");
        assert_eq!(
            (segment.p_vaddr, segment.p_paddr, segment.p_filesz),
            (0, 0, segment.p_memsz)
        );
        assert_eq!(segment.p_offset + segment.p_filesz, self.bytes.len() as u64);
        &self.bytes[segment.p_offset as usize..]
    }

    /// Returns the contents of the note of this kind.
    pub fn note(&self, kind: u32) -> &[u8] {
        let elf = Elf::parse(&self.bytes).unwrap();
        let mut notes = elf
            .iter_note_headers(&self.bytes)
            .unwrap()
            .map(Result::unwrap);
        notes
            .find(|note| note.name == "CORE" && note.n_type == kind)
            .expect("there is such a note")
            .desc
    }

    /// Returns a general register, by its index in Linux's `elf_gregset_t`.
    pub fn register(&self, place: usize) -> u64 {
        u64_at(self.note(1), 112 + 8 * place)
    }

    pub fn pc(&self) -> u64 {
        self.register(if cfg!(target_arch = "x86_64") { 16 } else { 32 })
    }

    pub fn sp(&self) -> u64 {
        self.register(if cfg!(target_arch = "x86_64") { 19 } else { 31 })
    }

    /// Returns the process ID of `tender` and the signal.
    pub fn process_and_signal(&self) -> (u64, u64) {
        let half = |offset| u64_at(self.note(1), offset) & 0xffff_ffff;
        (half(32), half(12))
    }
}

pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}
