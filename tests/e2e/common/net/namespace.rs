//! Network namespaces, and the rights to make them.

use std::sync::{OnceLock, mpsc};
use std::thread::JoinHandle;

use crate::common::net::{TAP, attach};
use crate::common::{host_error, mounts};

/// The real user ID of the test run, even inside a user namespace.
static USER: OnceLock<u32> = OnceLock::new();

/// Whether a user other than root could become root in a namespace.
static ROOT: OnceLock<Result<(), String>> = OnceLock::new();

/// Becomes root in a user namespace, if the user is not root already: there taps and namespaces may
/// be made. Works only while there is one thread. Its error is the reason with which tests are
/// ignored later.
pub fn become_root() {
    // SAFETY: these return numbers and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    USER.get_or_init(|| user);
    ROOT.get_or_init(|| {
        if user == 0 {
            return Ok(());
        }
        // SAFETY: unshare takes flags only; this is the only thread.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
            return Err(host_error("neither the superuser nor a user namespace"));
        }
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text)
                .map_err(|error| format!("cannot set {file}: {error}"))
        };
        write("uid_map", format!("0 {user} 1"))?;
        write("setgroups", "deny".into())?;
        write("gid_map", format!("0 {group} 1"))
    });
}

/// Whether the tests were started by the superuser.
pub fn is_superuser() -> bool {
    USER.get() == Some(&0)
}

/// Whether namespaces and taps are available.
pub fn available() -> &'static Result<(), String> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        ROOT.get()
            .cloned()
            .unwrap_or_else(|| Err("not prepared".into()))?;
        // In a separate thread: a namespace is entered permanently.
        std::thread::spawn(|| {
            enter_namespace()?;
            attach("probe", TAP).map(drop)
        })
        .join()
        .unwrap_or_else(|_| Err("no network namespace".into()))
    })
}

/// Runs `body` in a new network namespace, which has only a loopback interface.
pub fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        enter_namespace().unwrap();
        body()
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A value made in another network namespace, which ends on drop.
pub struct OtherNamespace<T> {
    /// The value.
    pub made: Option<T>,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> OtherNamespace<T> {
    /// Runs `make` in a new network namespace, which has only a loopback interface.
    pub fn new(make: impl FnOnce() -> T + Send + 'static) -> OtherNamespace<T> {
        let ((made, receive), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let body = move || {
            made.send(make()).unwrap();
            let _ = ended.recv();
        };
        let thread = std::thread::spawn(move || in_namespace(body));
        OtherNamespace {
            made: receive.recv().ok(),
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl<T> Drop for OtherNamespace<T> {
    fn drop(&mut self) {
        self.end.take();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
            && !std::thread::panicking()
        {
            panic!("the thread of another network namespace has failed");
        }
    }
}

/// Moves this thread, and the children it starts later, into a new network namespace. /sys shows
/// the network namespace of its mount, so it is mounted again, as `ip netns exec` does, in a new
/// mount namespace.
fn enter_namespace() -> Result<(), String> {
    let (none, nothing) = (c"none".as_ptr(), std::ptr::null());
    // SAFETY: unshare takes flags.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(host_error("no network namespace"));
    }
    mounts::be_private().map_err(|_| host_error("no private mount namespace"))?;
    // SAFETY: mount takes strings that end with a NUL.
    if unsafe { libc::mount(none, c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, nothing) } != 0 {
        return Err(host_error("no /sys for a network namespace"));
    }
    // Keeps the host's own announcements away from the guest. Failure is fine: the kernel may lack
    // IPv6.
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    Ok(())
}
