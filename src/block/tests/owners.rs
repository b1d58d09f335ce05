//! Owners and locks of images.

use super::*;

/// A process that locks `file` as soon as it can, and ends on drop.
struct Locker(libc::pid_t);

impl Locker {
    fn of(file: &File) -> Locker {
        // A child with copies of the descriptors would also hold the locks of all other tests; this
        // one shares them.
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: it is a fork without copied descriptors, and the child makes only system calls.
        let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } as libc::pid_t;
        if child == 0 {
            // SAFETY: these take numbers; the child ends with its parent's thread at the latest.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::flock(file.as_raw_fd(), libc::LOCK_EX);
                loop {
                    libc::pause();
                }
            }
        }
        assert_ne!(child, -1);
        Locker(child)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // SAFETY: the child belongs to this value, and no other code waits for it.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

#[test]
fn an_image_of_another_user_is_named_with_its_owner() {
    let user = user();
    if user == 0 {
        return check_denied_as_nobody();
    }
    let (_directory, path) = image(512);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let message = refused(&path, None);
    assert!(
        message.contains(&format!("user {} may not read and write", user_name(user))),
        "{message}"
    );
    assert!(message.contains("mode 0444"), "{message}");
}

/// For root, who may do anything: checks as another user, in a separate thread, whose user ID is
/// separate too.
fn check_denied_as_nobody() {
    let (directory, path) = image(512);
    let hidden = directory.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::thread::spawn(move || {
        assert_eq!(
            // SAFETY: the raw system call changes only this thread's user; the thread ends with
            // this test.
            unsafe { libc::syscall(libc::SYS_setresuid, -1, 65534, -1) },
            0
        );
        let message = refused(&path, None);
        assert!(
            message.contains(&format!(
                "user {} may not read and write '",
                user_name(65534)
            )),
            "{message}"
        );
        assert!(
            message.contains(&format!(
                "belongs to user {} and group {}, mode 0640; change",
                user_name(0),
                group_name(0)
            )),
            "{message}"
        );
        let message = refused(&hidden.join("x"), None);
        assert!(
            message.contains("may not enter a directory on the way"),
            "{message}"
        );
    })
    .join()
    .unwrap();
}

#[test]
fn an_image_serves_one_device() {
    let (directory, path) = image(512);
    let disk = open(&path, None, DiskTail::Refused).unwrap();
    let link = directory.path().join("link");
    fs::hard_link(&path, &link).unwrap();
    let error = refused(&link, None);
    assert!(error.contains("is given to two block devices"), "{error}");
    drop(disk);
    open(&link, None, DiskTail::Refused).unwrap();
}

#[test]
fn the_process_that_holds_an_image_is_named() {
    let (_directory, path) = image(512);
    let file = File::open(&path).unwrap();
    let locker = Locker::of(&file);
    let expected = [
        format!("is in use by process {} (", locker.0),
        "); end that process, or give each unikernel its own image".into(),
    ];
    // Until the other process holds the lock.
    let refusal = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        open(&path, None, DiskTail::Refused).err()
    });
    let message = Message::from(refusal.unwrap()).to_string();
    assert!(
        expected.iter().all(|part| message.contains(part)),
        "{message}"
    );
    drop(file);
    drop(locker);
    open(&path, None, DiskTail::Refused).unwrap();
}

#[test]
fn owners_are_read_from_the_hosts_list() {
    let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:7 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 0 fd:01:7 0 EOF\n\
                 2: -> FLOCK  ADVISORY  WRITE 12 fd:01:7 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 13 fd:01:77 0 EOF\n\
                 4: FLOCK  ADVISORY  WRITE 14 fd:01:7 0 EOF\n\
                 nonsense\n\n";
    assert_eq!(owner_in(locks, "fd:01:7"), Some(14));
    assert_eq!(owner_in(locks, "fd:01:77"), Some(13));
    assert_eq!(owner_in(locks, "fd:01:8"), None);
    assert_eq!(owner_in("", "fd:01:8"), None);
}
