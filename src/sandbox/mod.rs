//! The sandbox: removes every right that the tender does not need to serve the guest. A guest that
//! breaks out of KVM or of its process, or exploits a bug in a hypercall, then controls a process
//! that can open no file, start no program and reach no network. KVM, or the boundary of the guest's
//! process, is the wall; the sandbox is a second one.
//!
//! The layers, outermost first: another user and root directory if requested; no new privileges and
//! no capabilities; Landlock: no files, no TCP, no signals to others; and seccomp: an allow-list of
//! system calls by argument, one for each thread ([`rules`]). All layers are active before the
//! guest's first instruction. `docs/security.md`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::SandboxMode;
use crate::host::user::{self, Identity};
use crate::host::{capabilities, inherited_filter, lease, signal};

mod filter;
mod landlock;
mod root;
pub mod rules;
#[cfg(test)]
mod tests;
mod violation;

pub use root::Root;
pub(crate) use root::root;
use rules::{GUEST, METRICS, Parameters, Rule};

/// Why a run cannot be confined.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Error {
    #[error("--sandbox=strict: this kernel lacks {layer} ({source})")]
    #[diagnostic(help("--sandbox=best-effort does without"))]
    Missing { layer: Layer, source: io::Error },
    #[error("--chroot needs the right to change its root directory, which root has")]
    #[diagnostic(help("start tender as root or omit the option"))]
    Privilege,
    #[error(transparent)]
    #[diagnostic(transparent)]
    User(#[from] user::Error),
    #[error("--chroot={}: {source}", path.display())]
    #[diagnostic(help("{hint}"))]
    Root {
        path: PathBuf,
        source: io::Error,
        hint: &'static str,
    },
}

/// A layer of the sandbox that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// `PR_SET_NO_NEW_PRIVS`.
    Privileges,
    /// Dropped capabilities.
    Capabilities,
    /// Landlock.
    Landlock,
    /// System call filters.
    Seccomp,
    /// Denied model-specific registers; x86_64 only.
    Registers,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Privileges => "'no new privileges'",
            Layer::Capabilities => "the dropping of capabilities",
            Layer::Landlock => {
                "Landlock (CONFIG_SECURITY_LANDLOCK, and 'landlock' among the modules of lsm=)"
            }
            Layer::Seccomp => "seccomp filters (CONFIG_SECCOMP_FILTER)",
            Layer::Registers => "KVM's filter of model-specific registers (Linux 5.10)",
        })
    }
}

/// A configured sandbox, checked as far as possible without entering it.
#[derive(Debug)]
pub struct Sandbox {
    mode: SandboxMode,
    identity: Option<Identity>,
    root: Option<Root>,
}

impl Sandbox {
    /// Returns a sandbox that changes to `identity` and `root`. Changes nothing yet.
    pub fn new(mode: SandboxMode, identity: Option<Identity>, root: Option<Root>) -> Sandbox {
        Sandbox {
            mode,
            identity,
            root,
        }
    }

    /// Enters the sandbox as for a run, with a filter for this thread that allows everything.
    /// Returns a line about all layers, and whether all are available. The process stays confined.
    ///
    /// # Errors
    /// As [`Sandbox::enter`] and [`Confined::confine_guests_thread`].
    pub fn try_out(self) -> Result<(String, bool), Error> {
        let confined = self.enter(Parameters::default())?;
        if confined.mode == SandboxMode::Off {
            return Ok(("off, as requested".to_owned(), true));
        }
        let filtered = confined
            .accept_missing(Layer::Seccomp, filter::install(&mut filter::pass()))?
            .is_some();
        Ok((
            confined.summary(filtered),
            confined.unprivileged && confined.landlock.is_some() && filtered,
        ))
    }

    /// Confines the process as a whole, which must have no second thread yet. Each thread then
    /// installs its own filter, with `parameters`.
    ///
    /// # Errors
    /// A user or directory is unavailable; in strict mode, this kernel lacks a layer.
    pub fn enter(self, parameters: Parameters) -> Result<Confined, Error> {
        if let Some(root) = self.root {
            root.enter()?;
        }
        if let Some(identity) = self.identity {
            user::become_user(identity)?;
            // A failure costs gdb's interruptions only.
            let _ = parameters
                .debugger
                .iter()
                .try_for_each(|fd| signal::own(*fd));
            parameters.lease.into_iter().for_each(lease::renew);
        }
        let directory = parameters.cores.map(|(directory, _)| directory);
        let mut confined = Confined {
            mode: self.mode,
            unprivileged: false,
            landlock: None,
            parameters,
        };
        if self.mode == SandboxMode::Off {
            return Ok(confined);
        }
        let no_new_privileges =
            confined.accept_missing(Layer::Privileges, capabilities::forbid_new_privileges())?;
        let none = confined.accept_missing(Layer::Capabilities, capabilities::drop_all())?;
        confined.unprivileged = no_new_privileges.and(none).is_some();
        confined.landlock =
            confined.accept_missing(Layer::Landlock, landlock::restrict(directory))?;
        Ok(confined)
    }
}

