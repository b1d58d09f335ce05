//! Parses the values of options into numbers, addresses and names.

use std::ffi::OsStr;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::argv::shown;
use super::error::{Error, Rule};
use super::options::OptionValue;
use crate::config::{
    BlockSource, GdbAddress, InheritedFd, Memory, NetRing, NetSource, SandboxMode, SocketAddress,
    UserOption,
};
use crate::report::log_lines::LogFormat;

/// Longest name of a network interface, in bytes: Linux's IFNAMSIZ without the final NUL.
const INTERFACE_MAX: usize = 15;

/// Units of `--mem`, in lower case, and their powers of two.
const UNITS: [(&str, u32); 7] = [
    ("", 20),
    ("k", 10),
    ("m", 20),
    ("g", 30),
    ("kib", 10),
    ("mib", 20),
    ("gib", 30),
];

fn refuse(given: &OptionValue, rule: Rule) -> Error {
    Error::Value {
        option: given.option.clone(),
        value: shown(given.value.as_bytes()),
        rule,
    }
}

/// Returns the value as text; invalid UTF-8 violates `rule`.
fn text(given: &OptionValue, rule: Rule) -> Result<&str, Error> {
    given.value.to_str().ok_or_else(|| refuse(given, rule))
}

/// Parses a decimal number without sign; one above 64 bits becomes the maximum.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// `--net-ring`.
pub(super) fn net_ring(given: &OptionValue) -> Result<NetRing, Error> {
    match text(given, Rule::NetRing)? {
        "auto" => Ok(NetRing::Auto),
        "on" => Ok(NetRing::On),
        "off" => Ok(NetRing::Off),
        _ => Err(refuse(given, Rule::NetRing)),
    }
}

/// `--sandbox`.
pub(super) fn sandbox(given: &OptionValue) -> Result<SandboxMode, Error> {
    match text(given, Rule::Sandbox)? {
        "strict" => Ok(SandboxMode::Strict),
        "best-effort" => Ok(SandboxMode::BestEffort),
        "off" => Ok(SandboxMode::Off),
        _ => Err(refuse(given, Rule::Sandbox)),
    }
}

/// `--log-format`.
pub(super) fn log_format(given: &OptionValue) -> Result<LogFormat, Error> {
    LogFormat::from_name(text(given, Rule::LogFormat)?)
        .ok_or_else(|| refuse(given, Rule::LogFormat))
}

/// `--metrics`: `unix:`, and a path or `@` and a name.
pub(super) fn metrics(given: &OptionValue) -> Result<SocketAddress, Error> {
    socket(given, Rule::Metrics)
}

/// Parses a Unix socket; an invalid one violates `rule`.
fn socket(given: &OptionValue, rule: Rule) -> Result<SocketAddress, Error> {
    match given.value.as_bytes().strip_prefix(b"unix:") {
        Some(path) if path.strip_prefix(b"@").unwrap_or(path).len() > 107 => {
            Err(refuse(given, Rule::SocketTooLong))
        }
        Some([b'@', name @ ..]) if !name.is_empty() => Ok(SocketAddress::Abstract(name.to_vec())),
        Some(path @ [first, ..]) if *first != b'@' => {
            Ok(SocketAddress::Path(OsStr::from_bytes(path).into()))
        }
        _ => Err(refuse(given, rule)),
    }
}

/// `--user`: a name or number, optionally with a group.
pub(super) fn user(given: &OptionValue) -> Result<UserOption, Error> {
    user_of(text(given, Rule::User)?).ok_or_else(|| refuse(given, Rule::User))
}

pub(super) fn user_of(text: &str) -> Option<UserOption> {
    let (user, group) = match text.split_once(':') {
        None => (text, None),
        Some((user, group)) => (user, Some(group.to_owned())),
    };
    let is_name =
        |name: &str| !name.is_empty() && !name.contains(':') && !name.contains(char::is_control);
    let is_user = is_name(user) && group.as_deref().is_none_or(is_name);
    is_user.then(|| UserOption {
        user: user.to_owned(),
        group,
    })
}

/// `--mem`, in bytes.
pub(super) fn memory(given: &OptionValue) -> Result<u64, Error> {
    let text = text(given, Rule::MemoryForm)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let shift = UNITS
        .iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name))
        .map(|&(_, shift)| shift);
    let (Some(count), Some(shift)) = (number(digits), shift) else {
        return Err(refuse(given, Rule::MemoryForm));
    };
    match count.saturating_mul(1 << shift) {
        bytes if bytes < Memory::STEP => Err(refuse(given, Rule::MemoryTooSmall)),
        bytes if bytes > Memory::MAX => Err(refuse(given, Rule::MemoryTooLarge)),
        bytes => Ok(bytes),
    }
}

