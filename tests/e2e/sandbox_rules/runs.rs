//! The runs that are traced: together they need every rule.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::common::net::{Tap, bring_up_loopback};
use crate::common::rsp::Debugger;
use crate::common::wire::Wire;
use crate::common::{self, FD, LIMIT, pass_fd, text, unikernel};
use crate::sandbox_rules::{Calls, calls, end_when};
use crate::shared_pages::App;

/// The wait status of a process that exits with `status`.
pub fn exits(status: i32) -> libc::c_int {
    status << 8
}

/// One interface and one disk, both by hypercalls.
pub fn disk_and_frames() -> Calls {
    let directory = common::directory();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let options = [
        "--mem=4",
        "--net-ring=off",
        &format!("--net=@{FD}"),
        &format!("--disk={}", text(&path)),
    ];
    calls(
        &mut pass_fd(unikernel("bench-io", &options, &["n=20"]), theirs),
        &[exits(0)],
        |_, _, _| {},
    )
}

/// A guest that is a process, until SIGTERM stops it.
pub fn by_process() -> Calls {
    let options = ["--engine=process", "--mem=4"];
    let mut resumed = 0;
    calls(
        &mut unikernel("hypercalls", &options, &["ok-storm", "1000000000"]),
        &[libc::SIGTERM],
        end_when(|_, call| {
            resumed += usize::from(call.is_run());
            resumed > 20
        }),
    )
}

/// A guest whose file changes while it runs.
pub fn file_change() -> Calls {
    let app = App::new(100);
    let (path, running) = (app.path(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let deadline = Instant::now() + LIMIT;
            while !running.load(Ordering::SeqCst) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::fs::write(&path, "another unikernel").unwrap();
        });
        let command = &mut app.command(&[], 3_000_000);
        let calls = calls(command, &[exits(0)], |_, _, call| {
            running.fetch_or(call.is_poll(), Ordering::SeqCst);
        });
        running.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        calls
    })
}

/// A run with a debugger that reads its state.
pub fn debugged() -> Calls {
    // In a network namespace of this test alone.
    const PORT: u16 = 1234;
    bring_up_loopback();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let options = ["--mem=4", "--gdb", &format!("--gdb-port={PORT}")];
            calls(
                &mut unikernel("hello", &options, &[]),
                &[exits(0)],
                |_, _, _| {},
            )
        });
        let deadline = Instant::now() + LIMIT;
        let mut debugger = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)) {
                Ok(stream) => break Debugger::over(stream),
                Err(error) => assert!(Instant::now() < deadline && !run.is_finished(), "{error}"),
            }
        };
        let registers = debugger.registers();
        debugger.set_registers(&registers);
        debugger.ends(0);
        run.join().unwrap()
    })
}

/// A guest whose statistics and metrics are read, while it runs and afterwards.
pub fn observed() -> Calls {
    let directory = common::directory();
    let (socket, stats) = (
        directory.path().join("socket"),
        directory.path().join("stats.json"),
    );
    let options = [
        "--mem=4",
        &format!("--metrics=unix:{}", text(&socket)),
        &format!("--stats={}", text(&stats)),
    ];
    let answered = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let observed = scope.spawn(|| {
            let command = &mut unikernel("hypercalls", &options, &["ok-storm", "1000000000"]);
            calls(
                command,
                &[libc::SIGTERM],
                end_when(|_, _| answered.load(Ordering::SeqCst)),
            )
        });
        let deadline = Instant::now() + LIMIT;
        while !scrape(&socket).is_ok_and(|text| text.contains("tender_info")) {
            assert!(
                Instant::now() < deadline && !observed.is_finished(),
                "no metrics"
            );
        }
        answered.store(true, Ordering::SeqCst);
        observed.join().unwrap()
    });
    assert!(
        std::fs::metadata(&stats).unwrap().len() > 0,
        "no statistics"
    );
    calls
}

fn scrape(socket: &std::path::Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn tap() -> Tap {
    Tap::up("tap0", Ipv4Addr::new(10, 0, 0, 1))
}

/// The web server, which serves its page until SIGTERM.
pub fn web() -> Calls {
    let _tap = tap();
    let served = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let command =
                &mut unikernel("web", &["--net=tap0", "--mem=64"], &["--ipv4=10.0.0.2/24"]);
            calls(
                command,
                &[libc::SIGTERM],
                end_when(|_, _| served.load(Ordering::SeqCst)),
            )
        });
        let deadline = Instant::now() + LIMIT;
        while !fetch().is_ok_and(|page| page.contains("200 OK")) {
            assert!(
                Instant::now() < deadline && !server.is_finished(),
                "no page"
            );
        }
        served.store(true, Ordering::SeqCst);
        // One more request, so that there is one more call.
        let _ = fetch();
        server.join().unwrap()
    })
}

fn fetch() -> io::Result<String> {
    let address = SocketAddr::from(([10, 0, 0, 2], 8080));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 10.0.0.2\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// A ring that its guest breaks.
pub fn broken_ring() -> Calls {
    let _tap = tap();
    let command = &mut unikernel("ring-hostile", &["--net=tap0", "--mem=4"], &["changing"]);
    calls(command, &[exits(1), exits(3)], |_, _, _| {})
}

/// Numbered frames through the ring, in one of the unikernel's modes.
pub fn ring(mode: &str) -> Calls {
    let tap = tap();
    let (kind, count) = mode.split_once('=').unwrap();
    let count = count.parse().unwrap();
    let mut wire = Wire::new(&tap);
    let (receives, ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let traced = scope.spawn(move || {
            let command = &mut unikernel("ring", &["--net=tap0", "--mem=16"], &[mode, "wait=20"]);
            calls(command, &[exits(0)], |_, _, call| {
                if call.number == libc::SYS_read {
                    let _ = receives.send(());
                }
            })
        });
        match kind {
            "mix" => {
                ready.recv_timeout(LIMIT).expect("the guest wants frames");
                wire.exchange(count, count);
            }
            "writes" => wire.receive(count),
            // Frames that are sent faster than they are taken may be lost; that does not matter.
            "burst" => {}
            other => panic!("nothing is known of '{other}'"),
        }
        traced.join().unwrap()
    })
}
