//! A `tender` process with its guest: a child that never outlives its test.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::children;

/// Longest wait for anything. Generous, for machines that emulate every guest instruction.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Exit status and output of one run.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns the exit status; death by a signal fails the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("tender died by a signal: {self:#?}"))
    }

    /// Checks the exit status.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Output {
        assert!(
            self.code() == code,
            "the exit status should be {code}: {self:#?}"
        );
        self
    }

    /// Checks that the signal `number` ended it.
    #[track_caller]
    pub fn dies_by(&self, number: i32) -> &Output {
        assert!(
            self.status.signal() == Some(number),
            "signal {number} should have ended it: {self:#?}"
        );
        self
    }

    /// Checks that the guest printed `text`.
    #[track_caller]
    pub fn prints(&self, text: &str) -> &Output {
        assert!(
            self.stdout.contains(text),
            "the guest should print {text:?}: {self:#?}"
        );
        self
    }

    /// Checks that `tender` logged `text`.
    #[track_caller]
    pub fn complains(&self, text: &str) -> &Output {
        assert!(
            self.stderr.contains(text),
            "tender should log {text:?}: {self:#?}"
        );
        self
    }

    /// Checks that `tender` logged nothing.
    #[track_caller]
    pub fn is_quiet(&self) -> &Output {
        assert!(
            self.stderr.is_empty(),
            "tender should log nothing: {self:#?}"
        );
        self
    }

    /// Checks that the guest aborted, and that `tender` logged nothing else.
    #[track_caller]
    pub fn aborts(&self) -> &Output {
        let warning = "tender: warn: the guest aborted (status 255)\n";
        assert_eq!(self.exits(255).stderr, warning, "{self:#?}");
        self
    }

    /// Checks for an error of `tender`: exit status 1 and one line that contains all of `parts`.
    #[track_caller]
    pub fn fails(&self, parts: &[&str]) -> &Output {
        self.exits(1);
        let one_line = self.stderr.ends_with('\n') && self.stderr.lines().count() == 1;
        assert!(
            one_line && self.stderr.starts_with("tender: "),
            "not exactly one line of tender: {self:#?}"
        );
        for part in parts {
            self.complains(part);
        }
        self
    }

    /// As [`Output::fails`], and the guest printed nothing.
    #[track_caller]
    pub fn is_refused(&self, parts: &[&str]) {
        self.fails(parts);
        assert!(
            self.stdout.is_empty(),
            "the guest should not have run: {self:#?}"
        );
    }
}

/// Bytes read from a pipe so far.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

/// Reads a pipe to its end, in a thread.
struct PipeReader {
    received: Arc<(Mutex<Received>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl PipeReader {
    fn new(pipe: Option<impl Read + Send + 'static>) -> PipeReader {
        let received = Arc::<(Mutex<Received>, Condvar)>::default();
        let thread = pipe.map(|mut pipe| {
            let received = received.clone();
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut piece) {
                    received
                        .0
                        .lock()
                        .unwrap()
                        .bytes
                        .extend_from_slice(&piece[..count]);
                    received.1.notify_all();
                }
                received.0.lock().unwrap().ended = true;
                received.1.notify_all();
            })
        });
        PipeReader { received, thread }
    }

    /// Waits until `text` arrives; returns false if it does not.
    fn wait_for(&self, text: &str, limit: Duration) -> bool {
        let missing = |received: &mut Received| {
            !received.ended && !String::from_utf8_lossy(&received.bytes).contains(text)
        };
        let (lock, changed) = &*self.received;
        let received = changed
            .wait_timeout_while(lock.lock().unwrap(), limit, missing)
            .unwrap()
            .0;
        String::from_utf8_lossy(&received.bytes).contains(text)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.0.lock().unwrap().bytes).into_owned()
    }

    fn finish(mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.text()
    }
}

/// Starts a child that is killed when the thread that started it ends.
fn launch(command: &mut Command) -> Child {
    // SAFETY: prctl is safe between fork and exec, and this one takes plain numbers.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        );
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        match children::spawn(command) {
            Ok(child) => return child,
            // Another test's child, between fork and exec, still has this copy of `tender` open for
            // writing.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{command:?} cannot be started: {error}"),
        }
    }
}

/// Returns the end of `text`, short enough for a failure message.
fn last(text: &str) -> &str {
    let start =
        (text.len().saturating_sub(2000)..text.len()).find(|start| text.is_char_boundary(*start));
    &text[start.unwrap_or(0)..]
}

/// A running `tender`. Drop kills it.
pub struct Guest {
    child: Child,
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Guest {
    /// Starts it with both outputs on pipes.
    pub fn start(command: &mut Command) -> Guest {
        Guest::spawn(command.stdout(Stdio::piped()))
    }

    /// Starts it with standard output as `command` sets it.
    pub fn spawn(command: &mut Command) -> Guest {
        let mut child = launch(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let (stdout, stderr) = (
            PipeReader::new(child.stdout.take()),
            PipeReader::new(child.stderr.take()),
        );
        Guest {
            child,
            stdout,
            stderr,
        }
    }

    /// Starts it with one file for all three standard streams, read from `reader`. All output
    /// counts as the guest's.
    pub fn on_one_file(command: &mut Command, reader: File, file: &File) -> Guest {
        let stream = || Stdio::from(file.try_clone().expect("a descriptor can be duplicated"));
        let child = launch(command.stdin(stream()).stdout(stream()).stderr(stream()));
        // Otherwise `command` would keep its copies open, and reading would never end.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Guest {
            child,
            stdout: PipeReader::new(Some(reader)),
            stderr: PipeReader::new(None::<std::io::Empty>),
        }
    }

    /// Returns its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the guest prints `text` or ends; returns whether it printed it.
    pub fn prints(&self, text: &str) -> bool {
        self.stdout.wait_for(text, LIMIT)
    }

    /// Waits until the guest has printed `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        assert!(
            self.prints(text),
            "the guest did not print {text:?} but {:?}, and tender logged {:?}",
            self.stdout.text(),
            self.messages()
        );
    }

    /// Waits until `tender` has logged `text`.
    #[track_caller]
    pub fn wait_for_complaint(&self, text: &str) {
        let logged = self.stderr.wait_for(text, LIMIT);
        assert!(
            logged,
            "tender did not log {text:?} but {:?}",
            self.messages()
        );
    }

    /// Returns what `tender` has logged so far.
    pub fn messages(&self) -> String {
        self.stderr.text()
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be asked")
            .is_none()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&mut self, number: i32) {
        assert!(self.is_running(), "tender has ended: {:?}", self.messages());
        // SAFETY: kill takes numbers; the child was not waited for, so the process id is its own.
        let result = unsafe { libc::kill(self.child.id() as i32, number) };
        assert!(result == 0, "{}", super::host_error("kill"));
    }

    /// Waits for its end, [`LIMIT`] at most.
    #[track_caller]
    pub fn end(mut self) -> Output {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let (guest, tender) = (self.stdout.text(), self.messages());
                panic!(
                    "tender does not end; the guest printed {:?}, tender logged {:?}",
                    last(&guest),
                    last(&tender)
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let take = |reader: &mut PipeReader| {
            std::mem::replace(reader, PipeReader::new(None::<std::io::Empty>)).finish()
        };
        Output {
            status,
            stdout: take(&mut self.stdout),
            stderr: take(&mut self.stderr),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only for a child that was already waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    Guest::start(command).end()
}
