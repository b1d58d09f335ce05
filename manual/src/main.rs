//! Generates tender's manual pages and shell completions: `manual DIRECTORY DATE`.
//!
//! A separate program, run when packages are built, so that the binary of `tender` does not contain
//! them. Options come from [`tender::cli::command`] and
//! [`tender::cli::keys`]; all other text is in `pages/`.

mod completions;
mod options;
mod page;

use std::io::{Error, Result};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, date] = &arguments[..] else {
        return Err(Error::other("usage: manual DIRECTORY DATE"));
    };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    for (name, text) in page::pages(date)?
        .into_iter()
        .chain(completions::scripts()?)
    {
        std::fs::write(directory.join(name), text)?;
    }
    Ok(())
}