/// `--timeout`, in seconds.
pub(super) fn timeout(given: &OptionValue) -> Result<NonZeroU32, Error> {
    let seconds =
        number(text(given, Rule::Timeout)?).and_then(|seconds| u32::try_from(seconds).ok());
    seconds
        .and_then(NonZeroU32::new)
        .ok_or_else(|| refuse(given, Rule::Timeout))
}

/// `--gdb-port`: a number, or a socket as in [`metrics`].
pub(super) fn gdb_address(given: &OptionValue) -> Result<GdbAddress, Error> {
    let port = given
        .value
        .to_str()
        .and_then(number)
        .and_then(|port| u16::try_from(port).ok());
    port.map_or_else(
        || socket(given, Rule::Port).map(GdbAddress::Unix),
        |port| Ok(GdbAddress::Port(port)),
    )
}

/// `--console-rate`, in bytes per second.
pub(super) fn console_rate(given: &OptionValue) -> Result<NonZeroU64, Error> {
    let text = text(given, Rule::ConsoleRate)?;
    let digits = text.trim_end_matches(['K', 'k', 'M', 'm']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        _ => return Err(refuse(given, Rule::ConsoleRate)),
    };
    let rate = number(digits).map(|count| count.saturating_mul(1 << shift));
    rate.and_then(NonZeroU64::new)
        .ok_or_else(|| refuse(given, Rule::ConsoleRate))
}

/// `--net`: the name of an interface, or `@` and the number or name of a file descriptor.
pub(super) fn net_source(given: &OptionValue) -> Result<NetSource, Error> {
    let text = text(given, Rule::Interface)?;
    if let Some(descriptor) = text.strip_prefix('@') {
        return InheritedFd::parse(descriptor)
            .map(NetSource::Fd)
            .ok_or_else(|| refuse(given, Rule::Descriptor));
    }
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let valid = (1..=INTERFACE_MAX).contains(&text.len())
        && !text.contains(forbidden)
        && text != "."
        && text != "..";
    if valid {
        Ok(NetSource::Interface(text.to_owned()))
    } else {
        Err(refuse(given, Rule::Interface))
    }
}

/// `--net-mac`: six pairs of hexadecimal digits between colons.
pub(super) fn mac(given: &OptionValue) -> Result<[u8; 6], Error> {
    let malformed = || refuse(given, Rule::MacForm);
    let mut mac = [0; 6];
    let mut pairs = text(given, Rule::MacForm)?.split(':');
    for byte in &mut mac {
        let pair = pairs.next().ok_or_else(malformed)?;
        if !(1..=2).contains(&pair.len()) || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
    }
    match mac {
        _ if pairs.next().is_some() => Err(malformed()),
        [first, ..] if first & 1 == 1 => Err(refuse(given, Rule::MacMulticast)),
        [0, 0, 0, 0, 0, 0] => Err(refuse(given, Rule::MacZero)),
        mac => Ok(mac),
    }
}

/// `--block` and `--disk`: a path, or `@` and the number or name of a file descriptor.
pub(super) fn block_source(given: &OptionValue) -> Result<BlockSource, Error> {
    if !given.value.as_bytes().starts_with(b"@") {
        return path(given).map(BlockSource::Path);
    }
    let fd = given
        .value
        .to_str()
        .and_then(|text| InheritedFd::parse(&text[1..]));
    fd.map(BlockSource::Fd)
        .ok_or_else(|| refuse(given, Rule::Descriptor))
}

/// `--chroot` and `--stats`: any path that is not empty.
pub(super) fn path(given: &OptionValue) -> Result<PathBuf, Error> {
    if given.value == OsStr::new("") {
        Err(refuse(given, Rule::Path))
    } else {
        Ok(given.value.clone().into())
    }
}

/// `--block-sector-size`, in bytes.
pub(super) fn sector_size(given: &OptionValue) -> Result<u16, Error> {
    let size = number(text(given, Rule::SectorSize)?).and_then(|size| u16::try_from(size).ok());
    let valid = size.filter(|size| size.is_power_of_two() && (512..=32768).contains(size));
    valid.ok_or_else(|| refuse(given, Rule::SectorSize))
}
