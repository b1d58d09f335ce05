//! The Solo5 **hvt** interface between a unikernel and its tender, as plain types.
//!
//! Both sides use this crate: the tender to decode hypercalls, test unikernels to make them. It
//! holds facts only (numbers, layouts, addresses) and no behaviour. Section numbers in these docs
//! are those of `docs/hvt-abi.md`. All multi-byte values are little endian; all addresses are
//! guest-physical.
//!
//! Every structure has its size and its field offsets asserted at compile time.
#![no_std]
#![warn(missing_docs)]

pub mod boot;
pub mod hypercall;
pub mod legacy;
pub mod manifest;
pub mod note;
pub mod ring;

#[cfg(feature = "guest")]
pub mod guest;

/// Asserts at compile time that `$type` has size `$size` and its fields lie at the given offsets.
macro_rules! assert_layout {
    ($type:ty, $size:literal $(, $field:ident: $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;
