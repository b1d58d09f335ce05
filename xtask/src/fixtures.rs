//! `cargo xtask fixtures`.

use crate::error::{Result, fail};
use crate::options::Options;

pub fn run(_options: &mut Options) -> Result<()> {
    fail("not yet")
}
