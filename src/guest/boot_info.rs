//! The guest's boot pages: boot info, manifest and command line, consecutive from
//! [`BOOT_INFO_ADDRESS`]. Pure: values in, bytes out. Section 5 of `docs/hvt-abi.md`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use guest_abi::boot::{BOOT_INFO_ADDRESS, BootInfo, CMDLINE_SIZE};
use guest_abi::legacy;
use zerocopy::IntoBytes;

use crate::guest::era::Era;

/// Information for the guest, the same for every era.
#[derive(Clone, Copy, Debug)]
pub struct BootFacts<'a> {
    /// Bytes of memory, from address 0.
    pub memory_size: u64,
    /// First address after the image.
    pub image_end: u64,
    /// Frequency of the cycle counter in Hz.
    pub counter_frequency: u64,
    /// Address of the shared network ring, or 0 if none is offered.
    pub net_ring: u64,
    /// The manifest's bytes; ignored by guests without one.
    pub manifest: &'a [u8],
    /// The command line with its NUL.
    pub cmdline: &'a [u8],
}

/// The guest's arguments are too long; their size in bytes.
#[derive(Debug, miette::Diagnostic, thiserror::Error, PartialEq, Eq)]
#[error("guest arguments too long: {0} bytes, limit 8191")]
pub struct TooLong(pub usize);

/// Joins the guest's arguments by single spaces and appends a NUL.
pub fn cmdline(arguments: &[impl AsRef<OsStr>]) -> Result<Vec<u8>, TooLong> {
    let args: Vec<&[u8]> = arguments
        .iter()
        .map(|word| word.as_ref().as_bytes())
        .collect();
    let mut cmdline = args.join(&b' ');
    cmdline.push(0);
    if cmdline.len() > CMDLINE_SIZE {
        Err(TooLong(cmdline.len() - 1))
    } else {
        Ok(cmdline)
    }
}

/// Returns the content of the boot pages for a guest of `era`.
pub fn to_bytes(era: Era, facts: &BootFacts<'_>) -> Vec<u8> {
    match era {
        Era::Legacy => legacy_bytes(facts),
        Era::Abi1 | Era::Abi2 => current_bytes(facts),
    }
}

fn legacy_bytes(facts: &BootFacts<'_>) -> Vec<u8> {
    let info = legacy::BootInfo {
        mem_size: facts.memory_size,
        kernel_end: facts.image_end,
        cmdline: BOOT_INFO_ADDRESS + size_of::<legacy::BootInfo>() as u64,
        tsc_freq: facts.counter_frequency,
    };
    [info.as_bytes(), facts.cmdline].concat()
}

fn current_bytes(facts: &BootFacts<'_>) -> Vec<u8> {
    let mft = BOOT_INFO_ADDRESS + size_of::<BootInfo>() as u64;
    let info = BootInfo {
        mem_size: facts.memory_size,
        kernel_end: facts.image_end,
        cpu_cycle_freq: facts.counter_frequency,
        cmdline: mft + facts.manifest.len() as u64,
        mft,
        host_features: u32::from(facts.net_ring != 0),
        guest_features: 0,
        net_ring: facts.net_ring,
    };
    [info.as_bytes(), facts.manifest, facts.cmdline].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use zerocopy::FromBytes;

    const FACTS: BootFacts<'_> = BootFacts {
        memory_size: 0x20_0000,
        image_end: 0x11_0000,
        counter_frequency: 19_200_000,
        net_ring: 0,
        manifest: &[1, 2, 3],
        cmdline: b"hi\0",
    };

    #[test]
    fn the_command_line_is_joined_by_spaces() {
        assert_eq!(
            cmdline(&["--ipv4=10.0.0.2/24", "a b", ""]).unwrap(),
            b"--ipv4=10.0.0.2/24 a b \0"
        );
        assert_eq!(cmdline(&[] as &[OsString]).unwrap(), b"\0");
    }

    #[test]
    fn the_command_line_has_8191_bytes_at_most() {
        assert_eq!(cmdline(&["x".repeat(8191)]).unwrap().len(), 8192);
        assert_eq!(cmdline(&["x".repeat(8192)]), Err(TooLong(8192)));
    }

    #[test]
    fn boot_info_manifest_and_command_line_follow_each_other() {
        for era in [Era::Abi1, Era::Abi2] {
            let bytes = to_bytes(era, &FACTS);
            let (info, rest) = BootInfo::read_from_prefix(&bytes).unwrap();
            assert_eq!(
                (info.mem_size, info.kernel_end, info.cpu_cycle_freq),
                (0x20_0000, 0x11_0000, 19_200_000)
            );
            assert_eq!((info.mft, info.cmdline), (0x10038, 0x1003b));
            assert_eq!(
                (info.host_features, info.guest_features, info.net_ring),
                (0, 0, 0)
            );
            assert_eq!(rest, b"\x01\x02\x03hi\0");
        }
    }

    #[test]
    fn the_ring_is_offered_by_its_address() {
        let bytes = to_bytes(
            Era::Abi2,
            &BootFacts {
                net_ring: 0x20000,
                ..FACTS
            },
        );
        let (info, _) = BootInfo::read_from_prefix(&bytes).unwrap();
        assert_eq!((info.host_features, info.net_ring), (1, 0x20000));
    }

    #[test]
    fn a_legacy_guest_gets_32_bytes_and_its_command_line() {
        let bytes = to_bytes(Era::Legacy, &FACTS);
        let (info, rest) = legacy::BootInfo::read_from_prefix(&bytes).unwrap();
        assert_eq!(
            (info.mem_size, info.kernel_end, info.tsc_freq),
            (0x20_0000, 0x11_0000, 19_200_000)
        );
        assert_eq!(info.cmdline, 0x10020);
        assert_eq!(rest, b"hi\0");
    }
}
