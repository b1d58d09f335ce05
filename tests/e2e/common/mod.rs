//! Shared by all end-to-end tests: paths of `tender` and the test unikernels, what a test needs of
//! the machine, and runs of a guest with a time limit.

pub mod children;
mod guest;
pub mod hostile;
pub mod inject;
mod mounts;
pub mod net;
pub mod prometheus;
pub mod refuse;
pub mod rsp;
pub mod schema;
pub mod trace;
#[macro_use]
mod trial;
pub mod wire;

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use rustix::process::Resource;
use rustix::process::{Rlimit, setrlimit};

pub use guest::{Guest, LIMIT, Output, run};
pub use mounts::{Device, Root, bind, with_devices};
pub use trial::{Need, kernel, landlock, of, trial, vdso};

/// Limits a resource of the program that `command` starts.
pub fn limit(command: &mut Command, resource: Resource, most: u64) -> &mut Command {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    // SAFETY: setrlimit is one system call, which is safe between fork and exec.
    unsafe { command.pre_exec(move || Ok(setrlimit(resource, limit)?)) }
}

/// A program that every machine has. These tests themselves contain strings of unikernels.
pub fn ordinary_program() -> PathBuf {
    std::fs::canonicalize("/bin/sh").unwrap()
}

/// Returns a line of a process's status, such as `Seccomp`.
#[track_caller]
pub fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
        .to_owned()
}

/// Path of the `tender` under test: `TENDER_BIN`, or the one that cargo built.
pub fn tender_path() -> PathBuf {
    std::env::var_os("TENDER_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_tender").into(), PathBuf::from)
}

/// Path of the test unikernel `name` for this machine: in `TENDER_FIXTURES`, or in the repository.
pub fn fixture(name: &str) -> PathBuf {
    fixtures().join(format!("{name}.hvt"))
}

/// Path of the same unikernel for the other architecture, if it exists.
pub fn foreign_fixture(name: &str) -> Option<PathBuf> {
    let other = if cfg!(target_arch = "x86_64") {
        "aarch64"
    } else {
        "x86_64"
    };
    let path = fixtures().parent()?.join(other).join(format!("{name}.hvt"));
    path.exists().then_some(path)
}

fn fixtures() -> PathBuf {
    std::env::var_os("TENDER_FIXTURES").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("fixtures/bin")
                .join(std::env::consts::ARCH)
        },
        PathBuf::from,
    )
}

/// Whether guests run in a process instead of a KVM machine: `TENDER_ENGINE=process`.
pub fn by_process() -> bool {
    match std::env::var_os("TENDER_ENGINE") {
        None => false,
        Some(name) if name == "kvm" => false,
        Some(name) if name == "process" => true,
        Some(name) => panic!("TENDER_ENGINE={name:?}: expected kvm or process"),
    }
}

/// The name of the engine under test.
pub fn engine() -> &'static str {
    if by_process() { "process" } else { "kvm" }
}

/// The option for the engine under test, if it is not the default.
pub fn engine_option() -> Option<&'static str> {
    by_process().then_some("--engine=process")
}

/// The same for a command line with these arguments, which may be of another command or may name
/// an engine.
fn engine_option_for(args: &[OsString]) -> Option<&'static str> {
    const OTHERS: [&str; 4] = ["inspect", "--help", "-h", "--version"];
    let is_other = args
        .first()
        .is_some_and(|first| OTHERS.iter().any(|other| first == other));
    let options = args.iter().take_while(|arg| *arg != "--");
    let mut names = options.filter_map(|arg| arg.to_str());
    let has_engine = names.any(|name| name.starts_with("--engine"));
    engine_option().filter(|_| !is_other && !has_engine)
}

/// A `tender` with these arguments, for the engine under test.
pub fn tender<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
    let mut command = Command::new(tender_path());
    command
        .args(engine_option_for(&args))
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE");
    // A service manager that runs the tests must receive no notification from them.
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID");
    command
}

/// A `tender` that runs the unikernel `name` with `options` before it and `arguments` after it.
pub fn unikernel(name: &str, options: &[&str], arguments: &[&str]) -> Command {
    let mut command = tender(options);
    // Where KVM emulates guests, `auto` offers no ring; a process has none.
    let has_ring = !by_process() && (name == "hostile" || name.starts_with("ring"));
    if has_ring && !options.iter().any(|option| option.contains("net-ring")) {
        command.arg("--net-ring=on");
    }
    command.arg("--").arg(fixture(name)).args(arguments);
    command
}

