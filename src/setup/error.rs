//! Errors of setup.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::guest::era::Era;
use crate::guest::image::Machine;
use crate::host::device_file;
use crate::host::ids::sudo;
use crate::host::similar::{nearest, similar_path};

/// An error of setup itself; errors of other modules pass through it unchanged.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("cannot be opened: {source}")]
    #[diagnostic(help("{hint}"))]
    Open { source: io::Error, hint: String },
    #[error("changed while tender read it")]
    #[diagnostic(help("try again when its writer is done"))]
    Changed,
    #[error("is a {0}")]
    #[diagnostic(help("give an hvt unikernel (usually NAME.hvt)"))]
    NotAFile(&'static str),
    #[error("is a TOML file, not a unikernel")]
    #[diagnostic(help("to run the unikernel that it names: tender --config={}", path.display()))]
    Toml { path: PathBuf },
    #[error("built for {image}, but this host is {host}")]
    #[diagnostic(help("build it for {host}"))]
    Machine { image: Machine, host: Machine },
    #[error("needs at least {needed} MiB of memory, got {given}")]
    #[diagnostic(help("use --mem={needed}M"))]
    TooLittleMemory { given: u64, needed: u64 },
    #[error("needs {needed} MiB of memory, limit 4096")]
    #[diagnostic(help("build a smaller image"))]
    TooLarge { needed: u64 },
    #[error("'{name}': this unikernel's devices have no names ({era})")]
    #[diagnostic(help("use --net=IFACE or --disk=PATH"))]
    UnnamedDevices { name: String, era: Era },
    #[error("cannot read the clock: {0}")]
    #[diagnostic(help("the seccomp filter around tender must allow clock_gettime"))]
    Clock(io::Error),
    #[error("cannot open /dev/kvm: {source}")]
    #[diagnostic(help("{hint}; or run without KVM: --engine=process"))]
    NoKvm { source: io::Error, hint: String },
    #[error("unsupported KVM API version {0} (expected 12)")]
    #[diagnostic(help(
        "boot a Linux kernel with its own KVM; or run without KVM: --engine=process"
    ))]
    KvmVersion(i32),
    #[error(
        "--sandbox=strict: the host's page at {0:#x} would be writable and executable, as host pages are larger than the guest's"
    )]
    #[diagnostic(help("use --sandbox=best-effort or --engine=kvm"))]
    WritableCode(u64),
    #[error("/dev/kvm is not the KVM device")]
    #[diagnostic(help(
        "recreate it: '{}mknod /dev/kvm c 10 232'; or run without KVM: --engine=process",
        sudo()
    ))]
    NotKvm,
    #[error("cannot duplicate network descriptors for the ring: {0}")]
    #[diagnostic(help("raise 'ulimit -n' or use --net-ring=off"))]
    Descriptors(io::Error),
}

impl Error {
    /// Returns the error for a unikernel that was not opened at `path`, with a hint; `is_run`
    /// if the command line may be meant as another command.
    #[cold]
    pub fn open(path: &Path, source: io::Error, is_run: bool) -> Error {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => mistyped(path, is_run)
                .unwrap_or_else(|| "give the path of an hvt unikernel".to_owned()),
            io::ErrorKind::NotADirectory => "give the path of an hvt unikernel".to_owned(),
            _ => "give the path of an hvt unikernel that this user may read".to_owned(),
        };
        Error::Open { source, hint }
    }

    /// Returns the error for a failed open of /dev/kvm, with a hint.
    pub fn no_kvm(errno: i32) -> Error {
        let hint = match errno {
            libc::ENOENT | libc::ENODEV | libc::ENXIO if !device_file::KVM.has_driver() => {
                "the kernel has no KVM; enable virtualisation in the firmware; on ARM64, boot in EL2 (hyp mode)"
                    .to_owned()
            }
            _ => device_file::KVM.hint(errno),
        };
        Error::NoKvm {
            source: io::Error::from_raw_os_error(errno),
            hint,
        }
    }
}

/// Returns a hint for a unikernel at `path`, where no file is: a misspelt name, an argument of the
/// guest, or a command of other programs.
fn mistyped(path: &Path, is_run: bool) -> Option<String> {
    let word = path.to_str().unwrap_or_default();
    let missing = missing_directory(path).filter(|_| !word.starts_with('-'));
    if let Some(directory) = missing {
        return Some(format!("there is no directory '{}'", directory.display()));
    }
    let similar = with_suffix(path).or_else(|| similar_path(path));
    let similar = similar.map(|path| format!("did you mean '{}'?", path.display()));
    if !is_run || word.contains(['.', '/']) && !word.starts_with('-') {
        return similar;
    }
    let instead = match (word, similar) {
        ("run" | "start" | "exec", _) => "tender UNIKERNEL",
        ("check", _) => "tender --check UNIKERNEL",
        ("help", _) => "tender --help",
        ("version", _) => "tender --version",
        ("UNIKERNEL", _) => {
            return Some(
                "UNIKERNEL is a placeholder; write the path of an hvt unikernel".to_owned(),
            );
        }
        (_, Some(similar)) => return Some(similar),
        _ if word.starts_with('-') => {
            return Some("options of the guest follow the unikernel".to_owned());
        }
        _ if nearest(word, ["inspect"]).is_some() => "tender inspect UNIKERNEL",
        _ => return None,
    };
    Some(format!("there is no command '{word}'; write '{instead}'"))
}

/// Returns the directory of `path` that does not exist, the uppermost one.
fn missing_directory(path: &Path) -> Option<&Path> {
    let above = path
        .ancestors()
        .skip(1)
        .filter(|path| !path.as_os_str().is_empty());
    above.take_while(|path| !path.exists()).last()
}

/// Returns the file called like `path`, with `.hvt` at its end.
fn with_suffix(path: &Path) -> Option<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".hvt");
    Some(PathBuf::from(name)).filter(|path| path.is_file())
}

/// Returns whether `file` at `path`, which is no ELF file, is a configuration file: by its name, or
/// because it is TOML with at least one key.
#[cold]
pub(super) fn is_toml(path: &Path, file: &File) -> bool {
    let mut text = Vec::new();
    let mut is_text = || {
        let mut file = file.take(LONGEST_TOML);
        file.read_to_end(&mut text).ok()?;
        let table = DeTable::parse(std::str::from_utf8(&text).ok()?).ok()?;
        Some(!table.get_ref().is_empty())
    };
    path.extension()
        .is_some_and(|extension| extension == "toml")
        || is_text().unwrap_or(false)
}

/// Most bytes of a file that [`is_toml`] reads.
const LONGEST_TOML: u64 = 64 << 10;
