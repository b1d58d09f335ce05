//! One test per rule. [`elf::Elf`] makes every file, starting from a valid one.

use super::*;

pub(crate) mod elf;
mod exhaustive;
mod header;
mod legacy;
mod notes;
mod partial;
mod properties;
mod recognise;
mod search;
mod segments;
mod sources;

use elf::{ABI, BSS, DATA, Elf, Program, RODATA, TDATA, TEXT};

/// Parses a valid file after `change`.
fn parse(change: impl FnOnce(&mut Elf)) -> Result<Image, Error> {
    let mut elf = Elf::hvt();
    change(&mut elf);
    Image::parse(elf.build().as_slice())
}

fn accepted(change: impl FnOnce(&mut Elf)) -> Image {
    parse(change).expect("a good image")
}

fn refused(change: impl FnOnce(&mut Elf)) -> Error {
    parse(change).expect_err("a broken image")
}

/// Formats all fields of an image, for comparison.
fn summary(image: &Image) -> String {
    format!("{image:?}")
}
