//! Frames as fast as they go, in both directions, by the shared ring where a tender offers it. What counts is the time
//! and the processor time for one frame that came through: a tender that takes a frame and has not passed it on when
//! the guest ends has not done the work yet, so a flood lasts until its tender has ended, and what the tap saw counts.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::sample::{Samples, Subject};
use crate::error::{Context, Result, fail};
use crate::{net, process};

/// Frames of one flood: enough that a start and an end are a small part.
const FRAMES: u64 = 20_000;

/// Lengths of the frames.
const SIZES: [usize; 2] = [60, 1514];

/// Frames sent that the tender has not taken yet: no more than a tap's queue (1000, older kernels 500) holds.
const WINDOW: u64 = 300;

/// For local experiments, as the `ring` unikernel expects.
const ETHERTYPE: u16 = 0x88b5;

/// A tender that takes nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// One tender, with what its floods go through.
pub struct Flood<'a> {
    pub subject: Subject,
    pub tender: &'a Path,
    pub unikernel: &'a Path,
    pub tap: &'a str,
}

impl Flood<'_> {
    /// Runs every flood once.
    pub fn run(&self, samples: &mut Samples) -> Result<()> {
        for size in SIZES {
            let (cpu, seen) = (cpu_time(), net::packets(self.tap)?);
            let time = self.out(size)?;
            let came = net::packets(self.tap)?.from_tender - seen.from_tender;
            self.add(samples, "out", size, came, [time, cpu_time() - cpu]);
            let cpu = cpu_time();
            let time = self.into(size)?;
            self.add(samples, "in", size, FRAMES, [time, cpu_time() - cpu]);
        }
        Ok(())
    }

    fn add(&self, samples: &mut Samples, way: &str, size: usize, frames: u64, times: [Duration; 2]) {
        for (what, time) in ["time", "CPU"].into_iter().zip(times) {
            let each = time.as_nanos() as u64 / frames.max(1);
            samples.add(&format!("flood {way}, {size} B: {what}"), self.subject, each);
        }
    }

    fn command(&self, mode: &str, size: usize) -> Command {
        let mut command = Command::new(self.tender);
        command.arg("--mem=16").arg(format!("--net:service={}", self.tap)).arg("--").arg(self.unikernel);
        command.arg(format!("{mode}={FRAMES}")).arg(format!("size={size}"));
        command
    }

    /// The guest sends; says how long it took from its start to its end.
    fn out(&self, size: usize) -> Result<Duration> {
        let start = Instant::now();
        process::output(&mut self.command("writes", size))?;
        Ok(start.elapsed())
    }

    /// The guest receives; says how long it took from the first frame to its end.
    fn into(&self, size: usize) -> Result<Duration> {
        let mut command = self.command("reads", size);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the tender")?;
        let received = child
            .stdout
            .take()
            .map_or_else(|| fail("its output is no pipe"), |output| self.feed(BufReader::new(output), size));
        if received.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().context("cannot wait for the tender")?;
        let start = received?;
        if !status.success() {
            return fail(format!("not every frame came through: the unikernel ended with {status}"));
        }
        Ok(start.elapsed())
    }

    /// Sends frames as fast as the tender takes them; says when it began.
    fn feed(&self, mut output: impl BufRead, size: usize) -> Result<Instant> {
        let mut line = String::new();
        while !line.ends_with("ring: ready\n") {
            if output.read_line(&mut line).context("cannot read what the unikernel says")? == 0 {
                return fail("the unikernel ended before it was ready");
            }
        }
        net::wait_until_running(self.tap)?;
        let mut socket = net::packet_socket(self.tap)?;
        let (before, start) = (net::packets(self.tap)?.to_tender, Instant::now());
        let (mut sent, mut moved) = (0, start);
        while sent < FRAMES {
            let taken = net::packets(self.tap)?.to_tender - before;
            let end = FRAMES.min(taken + WINDOW);
            if end == sent && moved.elapsed() > PATIENCE {
                return fail(format!("the tender has taken {taken} of {sent} frames, and takes no more"));
            }
            if end > sent {
                moved = Instant::now();
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
            (sent..end).try_for_each(|number| send(&mut socket, size, number))?;
            sent = end;
        }
        // What the unikernel says at its end must not wait for a reader.
        std::io::copy(&mut output, &mut std::io::sink()).context("cannot read what the unikernel says")?;
        Ok(start)
    }
}

/// Sends the numbered frame `number` to everybody.
fn send(socket: &mut File, size: usize, number: u64) -> Result<()> {
    let mut frame = vec![number as u8; size];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xfe]);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    socket.write_all(&frame).context(format_args!("cannot send frame {number}"))
}

/// Processor time of the children that have ended.
fn cpu_time() -> Duration {
    // SAFETY: the structure is plain numbers for the kernel to fill in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
