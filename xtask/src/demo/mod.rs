//! `cargo xtask demo`: runs the web unikernel on a tap in a network namespace, and fetches its
//! page.

mod relay;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::{process, progress};
use crate::build::cargo;
use crate::machines::engine::Engine;
use crate::machines::initramfs;
use crate::machines::machine::{Emulated, Machine};
use crate::machines::{host, net};

/// The hidden command that does the work, in a separate process.
pub const INSIDE: &str = "demo-inside";

const UNIKERNEL: &str = "web.hvt";
/// Addresses as in the 2019 talk that shows this unikernel on a Raspberry Pi.
const ARGUMENTS: [&str; 5] = [
    "--net=tap100",
    "--mem=64M",
    "--",
    UNIKERNEL,
    "--ipv4=10.0.0.2/24",
];
const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ITS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 8080;

/// Time limit for the page: machines that emulate their guests' instructions are slow.
const PAGE_LIMIT: Duration = Duration::from_secs(120);

pub fn run(options: &mut Options) -> Result<()> {
    let once = options.flag("--once");
    let machine = Machine::option(options)?;
    let engine = Engine::option(options)?;
    options.finish()?;
    match machine.unwrap_or(Machine::Host) {
        Machine::Host => on_host(engine.unwrap_or_else(Engine::of_this_host), once),
        Machine::Emulated(machine) => emulated(machine, engine.unwrap_or(Engine::Kvm), once),
    }
}

fn on_host(engine: Engine, once: bool) -> Result<()> {
    if engine == Engine::Kvm {
        host::kvm()?;
    }
    let mut inside = host::inside(INSIDE, &built()?)?;
    inside.arg(engine.as_option());
    if once {
        inside.arg("--once");
    } else {
        // Ctrl-C reaches all processes; the inner ones must end first.
        on_interrupt_wait();
        inside.arg("--relay");
    }
    let status = process::end_with_us(&mut inside)
        .status()
        .context("cannot start the demo")?;
    // The inner process has already reported the error.
    if status.success() {
        Ok(())
    } else {
        std::process::exit(1)
    }
}

/// Returns a tender built for development: in half the time of a release.
fn built() -> Result<PathBuf> {
    progress::note("building tender");
    let mut build = cargo::cargo("build");
    build.args(["--package", "tender-vmm", "--bin", "tender"]);
    cargo::program(&mut build, "tender")
}

fn emulated(machine: Emulated, engine: Engine, once: bool) -> Result<()> {
    let assets = machine.prepare()?;
    let once_flag = if once { " --once" } else { "" };
    let job = format!(
        "{} {}{once_flag}",
        initramfs::inside(INSIDE),
        engine.as_option()
    );
    let archive = initramfs::with_tender(machine, &assets, &job)?;
    let console = machine.boot(&assets, archive)?;
    if !once {
        progress::note(
            "the machine has no network to the outside: the page is shown here; Ctrl-C switches it off",
        );
        progress::note(format_args!(
            "for a shell in it: cargo xtask lab --machine {}",
            machine.name()
        ));
    }
    let a_year = Duration::from_secs(365 * 24 * 3600);
    let silence = if once { PAGE_LIMIT } else { a_year };
    let mut last = String::new();
    console.follow("the demo", silence, |line| {
        // The verdict is held back, so that it is the last line here too.
        if line.starts_with("demo: ") {
            last = line;
        } else {
            println!("{line}");
        }
    })?;
    println!("{last}");
    Ok(())
}

/// The demo: namespace, tap, tender, page.
pub fn inside(options: &mut Options) -> Result<()> {
    let once = options.flag("--once");
    let relayed = options.flag("--relay");
    let engine = Engine::option(options)?;
    let tender = options.required(host::TENDER)?;
    let fixtures = options.required(host::FIXTURES)?;
    options.finish()?;
    // A network namespace whose loopback interface is down has no such address.
    let listen = || {
        let listener = relay::listen(PORT);
        let listener = listener.inspect_err(|error| {
            progress::note(format_args!("no address for a browser here: {error}"));
        });
        listener.ok()
    };
    let listener = relayed.then(listen).flatten();
    net::enter_namespace()?;
    net::make_tap("tap100", OUR_ADDRESS)?;
    on_interrupt_wait();
    let mut child = start(&tender, engine, &fixtures)?;
    let page = fetch(&mut child, ITS_ADDRESS, PAGE_LIMIT);
    let shown = page.and_then(|page| show(&page));
    if shown.is_ok() && !once {
        stay(&mut child, listener)?;
    }
    if child
        .try_wait()
        .context("cannot look after tender")?
        .is_none()
    {
        process::terminate(&child);
        process::wait(&mut child, Duration::from_secs(10))?;
    }
    println!("demo: {}", shown?);
    Ok(())
}

