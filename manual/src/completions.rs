//! Completions for bash, zsh and fish by clap_complete, with two additions: options may contain a
//! device name, and options end at UNIKERNEL.

use std::io::{Error, Result};

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueHint};
use clap_complete::{Shell, generate};

/// Splits the command line as tender does; bash splits it at `:` and `=`.
const BASH: &str = include_str!("../shell/tender.bash");

/// Completes the first argument that is not an option: a file, or `inspect`.
const ZSH: &str = include_str!("../shell/tender.zsh");

/// Removes the options that `argparse` does not know from its remaining arguments.
const FISH: &str = "set argv (string match --invert -- '-*' $argv)";

/// `argparse` fails for an option without its value, which is exactly what must be completed.
const FISH_VALUE: [&str; 2] = [
    "2>/dev/null\n    or return\n",
    "2>/dev/null\n    or return 0\n",
];

/// Completes values after a device option's `=`, and suppresses files for device names. `@PLAIN@`
/// is replaced by the options whose values are not files.
const FISH_DEVICES: &str = include_str!("../shell/tender.fish");

/// fish loads a file named after the command; this is the whole file for upstream's name.
const FISH_ALIAS: &str = "complete -c solo5-hvt -w tender\n";

/// Returns each script with its file name. Those of bash and zsh serve both names of tender.
pub fn scripts() -> Result<[(&'static str, String); 4]> {
    let command = command();
    Ok([
        ("tender.bash", bash(&command)?),
        ("tender.zsh", zsh(&command)?),
        ("tender.fish", fish(&command)?),
        ("solo5-hvt.fish", FISH_ALIAS.to_owned()),
    ])
}

/// Returns tender's options for completion: for devices both `--net` and the prefix `--net:`.
fn command() -> Command {
    let tender = tender::cli::command();
    let inspect = Command::new("inspect")
        .about("Print what a unikernel is and needs, without running it")
        .disable_help_flag(true)
        .args([flag("json", "Print one JSON object")])
        .args([flag("toml", "Print a configuration file")])
        .args([flag("oci", "Print annotations for container runtimes")])
        .arg(
            Arg::new("help")
                .long("help")
                .short('h')
                .num_args(0)
                .help("Print a text and end"),
        )
        .arg(unikernel());
    Command::new("tender")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        // Including options that the help omits: a user who types the beginning of one knows it.
        .args(tender.get_arguments().map(completed))
        .arg(unikernel())
        .subcommand(inspect)
}

/// Returns a flag of `tender inspect`.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).num_args(0).help(help)
}

fn unikernel() -> Arg {
    Arg::new("UNIKERNEL").value_hint(ValueHint::FilePath)
}

/// Returns the name of a device option without the device: `net` for `net:NAME`.
fn device_option(arg: &Arg) -> Option<&str> {
    arg.get_long()?.split_once(':').map(|(option, _)| option)
}

