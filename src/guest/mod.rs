//! What a unikernel is: its image, manifest, era, boot information and hypercalls. Needs no host; fuzzed.

pub mod boot_info;
pub mod era;
pub mod formats;
pub mod hypercall;
pub mod image;
pub mod manifest;
