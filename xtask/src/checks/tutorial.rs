//! `cargo xtask tutorial`: builds the unikernels of `examples/`, and follows
//! docs/first-unikernel.md as printed, in an empty directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::arch::Arch;
use crate::build::toolchain::GuestToolchain;
use crate::build::{cargo, packages};
use crate::machines::host;

const PAGE: &str = "docs/first-unikernel.md";

/// Begins the output of each block.
const MARK: &str = "-- block";

pub fn run(options: &mut Options) -> Result<()> {
    let if_available = options.flag("--if-available");
    options.finish()?;
    let toolchain = match GuestToolchain::choose() {
        Err(reason) if if_available => {
            println!("tutorial: not followed, because {reason}");
            return Ok(());
        }
        found => found?,
    };
    build_examples(&toolchain)?;
    let page = fs::read_to_string(cargo::root().join(PAGE)).context(PAGE)?;
    if !page.contains(&example("hello")?) {
        return fail(format!(
            "{PAGE} does not show the program of examples/hello"
        ));
    }
    let steps = steps(&page, GuestToolchain::builds_core()?)?;
    match host::kvm() {
        Err(reason) if if_available => {
            println!(
                "tutorial: examples are built, but the page is not followed, because {reason}"
            );
        }
        Err(error) => return Err(error),
        Ok(()) => {
            follow(&toolchain, &steps)?;
            println!("tutorial: {} blocks of {PAGE} work as printed", steps.len());
        }
    }
    Ok(())
}

/// Builds the examples for both architectures, which also downloads the crates that the page needs.
fn build_examples(toolchain: &GuestToolchain) -> Result<()> {
    progress::note("building examples/");
    let mut build = cargo::cargo("build");
    let examples = cargo::root().join("examples");
    build.args(["--release", "--locked"]);
    build.env("CARGO_TARGET_DIR", examples.join("target"));
    build.current_dir(examples);
    toolchain.apply(&mut build);
    build.env("CARGO_UNSTABLE_BUILD_STD", "core,alloc");
    build.env("CARGO_UNSTABLE_BUILD_STD_FEATURES", "compiler-builtins-mem");
    for arch in Arch::ALL {
        let target = GuestToolchain::triple(arch)
            .to_uppercase()
            .replace('-', "_");
        let linker = GuestToolchain::linker(arch);
        build.env(format!("CARGO_TARGET_{target}_LINKER"), linker);
    }
    process::run(&mut build).context("examples/ cannot be built")
}

/// A block of commands, and the output that the page shows for it.
#[derive(Debug, Default, PartialEq)]
struct Step {
    commands: String,
    output: String,
}

/// Returns the blocks in order: of the two ways to get a compiler, the one that applies here.
fn steps(page: &str, builds_core: bool) -> Result<Vec<Step>> {
    let other = if builds_core {
        "*With rustup:*"
    } else {
        "*On Debian 12:*"
    };
    let (mut steps, mut before) = (Vec::<Step>::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let text = text.join("\n") + "\n";
            match (language, steps.last_mut()) {
                ("sh", _) if before == other => {}
                ("sh", _) => steps.push(Step {
                    commands: text,
                    output: String::new(),
                }),
                ("text", Some(step)) => step.output = text,
                ("rust", _) => compare(&text)?,
                _ => {
                    return fail(format!(
                        "{PAGE}: a block of '{language}' has no meaning here"
                    ));
                }
            }
        }
        before = line;
    }
    Ok(steps)
}

/// Compares a part of a program that the page explains with the program.
fn compare(part: &str) -> Result<()> {
    if example("web")?.contains(part) {
        Ok(())
    } else {
        fail(format!(
            "{PAGE} shows code that is not in examples/web:\n{part}"
        ))
    }
}

fn example(name: &str) -> Result<String> {
    let place = format!("examples/{name}/src/main.rs");
    fs::read_to_string(cargo::root().join(&place)).context(place)
}

