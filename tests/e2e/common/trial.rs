//! Tests that run, or are reported as ignored, with the reason, where the machine lacks something.

use std::cell::Cell;
use std::fs::File;
use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use libtest_mimic::{Completion, Trial};

use super::{by_process, host_error, mounts, net, refuse, run, unikernel};

/// Whether something that tests need is there; if not, why.
type Available = Result<(), String>;

const KVM_GET_API_VERSION: u32 = 0xae00;

/// What a test needs.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A host on which the engine under test can run a unikernel: a usable /dev/kvm, or what a
    /// guest in a process needs.
    Kvm,
    /// A usable /dev/kvm, for a test of KVM's engine or of a feature that it alone has.
    KvmEngine,
    /// A host on which a guest runs in a process, for a test of that engine or of its documents.
    ProcessEngine,
    /// A network namespace of its own, which ends with the test.
    Net,
    /// The superuser.
    Root,
    /// Clocks that can be read without a system call.
    Vdso,
    /// Mount namespaces.
    Mounts,
    /// At least two processors.
    Processors,
    /// Files of this repository, which emulated machines lack.
    Repository,
    /// These programs.
    Programs(&'static [&'static str]),
}

impl Need {
    fn check(self) -> Available {
        match self {
            Need::Kvm if by_process() => process().clone(),
            Need::Kvm => kvm().clone(),
            Need::KvmEngine if by_process() => Err("a test of KVM's engine".into()),
            Need::KvmEngine => kvm().clone(),
            Need::ProcessEngine => process().clone(),
            Need::Net => net::available().clone(),
            Need::Root => superuser(),
            Need::Vdso => vdso(),
            Need::Mounts => mounts::available(),
            Need::Processors => processors(),
            Need::Repository => repository(),
            Need::Programs(programs) => programs_are_there(programs),
        }
    }
}

thread_local! {
    /// The capability whose tests are being listed.
    static CAPABILITY: Cell<&'static str> = const { Cell::new("") };
}

/// Lists the tests of `capability`, whose names begin with it.
pub fn of(capability: &'static str, tests: fn() -> Vec<Trial>) -> Vec<Trial> {
    CAPABILITY.set(capability);
    let tests = tests();
    CAPABILITY.set("");
    tests
}

/// Begins a test called `name`.
pub fn trial(name: &str) -> Builder {
    let capability = CAPABILITY.get();
    let name = if capability.is_empty() {
        name.to_owned()
    } else {
        format!("{capability}::{name}")
    };
    Builder {
        name,
        needs: Vec::new(),
    }
}

/// A test named after the function that it runs, with what it needs.
#[macro_export]
macro_rules! trial {
    ($test:ident $(, $need:expr)* $(,)?) => {
        $crate::common::trial(stringify!($test)).needs(&[$($need),*]).run($test)
    };
}

/// A test without its body.
pub struct Builder {
    name: String,
    needs: Vec<Need>,
}

impl Builder {
    /// Without these, the test is ignored with the reason.
    pub fn needs(mut self, needs: &[Need]) -> Builder {
        self.needs.extend(needs);
        self
    }

    /// The test runs `body`.
    pub fn run(self, body: impl FnOnce() + Send + 'static) -> Trial {
        self.try_run(move || {
            body();
            Ok(())
        })
    }

    /// The test runs `body`, whose error is the reason why this machine cannot run it.
    pub fn try_run(self, body: impl FnOnce() -> Available + Send + 'static) -> Trial {
        let Builder { name, needs } = self;
        let has_network = needs.iter().any(|need| matches!(need, Need::Net));
        Trial::ignorable_test(name, move || {
            let available = needs.into_iter().try_for_each(Need::check);
            let done = available.and_then(|()| {
                if has_network {
                    net::in_namespace(body)
                } else {
                    body()
                }
            });
            Ok(done.map_or_else(Completion::ignored_with, |()| Completion::Completed))
        })
    }
}

fn repository() -> Available {
    if Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .exists()
    {
        Ok(())
    } else {
        Err("the repository is not here".into())
    }
}

fn programs_are_there(programs: &[&str]) -> Available {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    match programs.iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(format!("no program '{program}' here")),
    }
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
pub fn landlock() -> Available {
    let output = run(&mut unikernel("hello", &["-v", "--mem=2"], &[]));
    if output.stderr.contains("Landlock (version") {
        Ok(())
    } else {
        Err("this kernel has no Landlock".into())
    }
}

/// Whether guests can run here in a process; if not, `tender`'s message.
fn process() -> &'static Available {
    static PROCESS: OnceLock<Available> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let options = ["--engine=process", "--mem=2"];
        let output = run(&mut unikernel("hello", &options, &[]));
        match output.status.success() {
            true => Ok(()),
            false => Err(output.stderr.trim_end().to_owned()),
        }
    })
}

/// Whether guests can run here in a KVM machine.
fn kvm() -> &'static Available {
    static KVM: OnceLock<Available> = OnceLock::new();
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

/// Whether the vDSO of this host provides the time. With a clock source that only the kernel can
/// read, it makes the system call, which a filter then refuses.
pub fn vdso() -> Available {
    let answered = std::thread::spawn(|| {
        refuse::in_this_thread(libc::SYS_clock_gettime);
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the call writes one timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) == 0 }
    });
    if answered.join().expect("it makes calls that cannot panic") {
        Ok(())
    } else {
        Err("this host's clock needs a system call".into())
    }
}

fn processors() -> Available {
    let count = std::thread::available_parallelism().map_or(1, NonZero::get);
    match count {
        1 => Err("only one processor".into()),
        _ => Ok(()),
    }
}

fn superuser() -> Available {
    if net::is_superuser() {
        Ok(())
    } else {
        Err("not run by the superuser".into())
    }
}
