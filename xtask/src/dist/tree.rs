//! The files of a package: collected first, then written with fixed modes and times, so that the
//! same files always make the same package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::base::error::{Context, Result};

const DIRECTORY: u32 = 0o755;

/// Files and directories by path, without anything that differs between two builds.
#[derive(Default)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

struct Entry {
    mode: u32,
    /// `None` for a directory.
    content: Option<Vec<u8>>,
}

impl Tree {
    /// Adds a file that every user may read.
    pub fn file(&mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        self.insert(path.into(), 0o644, Some(content.into()));
    }

    /// Adds a program or script.
    pub fn program(&mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        self.insert(path.into(), 0o755, Some(content.into()));
    }

    /// Adds a directory that may stay empty.
    pub fn dir(&mut self, path: impl Into<PathBuf>) {
        self.insert(path.into(), DIRECTORY, None);
    }

    /// Copies a file, or a directory with its contents; scripts stay programs.
    pub fn copy(&mut self, path: impl Into<PathBuf>, from: &Path) -> Result<()> {
        let path = path.into();
        if !from.is_dir() {
            let cannot = || format!("cannot read {}", from.display());
            let content = fs::read(from).context(cannot())?;
            let mode = if fs::metadata(from).context(cannot())?.permissions().mode() & 0o100 == 0 {
                0o644
            } else {
                0o755
            };
            self.insert(path, mode, Some(content));
            return Ok(());
        }
        for entry in fs::read_dir(from)
            .context(format_args!("cannot list {}", from.display()))?
            .flatten()
        {
            self.copy(path.join(entry.file_name()), &entry.path())?;
        }
        Ok(())
    }

    fn insert(&mut self, path: PathBuf, mode: u32, content: Option<Vec<u8>>) {
        for above in path
            .ancestors()
            .skip(1)
            .filter(|above| *above != Path::new(""))
        {
            self.0.entry(above.into()).or_insert(Entry {
                mode: DIRECTORY,
                content: None,
            });
        }
        self.0.insert(path, Entry { mode, content });
    }

    /// Changes the files with this end of their name, given their path and text.
    pub fn rewrite(&mut self, suffix: &str, change: impl Fn(&Path, &str) -> String) {
        let named = self
            .0
            .iter_mut()
            .filter(|(path, _)| path.to_string_lossy().ends_with(suffix));
        for (path, entry) in named {
            if let Some(content) = &mut entry.content {
                *content = change(path, &String::from_utf8_lossy(content)).into_bytes();
            }
        }
    }

    /// Returns the paths of all files and directories.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// Returns the files, sorted, with their contents.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.0
            .iter()
            .filter_map(|(path, entry)| Some((path.as_path(), entry.content.as_deref()?)))
    }

    /// Returns the space on a disk, in KiB.
    pub fn size(&self) -> usize {
        self.0
            .values()
            .map(|entry| {
                entry
                    .content
                    .as_ref()
                    .map_or(1, |content| content.len().div_ceil(1024))
            })
            .sum()
    }

    /// Writes everything to `root`, which is emptied first.
    pub fn write(&self, root: &Path, epoch: u64) -> Result<()> {
        let _ = fs::remove_dir_all(root);
        fs::create_dir_all(root).context(format_args!("cannot make {}", root.display()))?;
        for (path, entry) in &self.0 {
            let path = root.join(path);
            let made = match &entry.content {
                Some(content) => fs::write(&path, content),
                None => fs::create_dir(&path),
            };
            made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(entry.mode)))
                .context(format_args!("cannot write {}", path.display()))?;
        }
        fs::set_permissions(root, Permissions::from_mode(DIRECTORY))
            .context("cannot set rights")?;
        // The deepest first: an entry made in a directory changes the directory's time.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
        for path in self
            .0
            .keys()
            .rev()
            .map(|path| root.join(path))
            .chain([root.into()])
        {
            let set = File::open(&path).and_then(|file| file.set_modified(time));
            set.context(format_args!("cannot set the time of {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_depends_only_on_its_files() {
        let mut tree = Tree::default();
        tree.program("usr/bin/it", "#!/bin/sh\n");
        tree.file("usr/share/it", "text");
        tree.dir("etc/it");
        let root =
            crate::build::cargo::target_dir().join(format!("tree-test.{}", std::process::id()));
        tree.write(&root, 86400).unwrap();
        tree.write(&root, 86400).unwrap();
        for (path, mode) in [
            ("usr", 0o755),
            ("usr/bin/it", 0o755),
            ("usr/share/it", 0o644),
            ("etc/it", 0o755),
        ] {
            let metadata = fs::metadata(root.join(path)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
            assert_eq!(
                metadata.modified().unwrap(),
                SystemTime::UNIX_EPOCH + Duration::from_secs(86400),
                "{path}"
            );
        }
        fs::remove_dir_all(root).unwrap();
        assert_eq!(
            tree.files().map(|(path, _)| path).collect::<Vec<_>>(),
            ["usr/bin/it", "usr/share/it"].map(Path::new)
        );
    }
}
