//! What every command needs: errors, options, other programs, progress messages.

pub mod error;
pub mod options;
pub mod process;
pub mod progress;
