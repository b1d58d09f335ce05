//! The statistics in the text format of Prometheus, version 0.0.4. The names are a contract:
//! dashboards and alerts use them.

use std::fmt::{self, Display, Formatter, Write};

use super::process::processor_time;
use super::{Block, Net, Process, Registry, Times};
use crate::block;
use crate::devices::console;
use crate::net;
use crate::report::log_lines;

/// The statistics so far, for Prometheus.
pub(crate) struct Exposition<'r>(pub &'r Registry);

impl Display for Exposition<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Exposition(registry) = self;
        let families = &mut Families { f, name: "" };
        about(families, registry)?;
        process(families, registry)?;
        exits(families, registry)?;
        console(families, &registry.console.read())?;
        nets(families, &registry.nets)?;
        blocks(families, &registry.blocks)
    }
}

/// Writes families, each of them with its samples.
struct Families<'f, 'w> {
    f: &'f mut Formatter<'w>,
    /// Name of the current family.
    name: &'static str,
}

/// The labels of a sample.
type Labels<'l> = [(&'static str, &'l str)];

impl Families<'_, '_> {
    /// Begins a family, given as its name, type and help.
    fn begin(&mut self, family: &'static str) -> fmt::Result {
        let (name, rest) = family.split_once(' ').unwrap_or_default();
        let (kind, help) = rest.split_once(' ').unwrap_or_default();
        self.name = name;
        writeln!(self.f, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn sample(&mut self, labels: &Labels<'_>, value: impl Display) -> fmt::Result {
        self.f.write_str(self.name)?;
        for (index, (label, text)) in labels.iter().enumerate() {
            write!(self.f, "{}{label}=\"", if index == 0 { '{' } else { ',' })?;
            Label(self.f).write_str(text)?;
            self.f.write_char('"')?;
        }
        let end = if labels.is_empty() { "" } else { "}" };
        writeln!(self.f, "{end} {value}")
    }

    /// Writes a family with one sample, if there is a value.
    fn single(&mut self, family: &'static str, value: Option<impl Display>) -> fmt::Result {
        self.begin(family)?;
        value.map_or(Ok(()), |value| self.sample(&[], value))
    }
}

/// Escapes the value of a label.
struct Label<'f, 'w>(&'f mut Formatter<'w>);

impl Write for Label<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\\' => self.0.write_str("\\\\"),
            '"' => self.0.write_str("\\\""),
            '\n' => self.0.write_str("\\n"),
            c => self.0.write_char(c),
        })
    }
}

/// Nanoseconds, in seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

fn about(families: &mut Families<'_, '_>, registry: &Registry) -> fmt::Result {
    let name = registry.name();
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("name", &name),
        ("unikernel", &registry.unikernel),
        ("era", registry.era.name()),
        ("engine", registry.engine.name()),
        ("architecture", std::env::consts::ARCH),
    ];
    families.begin("tender_info gauge Properties of the run; always 1.")?;
    families.sample(&labels, 1)?;
    let (seconds, nanoseconds) = registry.phases.date().since_1970();
    families.begin("tender_start_time_seconds gauge When the run began, in seconds since 1970.")?;
    families.sample(&[], format_args!("{seconds}.{nanoseconds:09}"))?;
    families.begin("tender_startup_seconds gauge How long each phase of the start took.")?;
    for (phase, took) in registry.phases.durations() {
        families.sample(&[("phase", phase.name())], Seconds(took.as_nanos() as u64))?;
    }
    families.single(
        "tender_messages_left_out_total counter Messages dropped because standard error was not read.",
        Some(log_lines::dropped()),
    )
}

fn process(families: &mut Families<'_, '_>, registry: &Registry) -> fmt::Result {
    let process = registry.process.as_ref();
    families.single(
        "tender_processor_seconds_total counter Processor time of the guest and its tender.",
        Some(Seconds(processor_time().as_nanos() as u64)),
    )?;
    families.single(
        "tender_guest_memory_bytes gauge Memory of the guest.",
        Some(registry.memory),
    )?;
    families.single(
        "tender_guest_resident_bytes gauge Guest memory in RAM.",
        process.and_then(Process::guest_resident),
    )?;
    families.single(
        "tender_resident_bytes gauge Memory of tender in RAM; with KVM, guest memory included.",
        process.and_then(Process::resident),
    )?;
    families.begin(
        "tender_time_seconds_total counter Time in the guest, asleep in POLL, and in tender itself.",
    )?;
    let Some(spent) = registry.times.as_ref().map(Times::spent) else {
        return Ok(());
    };
    families.sample(&[("in", "guest")], Seconds(spent.guest))?;
    families.sample(&[("in", "poll")], Seconds(spent.poll))?;
    families.sample(&[("in", "tender")], Seconds(spent.tender))
}

