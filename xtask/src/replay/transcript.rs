//! Commands and output of the machine: shown immediately, and written to a file.

use std::fmt::Arguments;
use std::path::PathBuf;

use crate::base::error::{Context, Result};
use crate::build::cargo;
use crate::machines::machine::Emulated;

pub struct Transcript {
    path: PathBuf,
    text: String,
}

impl Transcript {
    /// Transcript of a replay on this machine: `target/replay/transcript-MACHINE.txt`.
    pub fn begin(machine: Emulated) -> Self {
        let path = cargo::target_dir()
            .join("replay")
            .join(format!("transcript-{}.txt", machine.name()));
        Transcript {
            path,
            text: String::new(),
        }
    }

    /// Adds a line.
    pub fn write(&mut self, line: Arguments) {
        let line = format!("{line}\n");
        print!("{line}");
        self.text += &line;
    }

    pub fn save(&self) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
        }
        std::fs::write(&self.path, &self.text)
            .context(format_args!("cannot write {}", self.path.display()))
    }
}
