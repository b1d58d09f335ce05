//! Turns an inherited descriptor into an image or disk, or explains why not.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{OFlags, fcntl_getfl};

use super::Error;
use super::open::{check_kind, check_writable};
use crate::config::InheritedFd;
use crate::host::signal::uninterrupted;

/// Takes ownership of a descriptor of an image file or a disk, which must be open for reading and
/// writing.
pub(super) fn adopt(inherited: &InheritedFd) -> Result<(File, PathBuf), Error> {
    let file = File::from(inherited.take()?);
    let path = path(&file, inherited);
    let metadata = uninterrupted(|| file.metadata()).map_err(|error| Error::Open {
        path: path.clone(),
        error,
    })?;
    let kind = metadata.file_type();
    check_kind(&path, kind)?;
    if let Err((rule, fix)) = check_mode(&file) {
        return Err(Error::Mode {
            path,
            inherited: inherited.to_string(),
            rule,
            fix,
        });
    }
    check_writable(&file, kind, &path)?;
    Ok((file, path))
}

/// Returns the file's path for messages, if the host shows it, else the descriptor, which is less
/// helpful.
fn path(file: &File, inherited: &InheritedFd) -> PathBuf {
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.unwrap_or_else(|_| inherited.to_string().into())
}

fn check_mode(file: &File) -> Result<(), (&'static str, &'static str)> {
    let flags = fcntl_getfl(file).unwrap_or(OFlags::PATH);
    if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE != OFlags::RDWR {
        return Err(("is not open for reading and writing", "open it O_RDWR"));
    }
    // Linux would append all writes, ignoring the guest's offsets.
    if flags.contains(OFlags::APPEND) {
        return Err(("is open for appending", "open it without O_APPEND"));
    }
    // Guests do not keep its alignment rules for buffers.
    if flags.contains(OFlags::DIRECT) {
        return Err(("is open past the page cache", "open it without O_DIRECT"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::block::Disk;
    use crate::config::BlockSource;
    use crate::guest::era::DiskTail;
    use crate::host::files::Files;
    use crate::report::message::Message;

    /// Returns the file's descriptor, marked as passed.
    fn passed(file: File) -> BlockSource {
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        BlockSource::Fd(file.into_raw_fd().into())
    }

    fn refused(file: File) -> String {
        attach(&passed(file))
            .map_err(Message::from)
            .unwrap_err()
            .to_string()
    }

    fn attach(source: &BlockSource) -> Result<Disk, Error> {
        Disk::attach(source, &mut Files::default(), None, DiskTail::Refused)
    }

    fn open(path: &std::path::Path, flags: libc::c_int) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .unwrap()
    }

    #[test]
    fn an_image_by_descriptor_works_as_one_by_path() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1024).unwrap();
        let disk = attach(&passed(open(image.path(), 0))).unwrap();
        assert_eq!((disk.capacity(), disk.path()), (1024, image.path()));
        let by_path = BlockSource::Path(image.path().to_owned());
        // Where the host reports the owner: this process.
        let is_taken = |message: String| {
            message.contains("is given to two block devices") || message.contains("is in use")
        };
        assert!(is_taken(
            attach(&by_path)
                .map_err(Message::from)
                .unwrap_err()
                .to_string()
        ));
        assert!(is_taken(refused(open(image.path(), 0))));
        drop(disk);
        image.as_file().set_len(1000).unwrap();
        assert!(
            refused(open(image.path(), 0))
                .contains("has 1000 bytes, not a multiple of its sectors of 512")
        );
    }

    #[test]
    fn the_open_mode_must_fit_the_use() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1024).unwrap();
        let modes = [
            (
                File::open(image.path()).unwrap(),
                "is not open for reading and writing",
            ),
            (
                OpenOptions::new().write(true).open(image.path()).unwrap(),
                "is not open for reading and writing",
            ),
            (
                open(image.path(), libc::O_PATH),
                "is not open for reading and writing",
            ),
            (
                open(image.path(), libc::O_APPEND),
                "open it without O_APPEND",
            ),
            (File::open("/").unwrap(), "'/' is a directory"),
            (
                File::open("/dev/null").unwrap(),
                "'/dev/null' is a character device",
            ),
        ];
        for (file, part) in modes {
            let message = refused(file);
            assert!(message.contains(part), "{message}");
        }
        assert!(
            attach(&BlockSource::Fd(InheritedFd::Number(1)))
                .map_err(Message::from)
                .unwrap_err()
                .to_string()
                .contains("standard")
        );
    }
}
