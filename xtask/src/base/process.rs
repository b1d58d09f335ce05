//! Programs started by xtask: run to the end, or followed line by line within a time limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};

/// The program's name, for messages.
fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Runs to the end on our terminal; a failure is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .context(format_args!("cannot start {}", name(command)))?;
    if status.success() {
        Ok(())
    } else {
        fail(format!("{} ended with {status}", name(command)))
    }
}

/// Runs to the end and returns its standard output; on failure the error has the last line of its
/// stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .context(format_args!("cannot start {}", name(command)))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&done.stderr);
    let last = errors
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message");
    fail(format!(
        "{} ended with {}: {last}",
        name(command),
        done.status
    ))
}

/// Runs to the end with `input` as its standard input, and returns its standard output as bytes.
pub fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = name(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .context(format_args!("cannot start {name}"))?;
    let stdin = child.stdin.take();
    // Fed from a separate thread, as it may write before it has read everything.
    let done = std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    });
    let done = done.context(format_args!("cannot read from {name}"))?;
    if done.status.success() {
        Ok(done.stdout)
    } else {
        fail(format!("{name} ended with {}", done.status))
    }
}

/// Returns the path of a program, as a shell would find it.
pub fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Emulators and ip(8) are in sbin, which an ordinary user's PATH may lack.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A running program whose standard output is read line by line. Drop ends the program.
pub struct Followed {
    child: Child,
    lines: Receiver<String>,
}

/// The next event of a followed program.
pub enum Next {
    Line(String),
    /// It closed its output: it has ended, or is about to.
    End,
    TimedOut,
}

impl Followed {
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context(format_args!("cannot start {}", name(command)))?;
        // Requested above, so it is there.
        let output = child
            .stdout
            .take()
            .context_none("its output is not a pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            while let Some(line) = read_line(&mut reader) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Followed { child, lines })
    }

    pub fn next(&self, deadline: Instant) -> Next {
        match self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(line) => Next::Line(line),
            Err(RecvTimeoutError::Timeout) => Next::TimedOut,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// Waits for the end, at most this long; kills it after that.
    pub fn finish(mut self, patience: Duration) -> Result<ExitStatus> {
        wait(&mut self.child, patience)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the kernel kill the child when this process dies, so that nothing is left running.
pub fn end_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates
    // nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    }
}

/// Sends SIGTERM to a child that was not waited for.
pub fn terminate(child: &Child) {
    // SAFETY: kill touches no memory; the process is our child and was not waited for, so its
    // ID is not reused.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
}

/// Waits for a child, at most this long; kills it after that, which is an error.
pub fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return fail(format!(
                "process {} did not end within {} s and was killed",
                child.id(),
                patience.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads one line of any bytes, without its end; serial consoles end lines with CR LF.
fn read_line(reader: &mut BufReader<impl Read>) -> Option<String> {
    let mut bytes = Vec::new();
    match reader.read_until(b'\n', &mut bytes) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(
            String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\n', '\r'])
                .to_string(),
        ),
    }
}

/// Turns a missing value into an error.
trait ContextNone<T> {
    fn context_none(self, message: &str) -> Result<T>;
}

impl<T> ContextNone<T> for Option<T> {
    fn context_none(self, message: &str) -> Result<T> {
        self.map_or_else(|| fail(message), Ok)
    }
}
