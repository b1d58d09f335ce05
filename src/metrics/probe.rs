//! Checks for `--check` whether `--stats` would work, without making a file.

use std::fs::File;

use super::stats_file::check_kind;
use super::{Error, StatsFile};
use crate::config::StatsTarget;
use crate::host::files::{Files, Need, Target};

impl StatsFile {
    /// Checks that [`StatsFile::open`] would succeed. Creates no file. Does not open a pipe,
    /// because its reader would see it end.
    ///
    /// # Errors
    /// [`Error::Stats`].
    pub fn probe(target: &StatsTarget, files: &mut Files) -> Result<(), Error> {
        let StatsTarget::File(path) = target else {
            return Ok(());
        };
        let usable = files.target(path).and_then(|target| match target {
            Target::There(look) => {
                check_kind(look.metadata())?;
                let is_file = look.metadata().is_file();
                if is_file {
                    look.open(File::options().write(true)).map(drop)
                } else {
                    look.check(Need::Write)
                }
            }
            Target::New(place) => place.check(),
        });
        usable.map_err(|source| Error::Stats {
            path: path.to_string_lossy().into_owned(),
            source,
        })
    }
}
