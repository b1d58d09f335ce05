//! A tender with its guest, as a child that never outlives its test.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::children;

/// How long anything may take: generous, for machines that emulate every instruction of their guests.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How a tender ended and what it said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The exit status; a signal is a failure of the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("the tender died by a signal: {self:#?}"))
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

    /// Checks that the guest said `text`.
    #[track_caller]
    pub fn prints(&self, text: &str) -> &Output {
        assert!(
            self.stdout.contains(text),
            "the guest should say {text:?}: {self:#?}"
        );
        self
    }

    /// Checks that the tender said `text`.
    #[track_caller]
    pub fn complains(&self, text: &str) -> &Output {
        assert!(
            self.stderr.contains(text),
            "the tender should say {text:?}: {self:#?}"
        );
        self
    }

    /// Checks that the tender had nothing to say.
    #[track_caller]
    pub fn is_quiet(&self) -> &Output {
        assert!(
            self.stderr.is_empty(),
            "the tender should say nothing: {self:#?}"
        );
        self
    }

    /// Checks that it is an error of the tender, as all of them look: status 1 and one line that has every one of
    /// `words` in it.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> &Output {
        self.exits(1);
        let one_line = self.stderr.ends_with('\n') && self.stderr.lines().count() == 1;
        assert!(
            one_line && self.stderr.starts_with("tender: "),
            "not one line of the tender's: {self:#?}"
        );
        for word in args {
            self.complains(word);
        }
        self
    }

    /// As [`Output::fails`], before the guest said anything.
    #[track_caller]
    pub fn is_refused(&self, args: &[&str]) {
        self.fails(args);
        assert!(
            self.stdout.is_empty(),
            "the guest should not have run: {self:#?}"
        );
    }
}

/// What came through a pipe so far.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

/// Reads a pipe to its end, in a thread.
struct Listener {
    heard: Arc<(Mutex<Heard>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Listener {
        let heard = Arc::<(Mutex<Heard>, Condvar)>::default();
        let thread = pipe.map(|mut pipe| {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut piece) {
                    heard
                        .0
                        .lock()
                        .unwrap()
                        .bytes
                        .extend_from_slice(&piece[..count]);
                    heard.1.notify_all();
                }
                heard.0.lock().unwrap().ended = true;
                heard.1.notify_all();
            })
        });
        Listener { heard, thread }
    }

    /// Waits until `text` has come; false if it did not.
    fn wait_for(&self, text: &str, limit: Duration) -> bool {
        let missing = |heard: &mut Heard| {
            !heard.ended && !String::from_utf8_lossy(&heard.bytes).contains(text)
        };
        let (lock, changed) = &*self.heard;
        let heard = changed
            .wait_timeout_while(lock.lock().unwrap(), limit, missing)
            .unwrap()
            .0;
        String::from_utf8_lossy(&heard.bytes).contains(text)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.0.lock().unwrap().bytes).into_owned()
    }

    fn finish(mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.text()
    }
}

/// Starts a child that goes with the thread that started it, whatever becomes of us.
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
            // A copy of the tender that another test's child, just forked, still has open for writing.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{command:?} cannot be started: {error}"),
        }
    }
}

/// What there is room for in a report.
fn last(text: &str) -> &str {
    let start =
        (text.len().saturating_sub(2000)..text.len()).find(|start| text.is_char_boundary(*start));
    &text[start.unwrap_or(0)..]
}

/// A running tender. Dropped, it is killed.
pub struct Guest {
    child: Child,
    stdout: Listener,
    stderr: Listener,
}

impl Guest {
    /// Starts it, with both outputs on pipes that are read.
    pub fn start(command: &mut Command) -> Guest {
        Guest::spawn(command.stdout(Stdio::piped()))
    }

    /// Starts it with standard output as `command` has it.
    pub fn spawn(command: &mut Command) -> Guest {
        let mut child = launch(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let (stdout, stderr) = (
            Listener::new(child.stdout.take()),
            Listener::new(child.stderr.take()),
        );
        Guest {
            child,
            stdout,
            stderr,
        }
    }

    /// Starts it with one file for all three standard streams, which is read from `reader`: all that is said counts as
    /// the guest's.
    pub fn on_one_file(command: &mut Command, reader: File, file: &File) -> Guest {
        let stream = || Stdio::from(file.try_clone().expect("a descriptor can be had twice"));
        let child = launch(command.stdin(stream()).stdout(stream()).stderr(stream()));
        // Else it would hold its copies, and reading never end.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Guest {
            child,
            stdout: Listener::new(Some(reader)),
            stderr: Listener::new(None::<std::io::Empty>),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the guest says `text`, or ends; returns whether it says it.
    pub fn prints(&self, text: &str) -> bool {
        self.stdout.wait_for(text, LIMIT)
    }

    /// Waits until the guest has said `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        assert!(
            self.prints(text),
            "the guest did not say {text:?} but {:?}, and the tender {:?}",
            self.stdout.text(),
            self.messages()
        );
    }

    /// Waits until the tender has said `text`.
    #[track_caller]
    pub fn wait_for_complaint(&self, text: &str) {
        let said = self.stderr.wait_for(text, LIMIT);
        assert!(
            said,
            "the tender did not say {text:?} but {:?}",
            self.messages()
        );
    }

    /// What the tender has said so far.
    pub fn messages(&self) -> String {
        self.stderr.text()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be asked")
            .is_none()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&mut self, number: i32) {
        assert!(
            self.is_running(),
            "the tender has ended: {:?}",
            self.messages()
        );
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
                    "the tender does not end; the guest said {:?}, the tender {:?}",
                    last(&guest),
                    last(&tender)
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let take = |listener: &mut Listener| {
            std::mem::replace(listener, Listener::new(None::<std::io::Empty>)).finish()
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
        // Both fail only for a child that has been waited for, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    Guest::start(command).end()
}
