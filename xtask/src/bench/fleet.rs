//! `cargo xtask fleet`: many idle unikernels on one host, each with its own tender, and the cost of
//! each.
//!
//! The unikernel is the web server, as in real fleets: it has answered once and waits for the next
//! request. All run in one network namespace, with a tap and a network each.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::error::{Context, Result, fail};
use crate::base::options::Options;
use crate::base::process;
use crate::build::arch::Arch;
use crate::build::fixtures;
use crate::demo;
use crate::dist;
use crate::machines::{host, net};

const UNIKERNEL: &str = "web.hvt";
const MEMORY: u32 = 32;

/// Each has a separate network 10.HIGH.LOW.0/24.
const MOST: u16 = 4096;

/// Time limit for all of them together to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Idle time before the measurement: the host sends frames on a new interface.
const SETTLE: Duration = Duration::from_secs(3);

pub fn run(options: &mut Options) -> Result<()> {
    let count = number(options, "--count", 100)?.clamp(1, MOST);
    let seconds = number(options, "--seconds", 10)?.max(1);
    let tender = options.value("--tender")?.map(PathBuf::from);
    let metrics = options.flag("--metrics");
    options.finish()?;
    host::kvm()?;
    let arch = Arch::host()?;
    let image = fixtures::directory(arch).join(UNIKERNEL);
    let tender = tender.map_or_else(|| dist::binary(arch), Ok)?;
    net::enter_namespace()?;
    // Otherwise the host sends unrequested frames on each new interface.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let began = Instant::now();
    let mut fleet = (0..count)
        .map(|index| Member::start(&tender, &image, index, metrics))
        .collect::<Result<Vec<_>>>()?;
    fleet.iter_mut().try_for_each(Member::answer)?;
    println!(
        "{count} unikernels of {MEMORY} MiB, {UNIKERNEL}: all answer {:.1} s after the first start",
        secs(began)
    );
    let measured = measure(&fleet, Duration::from_secs(seconds.into()))?;
    print_table(&measured, seconds);
    fleet.iter_mut().try_for_each(Member::answer)?;
    if metrics {
        let bytes = fleet
            .iter()
            .map(Member::scrape)
            .collect::<Result<Vec<_>>>()?;
        println!("metrics of all: {} bytes", bytes.iter().sum::<usize>());
    }
    let began = Instant::now();
    end(fleet)?;
    println!(
        "all answer again; all ended by SIGTERM in {:.1} s, none is left",
        secs(began)
    );
    Ok(())
}

fn number(options: &mut Options, name: &str, default: u16) -> Result<u16> {
    let Some(text) = options.value(name)? else {
        return Ok(default);
    };
    text.parse().context(format_args!(
        "{name} {text} is no number up to {}",
        u16::MAX
    ))
}

