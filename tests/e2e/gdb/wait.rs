//! Sockets for a debugger, and which client becomes the debugger.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::common::Need::{Kvm, Programs, Repository};
use crate::common::rsp::{Debugger, start};
use crate::common::{self, Guest, LIMIT, fixture, run, text, trial, unikernel};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("wait::a_probe_does_not_take_gdbs_place")
            .needs(&[Kvm])
            .run(a_probe_does_not_take_gdbs_place),
        trial("wait::silent_clients_do_not_keep_gdb_out")
            .needs(&[Kvm])
            .run(silent_clients_do_not_keep_gdb_out),
        trial("wait::a_silent_client_is_dropped")
            .needs(&[Kvm])
            .run(a_silent_client_is_dropped),
        trial("wait::a_first_packet_may_come_in_pieces")
            .needs(&[Kvm])
            .run(a_first_packet_may_come_in_pieces),
        trial("wait::ends_with_the_time_limit")
            .needs(&[Kvm])
            .run(ends_with_the_time_limit),
        trial("socket::is_its_users_and_for_one")
            .needs(&[Kvm])
            .run(a_socket_is_its_users_and_for_one),
        trial("socket::a_dead_one_is_replaced_and_nothing_else")
            .needs(&[Kvm])
            .run(a_dead_socket_is_replaced_and_nothing_else),
        trial("socket::without_a_file")
            .needs(&[Kvm])
            .run(a_socket_without_a_file),
        trial("socket::gdb_itself")
            .needs(&[Repository, Kvm, Programs(&["gdb"])])
            .run(gdb_itself),
    ]
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the tender listens");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Whether `tender` has disconnected, in any way.
fn has_hung_up(stream: &mut (impl Read + ?Sized)) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Ends a connection by RST.
fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the kernel reads the structure, whose length is correct.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(set, 0);
}

fn a_probe_does_not_take_gdbs_place() {
    let (guest, port) = start("hello", &[], &[]);
    for _ in 0..3 {
        drop(connect(port));
        reset(connect(port));
        for half in ["+", "$qSupported:x", "$?#3"] {
            connect(port).write_all(half.as_bytes()).unwrap();
        }
        let long = format!("${}", "A".repeat(100_000));
        for foreign in [
            "GET / HTTP/1.0\r\n\r\n",
            "\x16\x03\x01",
            "?",
            "$?#40",
            "$?#zz",
            &long,
        ] {
            let mut stream = connect(port);
            // `tender` may disconnect before it has read all of a long one.
            let _ = stream.write_all(foreign.as_bytes());
            assert!(has_hung_up(&mut stream), "{foreign:?}");
        }
    }
    let mut debugger = Debugger::connect(port);
    assert_eq!(debugger.program_counter(), common::rsp::entry("hello"));
    debugger.ends(0);
    guest.end().exits(0);
}

/// For any number of silent clients, while they stay connected.
fn silent_clients_do_not_keep_gdb_out() {
    let (guest, port) = start("hello", &[], &[]);
    let mut silent: Vec<_> = (0..40).map(|_| connect(port)).collect();
    let mut debugger = Debugger::connect(port);
    debugger.program_counter();
    for stream in &mut silent {
        assert!(has_hung_up(stream), "there is one debugger");
    }
    debugger.ends(0);
    guest.end().exits(0);
}

fn a_silent_client_is_dropped() {
    let (mut guest, port) = start("hello", &[], &[]);
    let mut half = connect(port);
    half.write_all(b"+$?#").unwrap();
    assert!(has_hung_up(&mut half) && guest.is_running());
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
}

