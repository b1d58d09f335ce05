//! What runs the guests: the values of tender's option `--engine` that name one.

use crate::base::error::{Result, fail};
use crate::base::options::Options;
use crate::base::progress;
use crate::machines::host;

/// The option, of this program and of tender.
pub const OPTION: &str = "--engine";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A KVM machine.
    Kvm,
    /// A process that may make no system call.
    Process,
}

impl Engine {
    /// Takes the option `--engine`.
    pub fn option(options: &mut Options) -> Result<Option<Engine>> {
        let name = options.value(OPTION)?;
        name.map(|name| Engine::parse(&name)).transpose()
    }

    fn parse(name: &str) -> Result<Engine> {
        let found = [Engine::Kvm, Engine::Process]
            .into_iter()
            .find(|engine| engine.name() == name);
        match found {
            Some(engine) => Ok(engine),
            None => fail(format!("'{name}' is no engine; there are kvm and process")),
        }
    }

    /// Returns KVM where this host's can be used, otherwise the process, with a note.
    pub fn of_this_host() -> Engine {
        match host::kvm() {
            Ok(()) => Engine::Kvm,
            Err(reason) => {
                progress::note(format_args!("guests run in a process here: {reason}"));
                Engine::Process
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Engine::Kvm => "kvm",
            Engine::Process => "process",
        }
    }

    /// Returns tender's option for it.
    pub fn as_option(self) -> String {
        format!("{OPTION}={}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_the_name_that_tender_knows() {
        assert_eq!(Engine::parse("kvm").unwrap(), Engine::Kvm);
        assert_eq!(Engine::parse("process").unwrap(), Engine::Process);
        assert!(Engine::parse("auto").is_err());
        assert_eq!(Engine::Process.as_option(), "--engine=process");
    }
}
