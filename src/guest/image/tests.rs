//! One test per rule. Every file here is made by [`elf::Elf`], which starts from a valid one.

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

/// Parses a valid file with `change` made to it.
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

/// All properties of an image, to be compared.
fn summary(image: &Image) -> String {
    format!("{image:?}")
}
