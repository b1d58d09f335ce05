use std::io::Write;
use std::thread;

use super::*;

const PID: u32 = 42;

/// A service manager, and a notifier that was given these variables in addition to its socket.
fn managed(variables: &[(&'static str, &str)]) -> (UnixDatagram, tempfile::TempDir, Notifier) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let notifier = with(&[&[("NOTIFY_SOCKET", path.to_str().unwrap())], variables].concat());
    (manager, directory, notifier)
}

fn with(variables: &[(&str, &str)]) -> Notifier {
    let variable = |name: &str| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into())
    };
    Notifier::new(variable, PID, || "tea\nfor two".into())
}

fn heard(manager: &UnixDatagram) -> Option<String> {
    let mut datagram = [0; 8192];
    let length = manager.recv(&mut datagram).ok()?;
    Some(String::from_utf8(datagram[..length].to_vec()).unwrap())
}

#[test]
fn without_a_watchdog_nothing_can_be_sent_once_the_guest_runs() {
    let (manager, _directory, mut notifier) = managed(&[]);
    notifier.ready();
    assert_eq!(
        heard(&manager).as_deref(),
        Some("READY=1\nSTATUS=tea\\nfor two")
    );
    notifier.guest_is_alive();
    notifier.stopping(&"over");
    let socket = notifier.socket.as_mut().unwrap();
    assert_eq!(
        socket.write(b"MAINPID=1").unwrap_err().raw_os_error(),
        Some(libc::EPIPE)
    );
    assert_eq!(heard(&manager), None);
}

#[test]
fn a_watched_run_is_reported_in_order() {
    let (manager, _directory, mut notifier) = managed(&[("WATCHDOG_USEC", "3600000000")]);
    notifier.ready();
    notifier.guest_is_alive();
    notifier.stopping(&"over\tnow");
    assert_eq!(
        heard(&manager).as_deref(),
        Some("READY=1\nSTATUS=tea\\nfor two")
    );
    assert_eq!(
        heard(&manager).as_deref(),
        Some("STOPPING=1\nSTATUS=over\\tnow")
    );
    assert_eq!(heard(&manager), None);
}

#[test]
fn a_watchdog_is_notified_once_in_half_its_interval() {
    let (manager, _directory, mut notifier) =
        managed(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "42")]);
    assert_eq!(notifier.poll_limit(), 50_000_000);
    notifier.ready();
    assert!(heard(&manager).unwrap().starts_with("READY=1"));
    notifier.guest_is_alive();
    assert_eq!(heard(&manager), None);
    thread::sleep(Duration::from_millis(100));
    let before = Instant::now();
    notifier.guest_is_alive();
    assert_eq!(heard(&manager).as_deref(), Some("WATCHDOG=1"));
    notifier.guest_is_alive();
    // On a machine that stalls here, the next notification is already due.
    assert!(heard(&manager).is_none() || before.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_watchdog_must_be_ours_and_have_a_socket() {
    let asked = |variables: &[_]| {
        managed(variables)
            .2
            .watchdog
            .map(|watchdog| watchdog.interval.as_micros())
    };
    assert_eq!(asked(&[("WATCHDOG_USEC", "30000000")]), Some(30_000_000));
    assert_eq!(
        asked(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "41")]),
        None
    );
    assert_eq!(
        asked(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "x")]),
        None
    );
    for nonsense in ["", "0", "-1", "soon", "99999999999999999999"] {
        assert_eq!(asked(&[("WATCHDOG_USEC", nonsense)]), None, "{nonsense}");
    }
    assert!(with(&[("WATCHDOG_USEC", "1000")]).watchdog.is_none());
    assert_eq!(with(&[]).poll_limit(), u64::MAX);
}

#[test]
fn abstract_names_are_addresses_too() {
    let name = format!("tender-notify-test-{}", process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut notifier = with(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    notifier.ready();
    assert!(heard(&manager).unwrap().starts_with("READY=1\n"));
}

#[test]
fn a_missing_or_stale_socket_is_ignored() {
    let long = format!("/{}", "x".repeat(200));
    for address in [
        "",
        "relative",
        "/nowhere/notify",
        "/dev/null",
        &long,
        "@no-listener-here",
        "vsock:2:1234",
    ] {
        let mut notifier = with(&[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "1")]);
        assert_eq!(notifier.descriptor(), None, "{address}");
        notifier.ready();
        notifier.guest_is_alive();
        notifier.stopping(&"over");
    }
    let (manager, _directory, mut notifier) = managed(&[("WATCHDOG_USEC", "1")]);
    drop(manager);
    notifier.ready();
    notifier.guest_is_alive();
    notifier.stopping(&"over");
    assert!(notifier.is_logged);
}

#[test]
fn a_full_queue_blocks_only_briefly() {
    let (manager, _directory, mut notifier) = managed(&[("WATCHDOG_USEC", "1000")]);
    while notifier.send("x", Duration::ZERO) {}
    let due = notifier.watchdog.as_ref().unwrap().due;
    notifier.send_watchdog(due);
    assert_eq!(
        notifier.watchdog.as_ref().unwrap().due,
        due + Duration::from_micros(1000) / 16
    );
    // There is room before the time limit.
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        std::iter::from_fn(|| heard(&manager)).count();
        manager
    });
    notifier.ready();
    let manager = reader.join().unwrap();
    assert!(
        std::iter::from_fn(|| heard(&manager)).any(|args| args.starts_with("READY=1"))
            || notifier.send("x", LONGEST_WAIT)
    );
}

#[test]
fn a_status_is_one_line_of_bounded_length() {
    let long = "ü".repeat(10_000);
    assert!(status(&long).len() <= STATUS_MAX + '…'.len_utf8() && status(&long).ends_with("ü…"));
    assert_eq!(status("a\r\nREADY=0"), "a\\r\\nREADY=0");
}