fn secs(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// One unikernel. Drop kills its tender.
struct Member {
    tender: Child,
    address: Ipv4Addr,
    /// Name of the abstract socket of its metrics, if they are served.
    metrics: Option<String>,
}

impl Member {
    /// Starts it on a separate tap. Options for all members belong here.
    fn start(tender: &Path, image: &Path, index: u16, metrics: bool) -> Result<Member> {
        let [high, low] = index.to_be_bytes();
        let tap = format!("tap{index}");
        net::make_tap(&tap, Ipv4Addr::new(10, high, low, 1))?;
        let address = Ipv4Addr::new(10, high, low, 2);
        let mut command = Command::new(tender);
        // Abstract names belong to the network namespace, which is private.
        let metrics = metrics.then(|| format!("fleet-{index}"));
        command.args([format!("--mem={MEMORY}"), format!("--net:service={tap}")]);
        command
            .args(metrics.iter().map(|name| format!("--metrics=unix:@{name}")))
            .arg("--");
        command
            .arg(image)
            .arg(format!("--ipv4={address}/24"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let tender = process::end_with_us(&mut command)
            .spawn()
            .context(format_args!("cannot start {}", tender.display()))?;
        Ok(Member {
            tender,
            address,
            metrics,
        })
    }

    /// Fetches its page.
    fn answer(&mut self) -> Result<()> {
        let page = demo::fetch(&mut self.tender, self.address, PATIENCE)?;
        if page.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            fail(format!("{} has no page", self.address))
        }
    }

    /// Fetches its metrics, which must count at least one page; returns their size in bytes.
    fn scrape(&self) -> Result<usize> {
        let name = self.metrics.as_deref().unwrap_or_default();
        let mut text = String::new();
        let asked = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixStream::connect_addr(&address))
            .and_then(|mut socket| {
                socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: fleet\r\n\r\n")?;
                socket.read_to_string(&mut text)
            });
        asked.context(format_args!("cannot ask {name} for its metrics"))?;
        let sent = text.lines().find_map(|line| {
            line.strip_prefix("tender_net_sent_frames_total{")?
                .split_once("} ")
        });
        match sent {
            Some((_, frames)) if text.starts_with("HTTP/1.1 200 ") && frames != "0" => {
                Ok(text.len())
            }
            _ => fail(format!(
                "{name} answers with other than its metrics: {text}"
            )),
        }
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.tender.id());
        std::fs::read_to_string(&path).context(format_args!("cannot read {path}"))
    }

    /// Returns the sum, over its threads, of `value` applied to their `file`.
    fn sum(&self, file: &str, value: impl Fn(&str) -> Option<u64>) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.tender.id());
        let tasks = std::fs::read_dir(&tasks).context(format_args!("cannot read {tasks}"))?;
        tasks.flatten().try_fold(0, |sum, task| {
            let path = task.path().join(file);
            let text = std::fs::read_to_string(&path)
                .context(format_args!("cannot read {}", path.display()))?;
            match value(&text) {
                Some(value) => Ok(sum + value),
                None => fail(format!("{} lacks the expected field", path.display())),
            }
        })
    }

    /// Nanoseconds of processor time, of guest, kernel and tender together.
    fn processor_time(&self) -> Result<u64> {
        self.sum("schedstat", |text| {
            text.split_whitespace().next()?.parse().ok()
        })
    }

    /// Returns how often it has gone to sleep, and so been woken.
    fn sleeps(&self) -> Result<u64> {
        self.sum("status", |text| field(text, "voluntary_ctxt_switches:"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only if it was already waited for.
        let _ = self.tender.kill();
        let _ = self.tender.wait();
    }
}

/// Returns the number that follows `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The quantities, with one value per member.
type Measured = Vec<(&'static str, Vec<u64>)>;

fn measure(fleet: &[Member], duration: Duration) -> Result<Measured> {
    let of_all = |value: &dyn Fn(&Member) -> Result<u64>| {
        fleet.iter().map(value).collect::<Result<Vec<_>>>()
    };
    std::thread::sleep(SETTLE);
    let before = (of_all(&Member::processor_time)?, of_all(&Member::sleeps)?);
    std::thread::sleep(duration);
    let after = (of_all(&Member::processor_time)?, of_all(&Member::sleeps)?);
    let grown = |before: &[u64], after: Vec<u64>| {
        after.into_iter().zip(before).map(|(a, b)| a - b).collect()
    };
    let memory = |names: &'static [&'static str]| {
        of_all(&|member| {
            let text = member.proc("smaps_rollup")?;
            let values: Option<Vec<u64>> = names.iter().map(|name| field(&text, name)).collect();
            values
                .map(|values| values.iter().sum())
                .map_or_else(|| fail("smaps_rollup has other names"), Ok)
        })
    };
    let microseconds = |times: Vec<u64>| times.into_iter().map(|time| time / 1000).collect();
    Ok(vec![
        (
            "private memory, KiB",
            memory(&["Private_Clean:", "Private_Dirty:"])?,
        ),
        ("with its share of others (PSS), KiB", memory(&["Pss:"])?),
        ("resident (RSS), KiB", memory(&["Rss:"])?),
        (
            "processor time, us",
            microseconds(grown(&before.0, after.0)),
        ),
        ("wake-ups", grown(&before.1, after.1)),
        ("processor time until then, us", microseconds(before.0)),
        ("wake-ups until then", before.1),
    ])
}

fn print_table(measured: &Measured, seconds: u16) {
    println!(
        "{:40} {:>9} {:>9} {:>9} {:>11}",
        format!("idle for {seconds} s, each"),
        "least",
        "median",
        "most",
        "sum"
    );
    for (what, values) in measured {
        let mut values = values.clone();
        values.sort_unstable();
        let [least, median, most] = [0, values.len() / 2, values.len() - 1].map(|at| values[at]);
        println!(
            "{what:40} {least:>9} {median:>9} {most:>9} {:>11}",
            values.iter().sum::<u64>()
        );
    }
}

/// Sends all the signal together, and checks that each ended by it.
fn end(mut fleet: Vec<Member>) -> Result<()> {
    for member in &fleet {
        process::terminate(&member.tender);
    }
    for member in &mut fleet {
        let status = process::wait(&mut member.tender, PATIENCE)?;
        if status.signal() != Some(libc::SIGTERM) {
            return fail(format!(
                "the tender of {} ended with {status}, not by SIGTERM",
                member.address
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_proc() {
        let text = "Pss:                 123 kB\nPss_Dirty:            45 kB\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "Pss:"), Some(123));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), None);
    }
}