/// Returns the option with a completion hint, derived from the placeholder of its value.
fn completed(arg: &Arg) -> Arg {
    let value = arg
        .get_value_names()
        .and_then(|names| names.first())
        .map_or("", |name| name.as_str());
    let arg = arg.clone().hide(false).help_heading(None);
    let arg = match device_option(&arg).map(|option| format!("{option}:")) {
        Some(prefix) => arg.long(prefix),
        None => arg,
    };
    let literal = |choice: &str| {
        choice
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let hint = match value {
        "" => return arg,
        value if value.split('|').all(literal) => {
            let arguments: Vec<String> = value.split('|').map(String::from).collect();
            return arg.value_parser(PossibleValuesParser::new(arguments));
        }
        value if value.contains("PATH") || value.contains("FILE") => ValueHint::FilePath,
        value if value.starts_with("DIR") => ValueHint::DirPath,
        value if value.starts_with("USER") => ValueHint::Username,
        _ => ValueHint::Other,
    };
    arg.value_hint(hint)
}

fn generated(shell: Shell, command: &Command) -> Result<String> {
    let mut bytes = Vec::new();
    generate(shell, &mut command.clone(), "tender", &mut bytes);
    String::from_utf8(bytes).map_err(Error::other)
}

/// bash calls our function, which calls the generated one with arguments that it understands.
fn bash(command: &Command) -> Result<String> {
    let valued: Vec<&str> = command
        .get_arguments()
        .filter(|arg| arg.get_value_names().is_some())
        .filter_map(|arg| arg.get_long())
        .filter(|name| !name.ends_with(':'))
        .collect();
    Ok(generated(Shell::Bash, command)? + &BASH.replace("@VALUED@", &valued.join(" ")))
}

/// A device name is part of the same argument as its option (`-` after it); the value follows `=`.
fn zsh(command: &Command) -> Result<String> {
    let arguments = |arg: Arg| match arg
        .get_value_names()
        .and_then(|names| names.first())
        .cloned()
    {
        Some(value) if is_device(&arg) => arg.value_name(format!("NAME={value}")),
        Some(value) => arg.value_name(value.replace(':', r"\:")),
        None => arg,
    };
    // Without `inspect`: the generated functions expect it after the unikernel.
    let options = Command::new("tender")
        .disable_help_flag(true)
        .args(command.get_arguments().cloned())
        .mut_args(arguments);
    let mut script = String::new();
    for line in generated(Shell::Zsh, &options)?.lines() {
        let line = match line.split_once(":=[") {
            Some((option @ "'*--net", rest)) => after_name(&format!(
                r"{option}\:-[{}",
                put(rest, ":' \\", ":_net_interfaces' \\")?
            )),
            Some((option, rest)) => after_name(&format!(r"{option}\:-[{rest}")),
            None if line.starts_with("'*--net=") => put(line, ":' \\", ":_net_interfaces' \\")?,
            None => line.to_owned(),
        };
        script = script + &line + "\n";
    }
    let script = put(&script, "(-s -S -C)", "(-s -S -C -A '-*')")?;
    let script = put(&script, "#compdef tender\n", "#compdef tender solo5-hvt\n")?;
    let script = put(
        &script,
        "    compdef _tender tender\n",
        "    compdef _tender tender solo5-hvt\n",
    )?;
    let script = put(
        &script,
        "'::UNIKERNEL:_files'",
        "':UNIKERNEL:_tender_unikernel'",
    )?;
    put(
        &script,
        "\n_tender() {\n",
        &format!("\n{ZSH}\n_tender() {{\n    _tender_inspect && return\n"),
    )
}

/// Changes a zsh line to complete the value after `NAME=`.
fn after_name(line: &str) -> String {
    match line.rsplit_once(':') {
        Some((spec, action)) if action.starts_with('_') => {
            format!(
                "{spec}:{{compset -P \"*=\" && {}}}' \\",
                action.trim_end_matches("' \\")
            )
        }
        _ => line.to_owned(),
    }
}

/// `argparse` cannot handle options with a device name, so they are offered as plain arguments.
fn fish(command: &Command) -> Result<String> {
    let plain = Command::new("tender")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .args(
            command
                .get_arguments()
                .filter(|arg| !is_device(arg))
                .cloned(),
        )
        .subcommands(command.get_subcommands().cloned());
    let script = put(
        &generated(Shell::Fish, &plain)?,
        "argparse -s ",
        "argparse -s --ignore-unknown ",
    )?;
    let script = put(&script, FISH_VALUE[0], FISH_VALUE[1])?;
    let script = put(
        &script,
        "    if set -q argv[1]\n",
        &format!("    {FISH}\n    if set -q argv[1]\n"),
    )?;
    let mut script = put(
        &script,
        "-l net -d",
        "-l net -a '(__fish_print_interfaces)' -d",
    )?;
    for arg in command.get_arguments().filter(|arg| is_device(arg)) {
        let (name, help) = (
            arg.get_long().unwrap_or_default(),
            arg.get_help().map(ToString::to_string),
        );
        let help = help.unwrap_or_default().replace('\'', r"\'");
        script += &format!(
            "complete -c tender -n __fish_tender_needs_command -a '--{name}' -d '{help}'\n"
        );
    }
    let plain = command
        .get_arguments()
        .filter(|arg| is_device(arg) && arg.get_value_hint() != ValueHint::FilePath);
    let plain: Vec<&str> = plain.filter_map(|arg| arg.get_long()).collect();
    script += &FISH_DEVICES.replace("@PLAIN@", &plain.join("|"));
    Ok(script)
}

/// Whether this is the prefix of a device option.
fn is_device(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|name| name.ends_with(':'))
}

