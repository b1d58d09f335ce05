//! `cargo xtask book`: builds the book of `docs/` (mkdocs.yml) and checks its links.

use std::process::Command;

use crate::base::error::{Context, Result};
use crate::base::options::Options;
use crate::base::process;
use crate::build::cargo;
use crate::build::packages::{self, Package};

pub fn run(options: &mut Options) -> Result<()> {
    options.finish()?;
    packages::ensure("building the book", &[Package::program("mkdocs", "mkdocs")])?;
    let mut mkdocs = Command::new("mkdocs");
    mkdocs.args(["build", "--quiet", "--strict"]);
    process::run(mkdocs.current_dir(cargo::root())).context("the book has errors")?;
    println!(
        "book: {}",
        cargo::target_dir().join("book/index.html").display()
    );
    Ok(())
}
