//! Inputs for the fuzz target `image` from the test unikernels: small files with the same headers
//! and notes, and the manifests alone.

use std::fs;
use std::path::Path;

use crate::base::error::{Context, Result};
use crate::build::arch::Arch;
use crate::build::elf::{PT_LOAD, PT_NOTE, number};
use crate::build::fixtures;

/// Writes the inputs into the directory `corpus`.
pub fn grow(corpus: &Path) -> Result<()> {
    for arch in Arch::ALL {
        let dir = fixtures::directory(arch);
        let entries = fs::read_dir(&dir).context(dir.display())?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{}-{name}", arch.name());
            let unikernel = fs::read(&path).context(path.display())?;
            let keep = |name: &str, input: &[u8]| {
                let place = corpus.join(name);
                fs::write(&place, input).context(place.display())
            };
            keep(&name, &hollow(&unikernel).context(path.display())?)?;
            if let Some(manifest) = manifest(&unikernel) {
                keep(&format!("{name}-manifest"), manifest)?;
            }
        }
    }
    Ok(())
}

/// Returns a unikernel without the content of its segments: ELF header, program headers, notes.
fn hollow(elf: &[u8]) -> Result<Vec<u8>> {
    let (table, size) = (number(elf, 32, 8)?, number(elf, 54, 2)?);
    let end = table + size * number(elf, 56, 2)?;
    number(elf, end, 0)?;
    let mut small = elf[..end as usize].to_vec();
    for at in (table..end).step_by(size as usize) {
        let (offset, length) = (number(elf, at + 8, 8)?, number(elf, at + 32, 8)?);
        let at = at as usize;
        match number(elf, at as u64, 4)? {
            PT_LOAD => small[at + 32..at + 40].fill(0),
            PT_NOTE => {
                number(elf, offset + length, 0)?;
                small.resize(small.len().next_multiple_of(8), 0);
                let place = small.len() as u64;
                small[at + 8..at + 16].copy_from_slice(&place.to_le_bytes());
                small.extend_from_slice(&elf[offset as usize..(offset + length) as usize]);
            }
            _ => {}
        }
    }
    Ok(small)
}

/// Returns the content of the manifest note; the oldest unikernels have none.
fn manifest(elf: &[u8]) -> Option<&[u8]> {
    const TYPE_AND_NAME: &[u8] = b"MFT1Solo5\0\0\0";
    let mut places = elf.windows(TYPE_AND_NAME.len());
    let note = places.position(|bytes| bytes == TYPE_AND_NAME)?;
    let length = number(elf, note as u64 - 4, 4).ok()?;
    elf.get(note + TYPE_AND_NAME.len()..)?
        .get(..length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_small_and_keep_the_notes() {
        let file = fixtures::directory(Arch::X86_64).join("net2.hvt");
        let elf = fs::read(file).unwrap();
        let (small, manifest) = (hollow(&elf).unwrap(), manifest(&elf).unwrap());
        assert!(small.len() < 2048);
        assert!(small.windows(manifest.len()).any(|part| part == manifest));
        assert!(hollow(&elf[..100]).is_err());
    }
}
