//! The functions that a process executes: each is overwritten with illegal instructions until the
//! process gets there.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::trace;
use crate::base::error::{Context, Result, fail};
use crate::build::elf;

/// A byte that, repeated, is an illegal instruction of both processors.
const ILLEGAL: u8 = 6;

/// Runs `program` to its end; returns those of the functions, with addresses as linked, that it
/// executed.
pub fn executed(
    program: &Path,
    command: &mut Command,
    functions: &[Range<u64>],
) -> Result<Vec<Range<u64>>> {
    let pid = trace::spawn(command)?;
    // It stops at its exec.
    trace::wait(pid)?;
    let image = Image::of(program, pid)?;
    let mut original = Vec::new();
    for function in functions {
        original.push(image.replace(function, None)?);
    }
    let mut executed = Vec::new();
    resume(pid, 0);
    while let Some(signal) = trace::wait(pid)? {
        let address = address(pid)?.wrapping_sub(image.offset);
        let found = functions
            .iter()
            .position(|function| function.contains(&address));
        match found {
            Some(index) if signal == libc::SIGILL => {
                image.replace(&functions[index], Some(&original[index]))?;
                executed.push(functions[index].clone());
                resume(pid, 0);
            }
            _ => resume(pid, signal),
        }
    }
    Ok(executed)
}

/// The memory of a process, and where its program is in it.
struct Image {
    memory: File,
    /// Difference to the addresses as linked.
    offset: u64,
}

impl Image {
    fn of(program: &Path, pid: libc::pid_t) -> Result<Image> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
            .context("cannot read the mappings of the traced tender")?;
        let path = fs::canonicalize(program).context(program.display())?;
        let is_ours = |line: &&str| line.split_whitespace().last() == path.to_str();
        let first = maps
            .lines()
            .find(is_ours)
            .and_then(|line| line.split('-').next());
        let Some(Ok(start)) = first.map(|start| u64::from_str_radix(start, 16)) else {
            return fail("the traced tender does not map its program");
        };
        const ET_EXEC: u64 = 2;
        let bytes = fs::read(program).context(program.display())?;
        let is_fixed = elf::number(&bytes, 16, 2)? == ET_EXEC;
        let memory = format!("/proc/{pid}/mem");
        let memory = File::options().read(true).write(true).open(memory);
        Ok(Image {
            memory: memory.context("cannot open the memory of the traced tender")?,
            offset: if is_fixed { 0 } else { start },
        })
    }

    /// Replaces a function, by illegal instructions if there is no `code`; returns the old bytes.
    fn replace(&self, function: &Range<u64>, code: Option<&[u8]>) -> Result<Vec<u8>> {
        let start = function.start + self.offset;
        let mut old = vec![0; (function.end - function.start) as usize];
        self.memory
            .read_exact_at(&mut old, start)
            .context("cannot read code")?;
        let illegal = vec![ILLEGAL; old.len()];
        let new = code.unwrap_or(&illegal);
        self.memory
            .write_all_at(new, start)
            .context("cannot replace code")?;
        Ok(old)
    }
}

/// Returns the address that belongs to the signal of the stopped child.
fn address(pid: libc::pid_t) -> Result<u64> {
    // SAFETY: the structure is plain numbers, and the kernel writes all of it.
    let (result, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (
            libc::ptrace(libc::PTRACE_GETSIGINFO, pid, 0, &raw mut info),
            info,
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot look at a traced signal");
    }
    // SAFETY: for other signals than faults, it is a number without a meaning.
    Ok(unsafe { info.si_addr() } as u64)
}

/// Lets the stopped child go on, with a signal unless it is 0.
fn resume(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: the request takes only numbers; the child is stopped, and ours.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) };
}