/// Runs the blocks in one shell, in a new directory and network namespace.
fn follow(toolchain: &GuestToolchain, steps: &[Step]) -> Result<()> {
    let tender = crate::dist::binary(Arch::host()?)?;
    let directory = std::env::temp_dir().join(format!("tutorial-{}", std::process::id()));
    fs::create_dir(&directory).context(directory.display())?;
    let done = prepare(&directory, &tender).and_then(|()| {
        let mut shell = shell(toolchain, &directory, steps);
        shell.output().context("cannot start unshare")
    });
    let _ = fs::remove_dir_all(&directory);
    let done = done?;
    let printed = String::from_utf8_lossy(&done.stdout);
    if done.status.success() {
        check(steps, &printed)
    } else {
        fail(format!(
            "{PAGE}: {}, after this output:\n{printed}",
            done.status
        ))
    }
}

/// Installs `tender` in a directory for the path, outside the one for the tutorial.
fn prepare(directory: &Path, tender: &Path) -> Result<()> {
    fs::create_dir(directory.join("bin")).context("cannot make a directory")?;
    fs::create_dir(directory.join("empty")).context("cannot make a directory")?;
    symlink(tender, directory.join("bin/tender")).context("cannot link tender")
}

fn shell(toolchain: &GuestToolchain, directory: &Path, steps: &[Step]) -> Command {
    let blocks = steps
        .iter()
        .map(|step| format!("echo '{MARK}'\n{}", step.commands));
    let mut shell = Command::new("unshare");
    shell
        .arg("--net")
        .args((!packages::is_root()).then_some("--map-root-user"));
    // It is root already.
    let sudo = String::from("sudo() { \"$@\"; }\n");
    let blocks: String = [sudo].into_iter().chain(blocks).collect();
    shell.args(["sh", "-euc", &blocks]);
    // What is set for this program is not for the reader's cargo.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO") && name_text != "CARGO_HOME" {
            shell.env_remove(&name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = [directory.join("bin")];
    let last = [PathBuf::from("/usr/sbin")];
    let all = first
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(last);
    shell.env("PATH", std::env::join_paths(all).unwrap_or(path));
    shell.env("SOURCES", cargo::root());
    // The namespace has no way out; the crates are there from building the examples.
    shell.env("CARGO_NET_OFFLINE", "true");
    toolchain.set_compiler(&mut shell);
    shell
        .current_dir(directory.join("empty"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    shell
}

fn check(steps: &[Step], printed: &str) -> Result<()> {
    let printed: Vec<&str> = printed.split(&format!("{MARK}\n")).skip(1).collect();
    if printed.len() != steps.len() {
        return fail(format!("{} of {} blocks ran", printed.len(), steps.len()));
    }
    for (step, printed) in steps.iter().zip(printed) {
        if !printed.contains(&step.output) {
            return fail(format!(
                "{PAGE}: the commands\n{}print\n{printed}instead of\n{}",
                step.commands, step.output
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "*With rustup:*\n```sh\na\n```\n*On Debian 12:*\n```sh\nb\n```\n```sh\nc\n```\nPrints:\n```text\nd\n```\n";

    fn step(commands: &str, output: &str) -> Step {
        Step {
            commands: commands.into(),
            output: output.into(),
        }
    }

    #[test]
    fn one_way_to_get_a_compiler_is_followed() {
        assert_eq!(
            steps(TEXT, false).unwrap(),
            [step("a\n", ""), step("c\n", "d\n")]
        );
        assert_eq!(
            steps(TEXT, true).unwrap(),
            [step("b\n", ""), step("c\n", "d\n")]
        );
    }

    #[test]
    fn output_that_differs_is_an_error() {
        let printed = format!("{MARK}\nd\n");
        assert!(check(&[step("c\n", "d\n")], &printed).is_ok());
        assert!(check(&[step("c\n", "e\n")], &printed).is_err());
        assert!(check(&[step("c\n", ""), step("c\n", "")], &printed).is_err());
    }
}