/// A process that is in its sandbox, except for the filters of its threads.
#[derive(Clone, Debug)]
pub struct Confined {
    mode: SandboxMode,
    /// No capabilities are left, and no new ones can be gained.
    unprivileged: bool,
    /// Active version of Landlock.
    landlock: Option<i32>,
    parameters: Parameters,
}

impl Confined {
    /// Also allows the calls that drive this child, which is the guest.
    pub fn allow_child(&mut self, child: Option<i32>) {
        self.parameters.child = child;
    }

    /// Limits this thread to the system calls for running the guest; any other ends the process.
    ///
    /// # Errors
    /// In strict mode, this kernel has no filters.
    pub fn confine_guests_thread(&self) -> Result<(), Error> {
        if self.mode == SandboxMode::Off {
            log::info!("sandbox: off");
            return Ok(());
        }
        report_violations();
        let mut program = filter::compile(GUEST, &self.parameters);
        let filtered = self
            .accept_missing(Layer::Seccomp, filter::install(&mut program))?
            .is_some();
        if !filtered && inherited_filter::has_rejected() {
            log::warn!("sandbox: an inherited seccomp filter prevents the tender's own filter");
            return Ok(());
        }
        log::info!("sandbox: {}", self.summary(filtered));
        Ok(())
    }

    /// Lists the active layers.
    fn summary(&self, filtered: bool) -> String {
        let privileges = if self.unprivileged {
            "no privileges"
        } else {
            "privileges NOT dropped"
        };
        let seccomp = if filtered {
            "system calls filtered"
        } else {
            "system calls NOT filtered"
        };
        match self.landlock {
            Some(version) => format!("{privileges}, Landlock (version {version}), {seccomp}"),
            None => format!("{privileges}, no Landlock, {seccomp}"),
        }
    }

    /// As [`Confined::confine_guests_thread`], for the thread that serves metrics.
    ///
    /// # Errors
    /// The same.
    pub fn confine_metrics_thread(&self) -> Result<(), Error> {
        self.confine(METRICS)
    }

    fn confine(&self, rules: &[Rule]) -> Result<(), Error> {
        if self.mode != SandboxMode::Off {
            report_violations();
            let mut program = filter::compile(rules, &self.parameters);
            self.accept_missing(Layer::Seccomp, filter::install(&mut program))?;
        }
        Ok(())
    }

    /// Returns the result of a layer; a missing one is an error in strict mode only.
    fn accept_missing<T>(&self, layer: Layer, result: io::Result<T>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => handle_missing_layer(layer, self.mode, error).map(|()| None),
        }
    }
}

/// Makes rejected calls violations of the sandbox. Before, an inherited filter may reject calls that
/// are not necessary.
fn report_violations() {
    // If our filter cannot be installed, a rejected call is not a violation of it.
    if !inherited_filter::has_rejected() || filter::is_possible() {
        violation::report();
    }
}

/// A missing layer is an error in strict mode and a log message otherwise.
///
/// # Errors
/// In strict mode, the missing layer.
pub(crate) fn handle_missing_layer(
    layer: Layer,
    mode: SandboxMode,
    error: io::Error,
) -> Result<(), Error> {
    match layer {
        _ if mode == SandboxMode::Strict => {
            return Err(Error::Missing {
                layer,
                source: error,
            });
        }
        Layer::Registers => log::info!(
            "KVM cannot deny model-specific registers to the guest; Linux 5.10 or later can"
        ),
        // Reported once, at the end.
        _ if inherited_filter::has_rejected() => log::info!("sandbox: {layer}: {error}"),
        // Many kernels lack Landlock, such as those of Raspberry Pi OS, and the other layers are
        // effective without it. Without a filter, little protection is left.
        Layer::Landlock => {
            log::info!("sandbox: this kernel lacks or denies {layer}: {error}")
        }
        _ => log::warn!(
            "sandbox: this kernel lacks or denies {layer}: {error}; the guest runs without it"
        ),
    }
    Ok(())
}
