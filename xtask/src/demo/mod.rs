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
use crate::build::arch::Arch;
use crate::build::cargo;
use crate::build::toolchain::StaticToolchain;
use crate::checks::test;
use crate::dist;
use crate::machines::initramfs::{self};
use crate::machines::machine::{Emulated, Event, Machine};
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
    let machine = options
        .value("--machine")?
        .map(|name| Machine::parse(&name))
        .transpose()?;
    options.finish()?;
    match machine.map_or_else(choose_machine, Ok)? {
        Machine::Host => on_host(once),
        Machine::Emulated(machine) => emulated(machine, once),
    }
}

fn choose_machine() -> Result<Machine> {
    match host::kvm() {
        Ok(()) => Ok(Machine::Host),
        Err(reason) => {
            progress::note(format_args!(
                "no unikernel can run on this machine itself ({reason})"
            ));
            progress::note("so the demo runs inside the emulated Raspberry Pi 3B");
            Ok(Machine::Emulated(Emulated::Pi3))
        }
    }
}

fn on_host(once: bool) -> Result<()> {
    host::kvm()?;
    let arch = Arch::host()?;
    let tender = dist::binary(arch)?;
    let myself = std::env::current_exe().context("cannot find this program's own file")?;
    let mut inside = Command::new(myself);
    inside
        .arg(INSIDE)
        .arg("--tender")
        .arg(tender)
        .arg("--fixtures")
        .arg(host::fixtures(arch));
    if once {
        inside.arg("--once");
    } else {
        // Ctrl-C reaches all processes; the inner ones must end first.
        on_interrupt_wait();
        inside.arg("--relay");
    }
    let status = end_with_us(&mut inside)
        .status()
        .context("cannot start the demo")?;
    // The inner process has already reported the error.
    if status.success() {
        Ok(())
    } else {
        std::process::exit(1)
    }
}

fn emulated(machine: Emulated, once: bool) -> Result<()> {
    let assets = machine.prepare()?;
    let tender = dist::binary(machine.arch())?;
    let myself = own_binary(machine.arch())?;
    let job = format!(
        "xtask {INSIDE} --tender /bin/tender --fixtures /fixtures {}\n",
        if once { "--once" } else { "" }
    );
    let mut archive = initramfs::base(machine, &assets, &job)?;
    archive.copy("bin/tender", &tender)?;
    archive.copy("bin/xtask", &myself)?;
    host::pack_fixtures(&mut archive, machine.arch())?;
    let mut console = machine.boot(&assets, archive)?;
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
    let deadline = Instant::now()
        + if once {
            PAGE_LIMIT + Duration::from_secs(60)
        } else {
            a_year
        };
    let mut last = None;
    loop {
        match console.next(deadline)? {
            // The verdict is held back, so that it is the last line here too.
            Event::Line(line) if line.starts_with("demo: ") => last = Some(line),
            Event::Line(line) => println!("{line}"),
            Event::Mark(mark) if mark == "done 0" => break,
            Event::Mark(mark) => {
                return fail(format!(
                    "the demo failed inside {} ({mark})",
                    machine.title()
                ));
            }
        }
    }
    println!("{}", last.unwrap_or_default());
    Ok(())
}

/// Builds this program for use inside an emulated machine.
pub fn own_binary(arch: Arch) -> Result<PathBuf> {
    let mut build = cargo::cargo("build");
    build.args(["--package", "xtask"]);
    test::small_profile(&mut build);
    StaticToolchain::choose(arch)?.apply(&mut build);
    match cargo::build(&mut build)?
        .into_iter()
        .find(|b| b.name == "xtask")
    {
        Some(built) => Ok(built.path),
        None => fail("cargo named no binary 'xtask' among what it built"),
    }
}

/// The demo: namespace, tap, tender, page.
pub fn inside(options: &mut Options) -> Result<()> {
    let once = options.flag("--once");
    let relayed = options.flag("--relay");
    let tender = options
        .value("--tender")?
        .map_or_else(|| fail("--tender is needed"), Ok)?;
    let fixtures = options
        .value("--fixtures")?
        .map_or_else(|| fail("--fixtures is needed"), Ok)?;
    options.finish()?;
    let listener = if relayed {
        Some(relay::listen(PORT).context("cannot listen on the loopback address")?)
    } else {
        None
    };
    net::enter_namespace()?;
    net::make_tap("tap100", OUR_ADDRESS)?;
    on_interrupt_wait();
    let mut child = start(Path::new(&tender), Path::new(&fixtures))?;
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
        // SAFETY: kill touches no memory; the process is our child and was not waited for, so its
        // ID is not reused.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        process::wait(&mut child, Duration::from_secs(10))?;
    }
    println!("demo: {}", shown?);
    Ok(())
}

fn start(tender: &Path, fixtures: &Path) -> Result<Child> {
    if !fixtures.join(UNIKERNEL).exists() {
        return fail(format!(
            "{} is not there; build it with: cargo xtask fixtures",
            fixtures.join(UNIKERNEL).display()
        ));
    }
    println!("$ tender {}", ARGUMENTS.join(" "));
    let mut command = Command::new(tender);
    command.arg0("tender").args(ARGUMENTS).current_dir(fixtures);
    end_with_us(&mut command)
        .spawn()
        .context(format_args!("cannot start {}", tender.display()))
}

/// Makes the kernel kill the child when this process dies, so that nothing is left running.
pub fn end_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    }
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

fn get(address: Ipv4Addr) -> std::io::Result<String> {
    let socket_address = SocketAddr::from((address, PORT));
    let mut server = TcpStream::connect_timeout(&socket_address, Duration::from_secs(5))?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        server,
        "GET / HTTP/1.1\r\nHost: {address}:{PORT}\r\nConnection: close\r\n\r\n"
    )?;
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
        println!(
            "look at it: http://{here}/ in a browser on this machine, or, from inside its network:"
        );
        println!(
            "    nsenter -t {} {user}-n curl -i http://{ITS_ADDRESS}:{PORT}/",
            child.id()
        );
    }
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
