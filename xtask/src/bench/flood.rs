//! Frames at full speed, in both directions, through the shared ring where a tender offers it. The
//! results are time and processor time per delivered frame. A tender may take a frame and deliver
//! it after the guest's end, so a flood lasts until its tender has ended, and the tap's counters
//! count.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::sample::{Samples, Subject};
use crate::base::error::{Context, Result, fail};
use crate::base::progress;
use crate::machines::net;

/// Most frames sent that the tender has not taken yet; a tap's queue holds 1000, on older kernels
/// 500.
const WINDOW: u64 = 300;

/// EtherType for local experiments, as the `ring` unikernel expects.
const ETHERTYPE: u16 = 0x88b5;

/// Floods of each kind of each tender.
pub const ROUNDS: usize = 3;

/// Time limit of a tender for one flood.
const LIMIT: Duration = Duration::from_secs(60);

/// Direction of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// Frames of one length, one way.
pub struct Flood {
    way: Way,
    size: usize,
    /// So many that a start and an end are a small part.
    frames: u64,
}

/// All floods. A KVM that emulates each instruction of the guest takes 7 ms to receive a long
/// frame.
pub const FLOODS: [Flood; 4] = [
    Flood {
        way: Way::Out,
        size: 60,
        frames: 20_000,
    },
    Flood {
        way: Way::In,
        size: 60,
        frames: 20_000,
    },
    Flood {
        way: Way::Out,
        size: 1514,
        frames: 20_000,
    },
    Flood {
        way: Way::In,
        size: 1514,
        frames: 5_000,
    },
];

/// The path of a flood.
pub struct Setting<'a> {
    pub tender: &'a Path,
    pub unikernel: &'a Path,
    pub tap: &'a str,
}

impl Flood {
    pub fn name(&self) -> String {
        let way = if self.way == Way::Out { "out" } else { "in" };
        format!("flood {way}, {} B", self.size)
    }

    /// Runs it once, unless this tender has exceeded the limit before.
    pub fn run(&self, samples: &mut Samples, subject: Subject, through: &Setting) -> Result<()> {
        if samples.given_up(subject) {
            return Ok(());
        }
        let (cpu, seen, begin) = (cpu_time(), net::packets(through.tap)?, Instant::now());
        let time = self.time(through, begin + LIMIT);
        let cpu = cpu_time() - cpu;
        if begin.elapsed() >= LIMIT {
            let cause = time
                .err()
                .map_or_else(String::new, |error| format!(": {error}"));
            let (whose, limit) = (subject.name(), LIMIT.as_secs());
            progress::note(format_args!(
                "{}: the {whose} is given up after {limit} s{cause}",
                self.name()
            ));
            ["time", "CPU"]
                .iter()
                .for_each(|what| samples.give_up(&self.row(what), subject, LIMIT));
            return Ok(());
        }
        let time = time?;
        let frames = match self.way {
            Way::Out => net::packets(through.tap)?.from_tender - seen.from_tender,
            Way::In => self.frames,
        };
        if frames == 0 {
            return fail(format!("{}: no frame came through", self.name()));
        }
        samples.add(&self.row("time"), subject, time.as_nanos() as u64 / frames);
        samples.add(&self.row("CPU"), subject, cpu.as_nanos() as u64 / frames);
        Ok(())
    }

    fn row(&self, what: &str) -> String {
        format!("{}: {what}", self.name())
    }

    /// Returns the duration: out, from the start of the tender to its end; in, from the first frame
    /// to its end.
    fn time(&self, through: &Setting, deadline: Instant) -> Result<Duration> {
        let mut command = Command::new(through.tender);
        command
            .arg("--mem=16")
            .arg(format!("--net:service={}", through.tap))
            .arg("--")
            .arg(through.unikernel);
        let mode = if self.way == Way::Out {
            "writes"
        } else {
            "reads"
        };
        command
            .arg(format!("{mode}={}", self.frames))
            .arg(format!("size={}", self.size));
        let start = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the tender")?;
        let pipe = child
            .stdout
            .take()
            .map_or_else(|| fail("its output is no pipe"), Ok)?;
        let mut output = BufReader::new(Until { pipe, deadline });
        let started = match self.way {
            Way::Out => Ok(start),
            Way::In => self.feed(&mut output, through.tap, deadline),
        };
        // The unikernel's last output must not wait for a reader.
        let started = started.and_then(|start| {
            io::copy(&mut output, &mut io::sink()).context("cannot read the unikernel's output")?;
            Ok(start)
        });
        if started.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().context("cannot wait for the tender")?;
        let start = started?;
        if !status.success() {
            return fail(format!(
                "not every frame came through: the unikernel ended with {status}"
            ));
        }
        Ok(start.elapsed())
    }

    /// Sends frames as fast as the tender takes them; returns the time of the first.
    fn feed(&self, output: &mut impl BufRead, tap: &str, deadline: Instant) -> Result<Instant> {
        let mut line = String::new();
        while !line.ends_with("ring: ready\n") {
            if output
                .read_line(&mut line)
                .context("cannot read the unikernel's output")?
                == 0
            {
                return fail("the unikernel ended before it was ready");
            }
        }
        net::wait_until_running(tap)?;
        let mut socket = net::packet_socket(tap)?;
        let (before, start) = (net::packets(tap)?.to_tender, Instant::now());
        let mut sent = 0;
        while sent < self.frames {
            let taken = net::packets(tap)?.to_tender - before;
            let end = self.frames.min(taken + WINDOW);
            if end == sent {
                std::thread::sleep(Duration::from_micros(100));
            }
            if Instant::now() >= deadline {
                return fail(format!("it has taken {taken} of {} frames", self.frames));
            }
            (sent..end).try_for_each(|number| send(&mut socket, self.size, number))?;
            sent = end;
        }
        Ok(start)
    }
}

/// A tender's output, with a deadline after which reading fails.
struct Until {
    pipe: ChildStdout,
    deadline: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let late = Err(io::Error::new(io::ErrorKind::TimedOut, "it has not ended"));
        if left.is_zero() {
            return late;
        }
        let mut poll = libc::pollfd {
            fd: self.pipe.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the kernel reads and writes one entry, the number passed.
        match unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int + 1) } {
            -1 => Err(io::Error::last_os_error()),
            0 => late,
            _ => self.pipe.read(buffer),
        }
    }
}

/// Broadcasts the numbered frame `number`.
fn send(socket: &mut File, size: usize, number: u64) -> Result<()> {
    let mut frame = vec![number as u8; size];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xfe]);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    socket
        .write_all(&frame)
        .context(format_args!("cannot send frame {number}"))
}

/// Returns the processor time of ended children.
fn cpu_time() -> Duration {
    // SAFETY: the structure is plain numbers for the kernel to fill in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time =
        |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
