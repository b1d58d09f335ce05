//! Tests that run, or are reported as ignored, with the reason, where the machine lacks something.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Completion, Trial};

use super::{host_error, mounts, net, run, unikernel};

/// Whether something that a test needs is available; if not, why.
type Need = Result<(), String>;

const KVM_GET_API_VERSION: u32 = 0xae00;

/// Runs the tests that the arguments select. Call it first, before there is a second thread.
pub fn main(tests: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        net::become_root();
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// A test that needs only `tender`.
pub fn test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    trial(name, || Ok(()), body)
}

/// A test that runs a guest.
pub fn kvm_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    trial(name, || kvm().clone(), body)
}

/// A test that runs a guest in a network namespace, which ends with the test.
pub fn net_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    trial(
        name,
        || kvm().clone().and_then(|()| net::available().clone()),
        move || net::in_namespace(body),
    )
}

/// As [`net_test`], for a test that also becomes another user.
pub fn root_net_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    let need = || {
        superuser()
            .and_then(|()| kvm().clone())
            .and_then(|()| net::available().clone())
    };
    trial(name, need, move || net::in_namespace(body))
}

/// A test that runs a guest and may find that the machine lacks something: the error is the reason.
pub fn kvm_test_if_possible(
    name: &str,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match kvm().clone().and_then(|()| body()) {
        Ok(()) => Ok(Completion::Completed),
        Err(reason) => Ok(Completion::ignored_with(reason)),
    })
}

/// A test that runs a guest as another user, which needs the superuser.
pub fn root_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    trial(name, || superuser().and_then(|()| kvm().clone()), body)
}

/// As [`root_test`], for a test that gives the guest a private /dev.
pub fn root_mount_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    trial(
        name,
        || {
            superuser()
                .and_then(|()| mounts::available())
                .and_then(|()| kvm().clone())
        },
        body,
    )
}

/// A test of repository files with these programs, which emulated machines do not have.
pub fn tool_test(
    name: &str,
    programs: &'static [&'static str],
    body: impl FnOnce() + Send + 'static,
) -> Trial {
    trial(name, || tools(programs), body)
}

/// As [`tool_test`], for a test that runs a guest in a network namespace.
pub fn tool_net_test(
    name: &str,
    programs: &'static [&'static str],
    body: impl FnOnce() + Send + 'static,
) -> Trial {
    let need = || {
        tools(programs)
            .and_then(|()| kvm().clone())
            .and_then(|()| net::available().clone())
    };
    trial(name, need, move || net::in_namespace(body))
}

/// As [`tool_test`], for a test that runs a guest.
pub fn tool_kvm_test(
    name: &str,
    programs: &'static [&'static str],
    body: impl FnOnce() + Send + 'static,
) -> Trial {
    trial(name, || tools(programs).and_then(|()| kvm().clone()), body)
}

fn tools(programs: &[&str]) -> Need {
    if !Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .exists()
    {
        return Err("the repository is not here".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    match programs.iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(format!("no program '{program}' here")),
    }
}

fn trial(
    name: &str,
    need: impl Fn() -> Need + Send + 'static,
    body: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match need() {
        Ok(()) => {
            body();
            Ok(Completion::Completed)
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
    })
}

/// The first two numbers of this kernel's release.
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether this kernel supports the whole sandbox, of which Landlock is the newest part.
pub fn landlock() -> Need {
    let output = run(&mut unikernel("hello", &["-v", "--mem=2"], &[]));
    if output.stderr.contains("Landlock (version") {
        Ok(())
    } else {
        Err("this kernel has no Landlock".into())
    }
}

/// Whether guests can run here.
fn kvm() -> &'static Need {
    static KVM: OnceLock<Need> = OnceLock::new();
    KVM.get_or_init(|| {
        let file = File::options().read(true).write(true).open("/dev/kvm");
        let file = file.map_err(|error| format!("no /dev/kvm: {error}"))?;
        // SAFETY: the request takes no pointer, and the descriptor is open.
        match unsafe { libc::ioctl(file.as_raw_fd(), KVM_GET_API_VERSION as _, 0) } {
            12 => Ok(()),
            -1 => Err(host_error("no usable /dev/kvm")),
            version => Err(format!(
                "no usable /dev/kvm: its interface has version {version}"
            )),
        }
    })
}

fn superuser() -> Need {
    if net::is_superuser() {
        Ok(())
    } else {
        Err("not run by the superuser".into())
    }
}
