//! The values of options: from words to numbers, addresses and names.

use std::ffi::OsStr;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::argv::shown;
use super::error::{Error, Rule};
use super::options::Given;
use crate::config::{
    BlockSource, GdbAddress, InheritedFd, Memory, NetRing, NetSource, SandboxMode, SocketAddress,
    UserOption,
};
use crate::report::log_lines::LogFormat;

/// Longest name of a network interface, in bytes: Linux's IFNAMSIZ without the final NUL.
const INTERFACE_MAX: usize = 15;

/// What memory may be counted in, in lower case, and the power of two that each is.
const UNITS: [(&str, u32); 7] = [
    ("", 20),
    ("k", 10),
    ("m", 20),
    ("g", 30),
    ("kib", 10),
    ("mib", 20),
    ("gib", 30),
];

fn refuse(given: &Given, rule: Rule) -> Error {
    Error::Value {
        option: given.option.clone(),
        value: shown(given.value.as_bytes()),
        rule,
    }
}

/// The value as text; what is no UTF-8 breaks `rule`.
fn text(given: &Given, rule: Rule) -> Result<&str, Error> {
    given.value.to_str().ok_or_else(|| refuse(given, rule))
}

/// A decimal number without sign; one beyond 64 bits is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// `--net-ring`.
pub(super) fn net_ring(given: &Given) -> Result<NetRing, Error> {
    match text(given, Rule::NetRing)? {
        "auto" => Ok(NetRing::Auto),
        "on" => Ok(NetRing::On),
        "off" => Ok(NetRing::Off),
        _ => Err(refuse(given, Rule::NetRing)),
    }
}

/// `--sandbox`.
pub(super) fn sandbox(given: &Given) -> Result<SandboxMode, Error> {
    match text(given, Rule::Sandbox)? {
        "strict" => Ok(SandboxMode::Strict),
        "best-effort" => Ok(SandboxMode::BestEffort),
        "off" => Ok(SandboxMode::Off),
        _ => Err(refuse(given, Rule::Sandbox)),
    }
}

/// `--log-format`.
pub(super) fn log_format(given: &Given) -> Result<LogFormat, Error> {
    LogFormat::from_name(text(given, Rule::LogFormat)?)
        .ok_or_else(|| refuse(given, Rule::LogFormat))
}

/// `--metrics`: `unix:`, and a path or `@` and a name.
pub(super) fn metrics(given: &Given) -> Result<SocketAddress, Error> {
    socket(given, Rule::Metrics)
}

/// A Unix socket; what is none breaks `rule`.
fn socket(given: &Given, rule: Rule) -> Result<SocketAddress, Error> {
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

/// `--user`: a name or a number, and perhaps that of a group.
pub(super) fn user(given: &Given) -> Result<UserOption, Error> {
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
pub(super) fn memory(given: &Given) -> Result<u64, Error> {
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
pub(super) fn timeout(given: &Given) -> Result<NonZeroU32, Error> {
    let seconds =
        number(text(given, Rule::Timeout)?).and_then(|seconds| u32::try_from(seconds).ok());
    seconds
        .and_then(NonZeroU32::new)
        .ok_or_else(|| refuse(given, Rule::Timeout))
}

/// `--gdb-port`: a number, or a socket as [`metrics`] has it.
pub(super) fn gdb_address(given: &Given) -> Result<GdbAddress, Error> {
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

/// `--console-rate`, in bytes a second.
pub(super) fn console_rate(given: &Given) -> Result<NonZeroU64, Error> {
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
pub(super) fn net_source(given: &Given) -> Result<NetSource, Error> {
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
pub(super) fn mac(given: &Given) -> Result<[u8; 6], Error> {
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
pub(super) fn block_source(given: &Given) -> Result<BlockSource, Error> {
    if !given.value.as_bytes().starts_with(b"@") {
        return path(given).map(BlockSource::Path);
    }
    let handed = given
        .value
        .to_str()
        .and_then(|text| InheritedFd::parse(&text[1..]));
    handed
        .map(BlockSource::Fd)
        .ok_or_else(|| refuse(given, Rule::Descriptor))
}

/// `--chroot` and `--stats`: any path but none.
pub(super) fn path(given: &Given) -> Result<PathBuf, Error> {
    if given.value == OsStr::new("") {
        Err(refuse(given, Rule::Path))
    } else {
        Ok(given.value.clone().into())
    }
}

/// `--block-sector-size`, in bytes.
pub(super) fn sector_size(given: &Given) -> Result<u16, Error> {
    let size = number(text(given, Rule::SectorSize)?).and_then(|size| u16::try_from(size).ok());
    let valid = size.filter(|size| size.is_power_of_two() && (512..=32768).contains(size));
    valid.ok_or_else(|| refuse(given, Rule::SectorSize))
}
