//! Just enough of ELF to check that a program needs only a kernel.

use crate::base::error::{Result, fail};
use crate::build::arch::Arch;

pub const PT_LOAD: u64 = 1;
pub const PT_NOTE: u64 = 4;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;

/// Refuses a program that is for another machine, or that needs a loader or a library. A
/// position-independent static program (static-pie) has a dynamic section too, but needs none of
/// them.
pub fn check_static(bytes: &[u8], arch: Arch) -> Result<()> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return fail("it is no 64-bit little-endian ELF file");
    }
    if number(bytes, 18, 2)? != u64::from(arch.elf_machine()) {
        return fail(format!("it is not for {}", arch.name()));
    }
    let (table, size, count) = (
        number(bytes, 32, 8)?,
        number(bytes, 54, 2)?,
        number(bytes, 56, 2)?,
    );
    for index in 0..count {
        let at = table + index * size;
        match number(bytes, at, 4)? {
            PT_INTERP => return fail("it needs a dynamic loader (PT_INTERP)"),
            PT_DYNAMIC => {
                check_dynamic(bytes, number(bytes, at + 8, 8)?, number(bytes, at + 32, 8)?)?
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the size of the section `name`, if there is one.
pub fn section_size(bytes: &[u8], name: &str) -> Result<Option<u64>> {
    let (table, size, count, names) = (
        number(bytes, 40, 8)?,
        number(bytes, 58, 2)?,
        number(bytes, 60, 2)?,
        number(bytes, 62, 2)?,
    );
    let names = number(bytes, table + names * size + 24, 8)?;
    for index in 0..count {
        let at = table + index * size;
        let start = (names + number(bytes, at, 4)?) as usize;
        let found = bytes
            .get(start..)
            .and_then(|rest| rest.split(|byte| *byte == 0).next());
        if found == Some(name.as_bytes()) {
            return number(bytes, at + 32, 8).map(Some);
        }
    }
    Ok(None)
}

fn check_dynamic(bytes: &[u8], offset: u64, length: u64) -> Result<()> {
    for at in (offset..offset + length).step_by(16) {
        match number(bytes, at, 8)? {
            0 => break,
            DT_NEEDED => return fail("it needs a shared library (DT_NEEDED)"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the little-endian number of `size` bytes at `offset`.
pub fn number(bytes: &[u8], offset: u64, size: usize) -> Result<u64> {
    let offset = offset as usize;
    match bytes.get(offset..offset + size) {
        Some(field) => Ok(field
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte))),
        None => fail(format!("it ends before offset {}", offset + size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and one program header of this type.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56 + 32];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes[64 + 8] = 120;
        bytes[64 + 32] = 32;
        bytes
    }

    #[test]
    fn a_loader_or_a_library_is_refused() {
        check_static(&program(1), Arch::X86_64).unwrap();
        check_static(&program(2), Arch::X86_64).unwrap();
        assert!(check_static(&program(3), Arch::X86_64).is_err());
        let mut needs_library = program(2);
        needs_library[120] = 1;
        assert!(check_static(&needs_library, Arch::X86_64).is_err());
    }

    #[test]
    fn sections_are_found_by_name() {
        let mut bytes = vec![0; 64 + 2 * 64 + 16];
        (bytes[40], bytes[58], bytes[60], bytes[62]) = (64, 64, 2, 0);
        // The section of the names, without a name, and another.
        bytes[64 + 24] = 64 + 128;
        bytes[128] = 1;
        bytes[128 + 32] = 77;
        bytes[192..199].copy_from_slice(b"\0.some\0");
        assert_eq!(section_size(&bytes, ".some").unwrap(), Some(77));
        assert_eq!(section_size(&bytes, ".som").unwrap(), None);
        assert!(section_size(&bytes[..130], ".some").is_err());
    }

    #[test]
    fn another_machine_or_file_is_refused() {
        assert!(check_static(&program(1), Arch::Aarch64).is_err());
        assert!(check_static(b"#!/bin/sh\n", Arch::X86_64).is_err());
        assert!(check_static(&program(1)[..66], Arch::X86_64).is_err());
    }
}
