//! Everything about a unikernel that needs no host: image, manifest, era, boot information and
//! hypercalls. Fuzzed.

pub mod boot_info;
pub mod era;
pub mod formats;
pub mod hypercall;
pub mod image;
pub mod manifest;