/// Returns whether KVM emulates guests: the processor cannot run them itself. A process never does.
pub fn emulates_guests() -> bool {
    if by_process() {
        return false;
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").expect("it can be read");
    let mut flags = flags.split_whitespace();
    cfg!(target_arch = "x86_64") && !flags.any(|flag| ["vmx", "svm"].contains(&flag))
}

/// A temporary directory, removed on drop.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// A path as text; the paths of tests are UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// The last error of a system call, after the text `what`.
pub fn host_error(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

/// A pipe: its read end and its write end. Neither is inherited.
pub fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which are new and have no other owner.
    unsafe {
        assert!(
            libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0,
            "{}",
            host_error("pipe")
        );
        ends.map(|end| File::from_raw_fd(end)).into()
    }
}

/// A full pipe: a write blocks until the reader reads.
pub fn full_pipe() -> (File, File) {
    let (reader, mut writer) = pipe();
    let fd = writer.as_raw_fd();
    // SAFETY: these requests take numbers; the descriptor is open.
    let set = |command, value: libc::c_int| unsafe { libc::fcntl(fd, command, value) };
    assert!(
        set(libc::F_SETPIPE_SZ, 4096) >= 4096,
        "{}",
        host_error("F_SETPIPE_SZ")
    );
    // The child shares this flag with us, so it is cleared again.
    assert!(
        set(libc::F_SETFL, libc::O_NONBLOCK) == 0,
        "{}",
        host_error("F_SETFL with O_NONBLOCK")
    );
    while writer.write(&[b'.'; 4096]).is_ok() {}
    assert!(set(libc::F_SETFL, 0) == 0, "{}", host_error("F_SETFL"));
    (reader, writer)
}

/// The descriptor number that [`pass_fd`] uses; nothing else uses it.
pub const FD: i32 = 99;

/// Passes `file` to the command as its descriptor [`FD`].
pub fn pass_fd(mut command: Command, file: impl AsRawFd + Send + Sync + 'static) -> Command {
    // SAFETY: dup2 is safe between fork and exec; the descriptor is open until then, as `file`
    // moves into the closure.
    unsafe {
        command.pre_exec(move || match libc::dup2(file.as_raw_fd(), FD) {
            FD => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command
}

/// Restricts the command to one of our processors.
pub fn on_one_processor(command: &mut Command) -> &mut Command {
    // SAFETY: the set is plain numbers, and these are system calls, which are safe between fork and
    // exec.
    unsafe {
        command.pre_exec(|| {
            let size = size_of::<libc::cpu_set_t>();
            let (mut ours, mut one): (libc::cpu_set_t, libc::cpu_set_t) = std::mem::zeroed();
            let asked = libc::sched_getaffinity(0, size, &raw mut ours) == 0;
            let first = (0..libc::CPU_SETSIZE as usize)
                .find(|&cpu| libc::CPU_ISSET(cpu, &ours))
                .unwrap_or(0);
            libc::CPU_SET(first, &mut one);
            match asked && libc::sched_setaffinity(0, size, &raw const one) == 0 {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        })
    }
}

/// A `tender` run by the user nobody, with copies of it and of the unikernel `name` in `directory`,
/// and these devices in /dev.
pub fn as_nobody(name: &str, directory: &Path, devices: &[Device], options: &[&str]) -> Command {
    let [program, image] = [tender_path(), fixture(name)].map(|from| {
        let to = directory.join(from.file_name().expect("both are files"));
        std::fs::copy(from, &to).expect("a file can be copied");
        to
    });
    let place = directory.join("dev");
    std::fs::create_dir(&place).expect("the directory is ours");
    std::fs::set_permissions(directory, Permissions::from_mode(0o755))
        .expect("the directory is ours");
    let mut command = Command::new(program);
    command
        .args(engine_option())
        .args(options)
        .arg("--")
        .arg(image)
        .env_remove("RUST_LOG");
    mounts::as_nobody(mounts::with_devices(&mut command, &place, devices));
    command
}
