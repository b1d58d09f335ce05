//! Request and answer over a tap: the round trip of a UDP echo, with and without the shared ring,
//! and web pages.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::inside::{self, Bench, TAP};
use super::proc;
use super::sample::{Samples, Subject};
use crate::base::error::{Context, Result, fail};
use crate::base::process;
use crate::demo;
use crate::machines::net;

/// Turns of the tenders, and requests in one turn.
const ROUNDS: usize = 5;
const PINGS: u32 = 500;
const PAGES: u32 = 100;

/// Memory of the guest, in MiB.
const MEMORY: u32 = 32;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ECHO_PORT: u16 = 7;

/// Content of a ping that ends the guest.
const QUIT: &[u8] = b"quit";

/// Time limit of an answer, and of a guest's start.
const ANSWER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// Guests, and the options that only tender has.
struct Server {
    name: &'static str,
    unikernel: &'static str,
    argument: Option<&'static str>,
    ours: &'static [&'static str],
}

const ECHOES: [Server; 3] = [
    Server {
        name: "ping, guest with ring",
        unikernel: "ring.hvt",
        argument: Some("poll-echo"),
        ours: &[],
    },
    Server {
        name: "ping, the same, --net-ring=off",
        unikernel: "ring.hvt",
        argument: Some("poll-echo"),
        ours: WITHOUT_RING,
    },
    Server {
        name: "ping, guest without ring",
        unikernel: "net.hvt",
        argument: None,
        ours: &[],
    },
];

const WEB: [Server; 2] = [
    Server {
        name: "web pages a second",
        unikernel: "web.hvt",
        argument: None,
        ours: &[],
    },
    Server {
        name: "web pages a second, --net-ring=off",
        unikernel: "web.hvt",
        argument: None,
        ours: WITHOUT_RING,
    },
];

const WITHOUT_RING: &[&str] = &["--net-ring=off"];

pub fn measure(bench: &Bench) -> Result<()> {
    bench.take_turns("pings", ROUNDS, |samples, subject, tender| {
        known(&ECHOES, subject).try_for_each(|server| server.ping(bench, samples, subject, tender))
    })?;
    bench.take_turns("web pages", ROUNDS, |samples, subject, tender| {
        known(&WEB, subject).try_for_each(|server| server.fetch(bench, samples, subject, tender))
    })
}

fn known(servers: &[Server], subject: Subject) -> impl Iterator<Item = &Server> {
    let ours = subject == Subject::Ours;
    servers
        .iter()
        .filter(move |server| ours || server.ours.is_empty())
}

impl Server {
    fn start(&self, bench: &Bench, subject: Subject, tender: &Path) -> Result<Child> {
        let tap = format!("--net:service={TAP}");
        let options = [self.ours, &[tap.as_str()]].concat();
        let mut command = inside::command(
            subject,
            tender,
            MEMORY,
            &options,
            &bench.fixture(self.unikernel),
        );
        command
            .args(self.argument)
            .arg(format!("--ipv4={GUEST}/24"))
            .stdout(Stdio::piped());
        process::end_with_us(&mut command)
            .spawn()
            .context("cannot start the tender")
    }

    /// Measures time and processor time of one round trip.
    fn ping(
        &self,
        bench: &Bench,
        samples: &mut Samples,
        subject: Subject,
        tender: &Path,
    ) -> Result<()> {
        let mut child = self.start(bench, subject, tender)?;
        let measured = echo(&mut child);
        if measured.is_err() {
            let _ = child.kill();
        }
        let status = process::wait(&mut child, PATIENCE)?;
        let (time, cpu) = measured?;
        if !status.success() {
            return fail(format!("{} ended with {status}", self.unikernel));
        }
        samples.add(&format!("{}: time", self.name), subject, time);
        samples.add(&format!("{}: CPU", self.name), subject, cpu);
        Ok(())
    }

    /// Measures how many pages a second it serves on one connection after the other.
    fn fetch(
        &self,
        bench: &Bench,
        samples: &mut Samples,
        subject: Subject,
        tender: &Path,
    ) -> Result<()> {
        let mut child = self.start(bench, subject, tender)?;
        // What it logs must not wait for a reader.
        let log = child.stdout.take();
        let drain = std::thread::spawn(|| log.map(|mut log| io::copy(&mut log, &mut io::sink())));
        let measured = demo::fetch(&mut child, GUEST, PATIENCE).and_then(|_| {
            let start = Instant::now();
            for _ in 0..PAGES {
                demo::get(GUEST).context("cannot fetch the page")?;
            }
            Ok(start.elapsed())
        });
        let _ = child.kill();
        process::wait(&mut child, PATIENCE)?;
        let _ = drain.join();
        let rate = f64::from(PAGES) / measured?.as_secs_f64();
        samples.add(self.name, subject, rate as u64);
        Ok(())
    }
}

/// Returns the time and the tender's processor time of one round trip, in nanoseconds, and ends the
/// guest.
fn echo(child: &mut Child) -> Result<(u64, u64)> {
    let Some(output) = child.stdout.take() else {
        return fail("its output is no pipe");
    };
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while !line.ends_with("net: ready\n") {
        let read = output.read_line(&mut line);
        if read.context("cannot read the unikernel's output")? == 0 {
            return fail("the unikernel ended before it was ready");
        }
    }
    net::wait_until_running(TAP)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((GUEST, ECHO_PORT))?;
            socket.set_read_timeout(Some(ANSWER))?;
            Ok(socket)
        })
        .context("cannot open a UDP socket")?;
    // The first finds its hardware address.
    ping(&socket, b"first")?;
    let (cpu, start) = (proc::processor_time(child.id())?, Instant::now());
    for number in 0..PINGS {
        ping(&socket, &number.to_be_bytes())?;
    }
    let time = start.elapsed().as_nanos() as u64;
    let cpu = proc::processor_time(child.id())? - cpu;
    ping(&socket, QUIT)?;
    // The guest's last output must not wait for a reader.
    io::copy(&mut output, &mut io::sink()).context("cannot read the unikernel's output")?;
    Ok((time / u64::from(PINGS), cpu / u64::from(PINGS)))
}

fn ping(socket: &UdpSocket, content: &[u8]) -> Result<()> {
    socket.send(content).context("cannot send a ping")?;
    let mut buffer = [0; 64];
    match socket.recv(&mut buffer) {
        Ok(size) if buffer[..size] == *content => Ok(()),
        Ok(_) => fail("the answer to a ping has other bytes"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => fail("a ping has no answer"),
        Err(error) => Err(error).context("cannot receive the answer to a ping"),
    }
}
