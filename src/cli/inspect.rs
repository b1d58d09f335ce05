//! `tender inspect`: a separate command line, too small for a table.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::argv::{is_option, shown};
use super::{Command, Error};

/// The first argument that selects this command.
pub(super) const COMMAND: &str = "inspect";

/// The arguments of `tender inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Path of the unikernel, as given.
    pub unikernel: PathBuf,
    /// The form of the output.
    pub format: Format,
}

/// What `tender inspect` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A report for people.
    #[default]
    Text,
    /// `--json`: the report for programs.
    Json,
    /// `--toml`: a configuration file for `tender --config`.
    Toml,
    /// `--oci`: annotations for container runtimes.
    Oci,
}

/// The options for a form.
const FORMATS: [(&str, Format); 3] = [
    ("--json", Format::Json),
    ("--toml", Format::Toml),
    ("--oci", Format::Oci),
];

const HELP: &str = "\
Reports what a unikernel is, what it needs and how to run it. Does not run it.

Usage: tender inspect [--json|--toml|--oci] [--] UNIKERNEL

Options:
      --json  Print one JSON object, as in docs/inspect.schema.json
      --toml  Print a configuration file for 'tender --config'
      --oci   Print annotations for container runtimes (urunc, aussi)
  -h, --help  Print this text and exit

Files of any architecture are supported on any host. Only read access to the
file is needed.
'inspect' must be the first argument; a unikernel of that name is run by
'tender -- inspect' or 'tender ./inspect'.

Exit status:
  0 if tender can run this unikernel; 1 if not, with the reason on stderr.
";

/// Parses the arguments after `inspect`.
pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Error> {
    let mut format: Option<(&'static str, Format)> = None;
    let mut unikernel = None;
    let mut options_end = false;
    for argument in args {
        match argument.as_bytes() {
            b"--" if !options_end => options_end = true,
            b"--help" | b"-h" if !options_end => return Ok(Command::Help(HELP.to_owned())),
            _ if !options_end && is_option(&argument) => {
                let (second, given) = chosen(argument.as_bytes())?;
                match format {
                    Some((first, _)) if first != second => {
                        return Err(Error::Formats { first, second });
                    }
                    _ => format = Some((second, given)),
                }
            }
            word if unikernel.is_some() => {
                let word = shown(word);
                return Err(Error::OneUnikernel { word });
            }
            _ => unikernel = Some(argument),
        }
    }
    let unikernel = unikernel
        .filter(|path| !path.is_empty())
        .ok_or(Error::NothingToInspect)?
        .into();
    let format = format.map(|(_, format)| format).unwrap_or_default();
    Ok(Command::Inspect(Inspection { unikernel, format }))
}

/// Returns the form that an option selects, and the option.
fn chosen(word: &[u8]) -> Result<(&'static str, Format), Error> {
    let mut formats = FORMATS.into_iter();
    let found = formats.find(|(option, _)| option.as_bytes() == word);
    found.ok_or_else(|| refusal(word))
}

fn refusal(word: &[u8]) -> Error {
    let name = word.split(|&byte| byte == b'=').next().unwrap_or_default();
    let option = shown(name);
    match name {
        b"--json" | b"--toml" | b"--oci" | b"--help" => Error::UnexpectedValue { option },
        _ => Error::Unknown {
            option,
            hint: "'tender inspect --help' lists them".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::message::Message;

    fn command(args: &[&str]) -> Result<Command, Error> {
        super::super::parse(
            std::iter::once("tender")
                .chain(args.iter().copied())
                .map(OsString::from),
        )
    }

    fn inspection(args: &[&str]) -> Inspection {
        match command(args) {
            Ok(Command::Inspect(inspection)) => inspection,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn error(args: &[&str]) -> String {
        command(args)
            .map_err(Message::from)
            .expect_err("an error")
            .to_string()
    }

    #[test]
    fn a_file_and_json_come_in_any_order() {
        let file = |format| Inspection {
            unikernel: "app.hvt".into(),
            format,
        };
        assert_eq!(inspection(&["inspect", "app.hvt"]), file(Format::Text));
        assert_eq!(
            inspection(&["inspect", "--", "app.hvt"]),
            file(Format::Text)
        );
        for (option, format) in FORMATS {
            assert_eq!(
                inspection(&["inspect", option, option, "app.hvt"]),
                file(format)
            );
        }
        for args in [
            ["inspect", "--json", "app.hvt"],
            ["inspect", "app.hvt", "--json"],
        ] {
            assert_eq!(inspection(&args), file(Format::Json));
        }
        assert_eq!(
            inspection(&["inspect", "inspect"]).unikernel,
            PathBuf::from("inspect")
        );
        assert_eq!(
            inspection(&["inspect", "--", "--json"]),
            Inspection {
                unikernel: "--json".into(),
                format: Format::Text
            }
        );
        assert_eq!(inspection(&["inspect", "-"]).unikernel, PathBuf::from("-"));
    }

    #[test]
    fn a_unikernel_called_inspect_can_be_run() {
        for args in [
            &["--", "inspect"][..],
            &["./inspect"],
            &["-v", "inspect"],
            &["--mem=64", "inspect", "--json"],
        ] {
            let Ok(Command::Run(config)) = command(args) else {
                panic!("{args:?}")
            };
            assert!(config.unikernel.ends_with("inspect"), "{args:?}");
        }
        let Ok(Command::Run(config)) = command(&["app.hvt", "inspect"]) else {
            panic!()
        };
        assert_eq!(config.arguments, ["inspect"]);
    }

    #[test]
    fn errors_are_reported() {
        for args in [
            &["inspect"][..],
            &["inspect", "--json"],
            &["inspect", "--"],
            &["inspect", ""],
        ] {
            assert!(
                error(args).contains("no unikernel given; usage: tender inspect"),
                "{args:?}"
            );
        }
        assert_eq!(
            error(&["inspect", "--mem=64", "a"]),
            "unknown option '--mem'; 'tender inspect --help' lists them"
        );
        assert_eq!(
            error(&["inspect", "-v", "a"]),
            "unknown option '-v'; 'tender inspect --help' lists them"
        );
        assert_eq!(
            error(&["inspect", "a", "--json=1"]),
            "option '--json' takes no value"
        );
        assert_eq!(
            error(&["inspect", "--toml", "a", "--oci"]),
            "'--toml' and '--oci' conflict; give one of them"
        );
        assert!(error(&["inspect", "a", "b\n"]).starts_with("unexpected argument 'b\\n'"));
    }

    #[test]
    fn help_fits_a_terminal() {
        for args in [["inspect", "--help"], ["inspect", "-h"]] {
            let Ok(Command::Help(text)) = command(&args) else {
                panic!()
            };
            assert!(text.lines().all(|line| line.len() <= 80), "{text}");
            assert!(text.contains("--json") && text.ends_with('\n'));
        }
    }
}
