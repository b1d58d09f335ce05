//! A unikernel's file as a [`Source`] for the image parser.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::guest::image::Source;
use crate::host::signal::uninterrupted;

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(uninterrupted(|| self.metadata())?.len())
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<usize> {
        // The kernel rejects offsets above `i64::MAX`; here they are past the end.
        if offset > i64::MAX as u64 - target.len() as u64 {
            return Ok(0);
        }
        FileExt::read_at(self, target, offset)
    }
}