/// Replaces generated text; fails if another version of clap_complete generates different text.
fn put(text: &str, old: &str, new: &str) -> Result<String> {
    if text.contains(old) {
        Ok(text.replace(old, new))
    } else {
        Err(Error::other(format!("no '{old}' to replace")))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command as Program;

    use super::*;

    /// Returns bash's completions at the end of `line`, by the function for its first argument.
    fn offered(line: &str) -> Vec<String> {
        let name = line.split(' ').next().unwrap();
        let call = format!(
            "[[ $(complete -p {name}) == *' -F _tender_arguments '* ]] && _tender_arguments {name}"
        );
        let script = format!(
            "{}\nCOMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}\n\
             compopt() {{ :; }}\nCOMP_WORDS=({line}) COMP_CWORD=2\n{call}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash(&command()).unwrap()
        );
        let done = Program::new("bash")
            .args(["--norc", "-c", &script])
            .output()
            .unwrap();
        assert!(
            done.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout)
            .unwrap()
            .split_whitespace()
            .map(String::from)
            .collect()
    }

    #[test]
    fn options_are_offered_with_and_without_a_device() {
        assert_eq!(offered("tender --no-n"), ["--no-net-ring"]);
        assert_eq!(offered("tender --dis"), ["--disk"]);
        assert_eq!(
            offered("tender --net"),
            ["--net", "--net:", "--net-mac", "--net-mac:", "--net-ring"]
        );
        assert_eq!(
            offered("tender --mem 64 --mem=64 --blo")[..2],
            ["--block", "--block:"]
        );
        assert_eq!(offered("tender --net:a=tap0 --sand"), ["--sandbox"]);
        assert_eq!(offered("tender inspect --j"), ["--json"]);
        assert_eq!(
            offered("solo5-hvt --mem 64 --blo")[..2],
            ["--block", "--block:"]
        );
    }

    #[test]
    fn values_are_offered_where_they_are_known() {
        assert_eq!(offered("tender --net-ring "), ["auto", "on", "off"]);
        assert_eq!(offered("tender --net-ring=o"), ["on", "off"]);
        assert_eq!(offered("tender --huge-pages=o"), ["on", "off"]);
        assert_eq!(offered("tender --sandbox=s"), ["strict"]);
        assert_eq!(offered("tender --engine "), ["kvm", "process", "auto"]);
        for line in [
            "tender --net l",
            "tender --net=l",
            "tender --net:service=l",
            "tender --net:service l",
        ] {
            assert_eq!(offered(line), ["lo"], "{line}");
        }
        assert_eq!(
            offered("tender --block:data=/etc/passw"),
            offered("tender --block /etc/passw")
        );
        assert!(offered("tender --block:data=/etc/passw").contains(&"/etc/passwd".to_owned()));
    }

    /// zsh completes at a terminal only, so this checks lines of the script that are easy to miss.
    #[test]
    fn zsh_knows_other_spellings_and_interfaces() {
        let script = zsh(&command()).unwrap();
        for (option, end) in [
            ("--disk=", ":_files' \\"),
            ("--no-net-ring", "' \\"),
            (r"--net\:-", r#":{compset -P "*=" && _net_interfaces}' \"#),
        ] {
            let is_there = |line: &str| {
                line.trim_start_matches(['\'', '*']).starts_with(option) && line.ends_with(end)
            };
            assert!(script.lines().any(is_there), "{option}: {script}");
        }
    }

    #[test]
    fn nothing_is_offered_for_device_names_and_guest_arguments() {
        for line in [
            "tender --net:",
            "tender --net:serv",
            "tender app.hvt --net",
            "tender -- --net",
            "tender inspect a",
        ] {
            assert_eq!(offered(line), [""; 0], "{line}");
        }
    }
}
