//! Parses the values of options into numbers, addresses and names.

use std::ffi::OsStr;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::Rule;
use super::options::OptionValue;
use crate::config::{
    BlockSource, Engine, EngineChoice, GdbAddress, HugePages, InheritedFd, Memory, NetRing,
    NetSource, RUN_NAME_MAX, SandboxMode, SocketAddress, StatsTarget, UserOption,
};
use crate::report::log_lines::LogFormat;

/// Longest name of a network interface, in bytes: Linux's IFNAMSIZ without the final NUL.
const INTERFACE_MAX: usize = 15;

/// Units of `--mem` and `--console-rate`, in lower case; `kb` is the same as `kib`.
const BYTES: [(&str, u64); 9] = [
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("kb", 1 << 10),
    ("mb", 1 << 20),
    ("gb", 1 << 30),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
];

/// Units of `--timeout`, in seconds.
const TIMES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// Stores a valid value.
pub(super) fn put<P, T: Into<P>>(place: &mut P, value: Result<T, Rule>) -> Result<(), Rule> {
    *place = value?.into();
    Ok(())
}

/// Parses a decimal number without sign; one above 64 bits becomes the maximum.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Parses a number that fits in `T`.
fn whole<T: TryFrom<u64>>(given: &OptionValue) -> Option<T> {
    T::try_from(number(given.value.to_str()?)?).ok()
}

/// Parses a number with one of `units`, or a bare one, which counts `bare`; one above 64 bits
/// becomes the maximum.
fn scaled(given: &OptionValue, bare: u64, units: &[(&str, u64)]) -> Option<u64> {
    let text = given.value.to_str()?;
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let named = |(name, _): &&(&str, u64)| unit.eq_ignore_ascii_case(name);
    let scale = match unit {
        "" => bare,
        _ => units.iter().find(named)?.1,
    };
    Some(number(digits)?.saturating_mul(scale))
}

/// Returns the one of `choices` that is named.
fn choice<T: Copy>(given: &OptionValue, choices: &[(&str, T)]) -> Option<T> {
    let chosen = choices.iter().find(|(name, _)| given.value == *name)?;
    Some(chosen.1)
}

pub(super) fn engine(given: &OptionValue) -> Result<EngineChoice, Rule> {
    let choices = [
        ("kvm", EngineChoice::Only(Engine::Kvm)),
        ("process", EngineChoice::Only(Engine::Process)),
        ("auto", EngineChoice::Auto),
    ];
    choice(given, &choices).ok_or(Rule::Engine)
}

pub(super) fn net_ring(given: &OptionValue) -> Result<NetRing, Rule> {
    let choices = [
        ("auto", NetRing::Auto),
        ("on", NetRing::On),
        ("off", NetRing::Off),
    ];
    choice(given, &choices).ok_or(Rule::AutoOnOff)
}

pub(super) fn huge_pages(given: &OptionValue) -> Result<HugePages, Rule> {
    let choices = [
        ("auto", HugePages::Auto),
        ("on", HugePages::On),
        ("off", HugePages::Off),
    ];
    choice(given, &choices).ok_or(Rule::AutoOnOff)
}

pub(super) fn sandbox(given: &OptionValue) -> Result<SandboxMode, Rule> {
    let choices = [
        ("strict", SandboxMode::Strict),
        ("best-effort", SandboxMode::BestEffort),
        ("off", SandboxMode::Off),
    ];
    choice(given, &choices).ok_or(Rule::Sandbox)
}

pub(super) fn log_format(given: &OptionValue) -> Result<LogFormat, Rule> {
    let format = given.value.to_str().and_then(LogFormat::from_name);
    format.ok_or(Rule::LogFormat)
}

/// `--stats`: a path, or `-`.
pub(super) fn stats(given: &OptionValue) -> Result<StatsTarget, Rule> {
    match given.value.as_bytes() {
        b"-" => Ok(StatsTarget::Stderr),
        _ => path(given).map(StatsTarget::File),
    }
}

/// `--metrics`: `unix:`, and a path or `@` and a name.
pub(super) fn metrics(given: &OptionValue) -> Result<SocketAddress, Rule> {
    socket(given, Rule::Metrics)
}

/// Parses a Unix socket; an invalid one violates `rule`.
fn socket(given: &OptionValue, rule: Rule) -> Result<SocketAddress, Rule> {
    match given.value.as_bytes().strip_prefix(b"unix:") {
        Some(path) if path.strip_prefix(b"@").unwrap_or(path).len() > 107 => {
            Err(Rule::SocketTooLong)
        }
        Some([b'@', name @ ..]) if !name.is_empty() => Ok(SocketAddress::Abstract(name.to_vec())),
        Some(path @ [first, ..]) if *first != b'@' => {
            Ok(SocketAddress::Path(OsStr::from_bytes(path).into()))
        }
        _ => Err(rule),
    }
}