fn a_first_packet_may_come_in_pieces() {
    let (guest, port) = start("hello", &[], &[]);
    let mut stream = connect(port);
    for piece in ["+", "$", "?", "#3"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut debugger = Debugger::over(stream);
    debugger.send_raw(b"f");
    debugger.stops(libc::SIGTRAP);
    debugger.ends(0);
    guest.end().exits(0);
}

/// A silent client does not lengthen the wait.
fn ends_with_the_time_limit() {
    let (guest, port) = start("hello", &["--timeout=2"], &[]);
    let _silent = connect(port);
    guest
        .end()
        .exits(1)
        .complains("no debugger connected within 2 s (--timeout)");
}

/// Starts a guest that waits for a debugger at this socket.
fn waiting(socket: &Path) -> Guest {
    let option = format!("--gdb-port=unix:{}", text(socket));
    let guest = Guest::start(&mut unikernel("debug", &["--mem=4", "--gdb", &option], &[]));
    guest.wait_for_complaint(&format!(
        "connect with: gdb -ex 'target remote {}' ",
        text(socket)
    ));
    guest
}

fn a_socket_is_its_users_and_for_one() {
    let directory = common::directory();
    let socket = directory.path().join("gdb");
    let guest = waiting(&socket);
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut probe = UnixStream::connect(&socket).unwrap();
    probe.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(has_hung_up(&mut probe));
    let mut debugger = Debugger::over(UnixStream::connect(&socket).unwrap());
    debugger.program_counter();
    assert!(!socket.exists(), "one is enough");
    debugger.ends(0);
    guest.end().exits(0).prints("debug: 7\n");
}

fn a_dead_socket_is_replaced_and_nothing_else() {
    let directory = common::directory();
    let path = |name: &str| directory.path().join(name);
    let mut guest = waiting(&path("dead"));
    let option = format!("--gdb-port=unix:{}", text(&path("dead")));
    let arguments = [&*option, "another process listens there"];
    run(&mut unikernel("debug", &["--gdb", &option], &[])).is_refused(&arguments);
    guest.signal(libc::SIGTERM);
    guest.end().dies_by(libc::SIGTERM);
    assert!(path("dead").exists());
    let guest = waiting(&path("dead"));
    Debugger::over(UnixStream::connect(path("dead")).unwrap()).expect_ok("D");
    guest.end().exits(0);
    fs::write(path("file"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let _theirs = UnixListener::bind(path("theirs")).unwrap();
    for (name, why) in [
        ("file", "this is a file"),
        ("link", "symbolic link"),
        ("theirs", "another process listens"),
    ] {
        let option = format!("--gdb-port=unix:{}", text(&path(name)));
        run(&mut unikernel("debug", &["--gdb", &option], &[])).is_refused(&[&option, why]);
        assert!(fs::symlink_metadata(path(name)).is_ok());
    }
    assert_eq!(fs::read(path("file")).unwrap(), b"mine");
    // A start that fails later leaves no socket.
    let option = format!("--gdb-port=unix:{}", text(&path("new")));
    run(&mut unikernel(
        "debug",
        &["--gdb", &option, "--dumpcore=/nowhere/at/all"],
        &[],
    ))
    .exits(1);
    assert!(!path("new").exists());
}

/// Any user in this network namespace can connect, and a warning reports that.
fn a_socket_without_a_file() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("tender-gdb-{}", std::process::id());
    let option = format!("--gdb-port=unix:@{name}");
    let guest = Guest::start(&mut unikernel("debug", &["--mem=4", "--gdb", &option], &[]));
    guest.wait_for_complaint(&format!(
        "'target remote | socat - ABSTRACT-CONNECT:{name}' "
    ));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let mut debugger = Debugger::over(UnixStream::connect_addr(&address).unwrap());
    debugger.ends(0);
    guest
        .end()
        .exits(0)
        .complains("any user in this network namespace can connect");
}

fn gdb_itself() {
    let directory = common::directory();
    let socket = directory.path().join("gdb");
    let guest = waiting(&socket);
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        &format!("target remote {}", text(&socket)),
    ]);
    for command in ["break debug_add", "continue", "continue"] {
        gdb.args(["-ex", command]);
    }
    let output = gdb
        .arg(text(&fixture("debug")))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.contains("Breakpoint 1, ") && printed.contains("exited normally"),
        "{output:?}"
    );
    guest.end().exits(0).prints("debug: 7\n");
}