fn exits(families: &mut Families<'_, '_>, registry: &Registry) -> fmt::Result {
    let (kicks, interruptions) = (&registry.exits.kicks, &registry.exits.interruptions);
    families.begin("tender_exits_total counter Exits of the guest, by reason.")?;
    families.sample(&[("kind", "hypercall")], registry.hypercall_sum())?;
    families.sample(&[("kind", "kick")], kicks.get())?;
    families.sample(&[("kind", "interruption")], interruptions.get())?;
    families.begin("tender_hypercalls_total counter Hypercalls of the guest.")?;
    registry
        .hypercalls()
        .try_for_each(|(name, count)| families.sample(&[("call", name)], count))
}

fn console(families: &mut Families<'_, '_>, stats: &console::Stats) -> fmt::Result {
    families.single(
        "tender_console_written_bytes_total counter Guest output written.",
        Some(stats.written_bytes),
    )?;
    families.single(
        "tender_console_dropped_bytes_total counter Guest output dropped, for any reason.",
        Some(stats.dropped_bytes),
    )?;
    families.single(
        "tender_console_excess_bytes_total counter Guest output dropped by --console-rate.",
        Some(stats.excess_bytes),
    )?;
    families
        .begin("tender_console_failed_total counter Failed writes of guest output, by cause.")?;
    for (cause, count) in stats.causes() {
        families.sample(&[("cause", cause)], count)?;
    }
    Ok(())
}

/// A family with one sample per device, and its value.
type PerDevice<S> = (&'static str, fn(&S) -> u64);

const NET: [PerDevice<net::Stats>; 5] = [
    (
        "tender_net_sent_frames_total counter Frames sent by the guest.",
        |stats| stats.sent_frames,
    ),
    (
        "tender_net_sent_bytes_total counter Bytes sent by the guest, headers included.",
        |stats| stats.sent_bytes,
    ),
    (
        "tender_net_received_frames_total counter Frames received by the guest.",
        |stats| stats.received_frames,
    ),
    (
        "tender_net_received_bytes_total counter Bytes received by the guest, headers included.",
        |stats| stats.received_bytes,
    ),
    (
        "tender_net_receive_errors_total counter Failed attempts to receive.",
        |stats| stats.receive_errors,
    ),
];

fn nets(families: &mut Families<'_, '_>, nets: &[Net]) -> fmt::Result {
    fn labels(net: &Net) -> [(&'static str, &str); 2] {
        [("device", &net.name), ("interface", &net.interface)]
    }
    for (family, value) in NET {
        families.begin(family)?;
        for net in nets {
            families.sample(&labels(net), value(&net.stats()))?;
        }
    }
    families.begin(
        "tender_net_dropped_frames_total counter Frames sent by the guest that did not reach the host, by cause.",
    )?;
    for net in nets {
        let [device, interface] = labels(net);
        for (cause, count) in net.stats().causes() {
            families.sample(&[device, interface, ("cause", cause)], count)?;
        }
    }
    Ok(())
}

const BLOCK: [PerDevice<block::Stats>; 5] = [
    (
        "tender_block_reads_total counter Successful reads.",
        |stats| stats.reads,
    ),
    (
        "tender_block_read_bytes_total counter Bytes read.",
        |stats| stats.read_bytes,
    ),
    (
        "tender_block_writes_total counter Successful writes.",
        |stats| stats.writes,
    ),
    (
        "tender_block_written_bytes_total counter Bytes written.",
        |stats| stats.written_bytes,
    ),
    (
        "tender_block_refused_total counter Requests outside the device.",
        |stats| stats.invalid,
    ),
];

fn blocks(families: &mut Families<'_, '_>, blocks: &[Block]) -> fmt::Result {
    fn labels(block: &Block) -> [(&'static str, &str); 2] {
        [("device", &block.name), ("path", &block.path)]
    }
    for (family, value) in BLOCK {
        families.begin(family)?;
        for block in blocks {
            families.sample(&labels(block), value(&block.counters.read()))?;
        }
    }
    families.begin("tender_block_failed_total counter Failed requests, by cause.")?;
    for block in blocks {
        let [device, path] = labels(block);
        for (cause, count) in block.counters.read().causes() {
            families.sample(&[device, path, ("cause", cause)], count)?;
        }
    }
    Ok(())
}
