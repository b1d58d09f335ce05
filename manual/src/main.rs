//! Writes tender's manual pages and shell completions: `manual DIRECTORY DATE`.
//!
//! A program of its own, run when packages are made, so that the tender's binary carries none of it. Options come from
//! [`tender::cli::command`]; what a table cannot say stands in `pages/`, as text.

mod completions;
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
