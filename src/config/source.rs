//! What a device is attached to.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// What a network device is attached to, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetSource {
    /// A tap interface, by name.
    Interface(String),
    /// An inherited file descriptor of a tap, or of a datagram or packet socket.
    Fd(InheritedFd),
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetSource::Interface(name) => f.write_str(name),
            NetSource::Fd(fd) => fd.fmt(f),
        }
    }
}

/// What a block device is attached to, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// An image file or a disk, by its path.
    Path(PathBuf),
    /// An inherited file descriptor of one.
    Fd(InheritedFd),
}

impl fmt::Display for BlockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockSource::Path(path) => path.display().fmt(f),
            BlockSource::Fd(fd) => fd.fmt(f),
        }
    }
}

/// Maximum length of a descriptor's name in systemd, in bytes.
const NAME_MAX: usize = 255;

/// An inherited descriptor, as written after `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InheritedFd {
    /// By its number.
    Number(RawFd),
    /// By its name in LISTEN_FDNAMES; not all digits.
    Name(String),
}

impl From<RawFd> for InheritedFd {
    fn from(fd: RawFd) -> InheritedFd {
        InheritedFd::Number(fd)
    }
}

impl fmt::Display for InheritedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritedFd::Number(fd) => write!(f, "@{fd}"),
            InheritedFd::Name(name) => write!(f, "@{name}"),
        }
    }
}

impl InheritedFd {
    /// Parses the text after `@`: digits alone are a number, any other text that systemd accepts as
    /// a name is a name. Returns `None` if it is neither.
    pub fn parse(text: &str) -> Option<InheritedFd> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(InheritedFd::Number);
        }
        let printable = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b':';
        let is_name = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(printable);
        is_name.then(|| InheritedFd::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_all_else_is_a_name() {
        assert_eq!(InheritedFd::parse("3"), Some(InheritedFd::Number(3)));
        assert_eq!(InheritedFd::parse("0"), Some(InheritedFd::Number(0)));
        for name in ["web", "3a", "-1", "web.socket", "a b", "@"] {
            assert_eq!(
                InheritedFd::parse(name),
                Some(InheritedFd::Name(name.into()))
            );
        }
        for text in [
            "",
            "2147483648",
            "99999999999999999999",
            "a:b",
            "a\n",
            "ü",
            &"x".repeat(256),
        ] {
            assert_eq!(InheritedFd::parse(text), None, "{text}");
        }
    }
}
