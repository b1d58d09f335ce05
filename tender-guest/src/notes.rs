//! What a unikernel declares: its interface and its devices, as notes in its file.

use crate::abi::manifest::{BLOCK_BASIC, Entry, NET_BASIC};
use crate::abi::note::{Abi1, Mft1};

/// The interface that a program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// That of Solo5 0.3 and 0.4, without notes.
    Legacy,
    /// ABI version 1.
    Abi1,
    /// ABI version 2.
    Abi2,
}

impl Era {
    /// That of this program.
    pub fn current() -> Era {
        crate::GUEST_ERA
    }

    /// The note of its programs.
    ///
    /// # Panics
    /// In an era without notes; in a constant that is a compile error.
    pub const fn note(self) -> Abi1 {
        match self {
            Era::Legacy => panic!("there were no notes in this era"),
            Era::Abi1 => Abi1::hvt(1),
            Era::Abi2 => Abi1::hvt(2),
        }
    }
}

/// An interpreter that does not exist, as in every hvt unikernel: no kernel can start it as a program.
#[cfg(target_os = "none")]
#[used]
#[unsafe(link_section = ".interp")]
static INTERPRETER: [u8; 17] = *b"/nonexistent/hvt\0";

/// Declares a block device in [`guest!`](crate::guest).
pub const fn block(name: &str) -> Entry {
    Entry::declare(name, BLOCK_BASIC)
}

/// Declares a network device in [`guest!`](crate::guest).
pub const fn net(name: &str) -> Entry {
    Entry::declare(name, NET_BASIC)
}

/// The manifest note for `devices`; `N` is their number plus the reserved entry.
pub const fn manifest<const N: usize>(devices: &[Entry]) -> Mft1<N> {
    assert!(N == devices.len() + 1);
    let mut entries = [Entry::reserved(); N];
    let mut i = 0;
    while i < devices.len() {
        entries[i + 1] = devices[i];
        i += 1;
    }
    Mft1::new(entries)
}

/// Makes a program a unikernel: names its `main`, and its devices if it has any.
///
/// ```no_run
/// use tender_guest::{Boot, block, guest, net};
///
/// guest!(unikernel, [net("service"), block("storage")]);
///
/// fn unikernel(boot: Boot) -> u8 {
///     let disk = boot.block("storage");
///     0
/// }
/// # fn main() {}
/// ```
///
/// The operator attaches each device by its name: `--net:service=tap100 --block:storage=disk.img`.
#[macro_export]
macro_rules! guest {
    ($main:path $(,)?) => {
        $crate::guest!($main, []);
    };
    ($main:path, $devices:expr $(,)?) => {
        $crate::guest!(era = Abi2, $main, $devices);
    };
    // The rest is for the test unikernels of tender's repository.
    (era = Legacy, $main:path) => {
        $crate::guest!(@entry Legacy, $main);
    };
    (era = $era:ident, $main:path) => {
        $crate::guest!(era = $era, $main, []);
    };
    (era = $era:ident, $main:path, $devices:expr) => {
        const DEVICES: &[$crate::abi::manifest::Entry] = &$devices;

        #[used]
        #[unsafe(link_section = ".note.solo5.abi")]
        static ABI_NOTE: $crate::abi::note::Abi1 = $crate::Era::$era.note();

        #[used]
        #[unsafe(link_section = ".note.solo5.manifest")]
        static MANIFEST_NOTE: $crate::abi::note::Mft1<{ DEVICES.len() + 1 }> = $crate::manifest(DEVICES);

        $crate::guest!(@entry $era, $main);
    };
    (@entry $era:ident, $main:path) => {
        $crate::guest_era!($era);

        #[unsafe(no_mangle)]
        fn guest_main(boot: $crate::Boot) -> u8 {
            $main(boot)
        }
    };
}

#[cfg(feature = "fixtures")]
#[doc(hidden)]
#[macro_export]
macro_rules! guest_era {
    ($era:ident) => {
        #[unsafe(no_mangle)]
        static GUEST_ERA: $crate::Era = $crate::Era::$era;
    };
}

#[cfg(not(feature = "fixtures"))]
#[doc(hidden)]
#[macro_export]
macro_rules! guest_era {
    ($era:ident) => {};
}