fn start(tender: &Path, engine: Option<Engine>, fixtures: &Path) -> Result<Child> {
    if !fixtures.join(UNIKERNEL).exists() {
        return fail(format!(
            "{} is not there; build it with: cargo xtask fixtures",
            fixtures.join(UNIKERNEL).display()
        ));
    }
    // The default of tender needs no option.
    let engine = engine.filter(|engine| *engine != Engine::Kvm);
    let arguments = engine.map(Engine::as_option).into_iter();
    let arguments: Vec<String> = arguments.chain(ARGUMENTS.map(String::from)).collect();
    println!("$ tender {}", arguments.join(" "));
    let mut command = Command::new(tender);
    command.arg0("tender").args(arguments).current_dir(fixtures);
    process::end_with_us(&mut command)
        .spawn()
        .context(format_args!("cannot start {}", tender.display()))
}

/// Requests the page of the unikernel at `address` until there is a response: booting takes a
/// while.
pub fn fetch(child: &mut Child, address: Ipv4Addr, limit: Duration) -> Result<String> {
    let start = Instant::now();
    let mut next_note = Duration::from_secs(2);
    loop {
        let error = match get(address) {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        if let Some(status) = child.try_wait().context("cannot look after tender")? {
            return fail(format!(
                "tender ended with {status} before its page could be fetched"
            ));
        }
        if start.elapsed() > limit {
            return fail(format!(
                "no page from http://{address}:{PORT}/ within {} s: {error}",
                limit.as_secs()
            ));
        }
        if start.elapsed() > next_note {
            progress::note(format_args!(
                "waiting for http://{address}:{PORT}/ ({} s)",
                next_note.as_secs()
            ));
            next_note += Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Fetches the page of the unikernel at `address` once.
pub fn get(address: Ipv4Addr) -> std::io::Result<String> {
    let socket_address = SocketAddr::from((address, PORT));
    let mut server = TcpStream::connect_timeout(&socket_address, Duration::from_secs(5))?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    // In one segment: the rest would wait until the first is acknowledged, which takes 10 ms.
    let request = format!("GET / HTTP/1.1\r\nHost: {address}:{PORT}\r\nConnection: close\r\n\r\n");
    server.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Prints the beginning of the page and returns the status, which must be 200.
fn show(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status_line = head.lines().next().unwrap_or_default();
    println!(
        "$ GET http://{ITS_ADDRESS}:{PORT}/\n{status_line} ({} bytes of page)",
        body.len()
    );
    for line in body.lines().filter(|line| !line.trim().is_empty()).take(6) {
        println!("    {line}");
    }
    let status = status_line.split_once(' ').map_or("", |(_, status)| status);
    if status.starts_with("200") {
        Ok(status.to_string())
    } else {
        fail(format!("the page's status is '{status_line}'"))
    }
}

/// Waits until Ctrl-C or until the unikernel ends.
fn stay(child: &mut Child, listener: Option<TcpListener>) -> Result<()> {
    let user = if crate::build::packages::is_root() {
        ""
    } else {
        "-U --preserve-credentials "
    };
    if let Some(listener) = listener {
        let here = listener
            .local_addr()
            .context("cannot read our own address")?;
        relay::serve(listener, SocketAddr::from((ITS_ADDRESS, PORT)));
        println!("look at it: http://{here}/ in a browser on this machine");
    }
    println!(
        "from inside its network: nsenter -t {} {user}-n curl -i http://{ITS_ADDRESS}:{PORT}/",
        child.id()
    );
    println!("Ctrl-C ends the demo");
    while !INTERRUPTED.load(Ordering::Relaxed)
        && child
            .try_wait()
            .context("cannot look after tender")?
            .is_none()
    {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupted(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Records Ctrl-C instead of dying by it; children get the default action back at exec.
fn on_interrupt_wait() {
    let handler = interrupted as extern "C" fn(libc::c_int);
    // SAFETY: the handler only stores to an atomic, which a signal may do at any time.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}