/// `--user`: a name or number, optionally with a group.
pub(super) fn user(given: &OptionValue) -> Result<UserOption, Rule> {
    let names = given.value.to_str().unwrap_or_default().split(':');
    let names: Vec<String> = names.map(str::to_owned).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains(char::is_control);
    match &names[..] {
        [user, group @ ..] if group.len() < 2 && names.iter().all(is_name) => Ok(UserOption {
            user: user.clone(),
            group: group.first().cloned(),
        }),
        _ => Err(Rule::User),
    }
}

pub(super) fn memory(given: &OptionValue) -> Result<Memory, Rule> {
    match scaled(given, 1 << 20, &BYTES).ok_or(Rule::MemoryForm)? {
        bytes if bytes < Memory::STEP => Err(Rule::MemoryTooSmall),
        bytes if bytes > Memory::MAX => Err(match whole(given) {
            Some(bytes @ Memory::STEP..=Memory::MAX) => Rule::MemoryInBytes(bytes >> 20),
            _ => Rule::MemoryTooLarge,
        }),
        bytes => Ok(Memory::of(bytes)),
    }
}

/// `--timeout`, in seconds.
pub(super) fn timeout(given: &OptionValue) -> Result<NonZeroU32, Rule> {
    let seconds = scaled(given, 1, &TIMES).ok_or(Rule::Timeout)?;
    let seconds = u32::try_from(seconds).map_err(|_| Rule::TimeoutTooLong)?;
    NonZeroU32::new(seconds).ok_or(Rule::Timeout)
}

/// `--gdb-port`: a number, or a socket as in [`metrics`].
pub(super) fn gdb_address(given: &OptionValue) -> Result<GdbAddress, Rule> {
    match whole(given) {
        Some(port) => Ok(GdbAddress::Port(port)),
        None => socket(given, Rule::Port).map(GdbAddress::Unix),
    }
}

/// `--console-rate`, in bytes per second.
pub(super) fn console_rate(given: &OptionValue) -> Result<NonZeroU64, Rule> {
    let rate = scaled(given, 1, &BYTES).and_then(NonZeroU64::new);
    rate.ok_or(Rule::ConsoleRate)
}

/// Returns the descriptor that follows `@`; none if the value does not begin with `@`.
fn descriptor(given: &OptionValue) -> Option<Result<InheritedFd, Rule>> {
    let name = given.value.as_bytes().strip_prefix(b"@")?;
    let fd = std::str::from_utf8(name).ok().and_then(InheritedFd::parse);
    Some(fd.ok_or(Rule::Descriptor))
}

/// `--net`: the name of an interface, or `@` and the number or name of a file descriptor.
pub(super) fn net_source(given: &OptionValue) -> Result<NetSource, Rule> {
    if let Some(fd) = descriptor(given) {
        return fd.map(NetSource::Fd);
    }
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let is_name = |name: &&str| {
        (1..=INTERFACE_MAX).contains(&name.len())
            && !name.contains(forbidden)
            && ![".", ".."].contains(name)
    };
    let name = given
        .value
        .to_str()
        .filter(is_name)
        .ok_or(Rule::Interface)?;
    Ok(NetSource::Interface(name.to_owned()))
}

/// `--net-mac`: six pairs of hexadecimal digits between colons.
pub(super) fn mac(given: &OptionValue) -> Result<[u8; 6], Rule> {
    let mut mac = [0; 6];
    let mut pairs = given.value.to_str().ok_or(Rule::MacForm)?.split(':');
    for byte in &mut mac {
        let pair = pairs.next().ok_or(Rule::MacForm)?;
        if !(1..=2).contains(&pair.len()) || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Rule::MacForm);
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| Rule::MacForm)?;
    }
    match mac {
        _ if pairs.next().is_some() => Err(Rule::MacForm),
        [first, ..] if first & 1 == 1 => Err(Rule::MacMulticast),
        [0, 0, 0, 0, 0, 0] => Err(Rule::MacZero),
        mac => Ok(mac),
    }
}

/// `--block` and `--disk`: a path, or `@` and the number or name of a file descriptor.
pub(super) fn block_source(given: &OptionValue) -> Result<BlockSource, Rule> {
    match descriptor(given) {
        Some(fd) => fd.map(BlockSource::Fd),
        None => path(given).map(BlockSource::Path),
    }
}

/// `--name`: printable ASCII, so that it is the same in a terminal, in JSON and as a process title.
pub(super) fn run_name(given: &OptionValue) -> Result<String, Rule> {
    let is_name = |name: &&str| {
        (1..=RUN_NAME_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
            && name.trim() == *name
    };
    let name = given.value.to_str().filter(is_name).ok_or(Rule::RunName)?;
    Ok(name.to_owned())
}

/// Any path that is not empty.
pub(super) fn path(given: &OptionValue) -> Result<PathBuf, Rule> {
    if given.value.is_empty() {
        return Err(Rule::Path);
    }
    Ok(given.value.clone().into())
}

/// `--block-sector-size`, in bytes.
pub(super) fn sector_size(given: &OptionValue) -> Result<u16, Rule> {
    let is_valid = |size: &u16| size.is_power_of_two() && (512..=32768).contains(size);
    whole(given).filter(is_valid).ok_or(Rule::SectorSize)
}
