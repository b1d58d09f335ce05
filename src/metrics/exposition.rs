//! The figures in the text format of Prometheus, version 0.0.4. The names are a promise: dashboards and alerts use them.

use std::fmt::{self, Display, Formatter, Write};

use super::process::processor_time;
use super::{Process, Registry, Times};
use crate::block;
use crate::devices::console;
use crate::net;
use crate::report::log_lines;

/// The figures so far, for Prometheus.
pub struct Exposition<'r>(pub &'r Registry);

/// Writes one family: its help, its type, and its samples.
struct Family<'f, 'w> {
    f: &'f mut Formatter<'w>,
    name: &'static str,
}

/// The labels of a sample.
type Labels<'l> = [(&'static str, &'l str)];

impl<'f, 'w> Family<'f, 'w> {
    fn begin(
        f: &'f mut Formatter<'w>,
        kind: &str,
        name: &'static str,
        help: &str,
    ) -> Result<Family<'f, 'w>, fmt::Error> {
        write!(f, "# HELP {name} {help}\n# TYPE {name} {kind}\n")?;
        Ok(Family { f, name })
    }

    fn sample(&mut self, labels: &Labels<'_>, value: impl Display) -> fmt::Result {
        self.f.write_str(self.name)?;
        for (index, (label, text)) in labels.iter().enumerate() {
            write!(self.f, "{}{label}=\"", if index == 0 { '{' } else { ',' })?;
            Label(self.f).write_str(text)?;
            self.f.write_char('"')?;
        }
        writeln!(
            self.f,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        )
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

impl Display for Exposition<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Exposition(registry) = self;
        about(f, registry)?;
        process(f, registry)?;
        exits(f, registry)?;
        console(f, &registry.console.read())?;
        for (name, help, value) in NET {
            let mut family = Family::begin(f, "counter", name, help)?;
            for net in &registry.nets {
                family.sample(
                    &[("device", &net.name), ("interface", &net.interface)],
                    value(&net.stats()),
                )?;
            }
        }
        let name = "tender_net_dropped_frames_total";
        let mut family = Family::begin(
            f,
            "counter",
            name,
            "Frames sent by the guest that the host dropped, by cause.",
        )?;
        for net in &registry.nets {
            for (cause, count) in net.stats().causes() {
                let labels = [
                    ("device", &*net.name),
                    ("interface", &net.interface),
                    ("cause", cause),
                ];
                family.sample(&labels, count)?;
            }
        }
        for (name, help, value) in BLOCK {
            let mut family = Family::begin(f, "counter", name, help)?;
            for block in &registry.blocks {
                family.sample(
                    &[("device", &block.name), ("path", &block.path)],
                    value(&block.counters.read()),
                )?;
            }
        }
        let name = "tender_block_failed_total";
        let mut family = Family::begin(f, "counter", name, "Failed requests, by cause.")?;
        for block in &registry.blocks {
            for (cause, count) in block.counters.read().causes() {
                family.sample(
                    &[
                        ("device", &*block.name),
                        ("path", &block.path),
                        ("cause", cause),
                    ],
                    count,
                )?;
            }
        }
        Ok(())
    }
}

/// A family with one number for each device: name, help, which number.
type PerDevice<S> = (&'static str, &'static str, fn(&S) -> u64);

const NET: [PerDevice<net::Stats>; 5] = [
    (
        "tender_net_sent_frames_total",
        "Frames sent by the guest.",
        |stats| stats.sent_frames,
    ),
    (
        "tender_net_sent_bytes_total",
        "Bytes of those, headers included.",
        |stats| stats.sent_bytes,
    ),
    (
        "tender_net_received_frames_total",
        "Frames received by the guest.",
        |stats| stats.received_frames,
    ),
    (
        "tender_net_received_bytes_total",
        "Bytes of those, headers included.",
        |stats| stats.received_bytes,
    ),
    (
        "tender_net_receive_errors_total",
        "Failed attempts to receive.",
        |stats| stats.receive_errors,
    ),
];

const BLOCK: [PerDevice<block::Stats>; 5] = [
    ("tender_block_reads_total", "Successful reads.", |stats| {
        stats.reads
    }),
    (
        "tender_block_read_bytes_total",
        "Bytes of those.",
        |stats| stats.read_bytes,
    ),
    ("tender_block_writes_total", "Successful writes.", |stats| {
        stats.writes
    }),
    (
        "tender_block_written_bytes_total",
        "Bytes of those.",
        |stats| stats.written_bytes,
    ),
    (
        "tender_block_refused_total",
        "Requests that are not within the device.",
        |stats| stats.invalid,
    ),
];

fn about(f: &mut Formatter<'_>, registry: &Registry) -> fmt::Result {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("unikernel", &registry.unikernel),
        ("era", registry.era.name()),
        ("architecture", std::env::consts::ARCH),
    ];
    Family::begin(f, "gauge", "tender_info", "What runs; always 1.")?.sample(&labels, 1)?;
    let name = "tender_start_time_seconds";
    let (seconds, nanoseconds) = registry.phases.date().since_1970();
    let mut family = Family::begin(
        f,
        "gauge",
        name,
        "When the run began, in seconds since 1970.",
    )?;
    family.sample(&[], format_args!("{seconds}.{nanoseconds:09}"))?;
    let mut family = Family::begin(
        f,
        "gauge",
        "tender_startup_seconds",
        "How long each phase of the start took.",
    )?;
    for (phase, took) in registry.phases.durations() {
        family.sample(&[("phase", phase.name())], Seconds(took.as_nanos() as u64))?;
    }
    let name = "tender_messages_left_out_total";
    Family::begin(
        f,
        "counter",
        name,
        "Messages dropped because standard error was not read.",
    )?
    .sample(&[], log_lines::dropped())
}

fn process(f: &mut Formatter<'_>, registry: &Registry) -> fmt::Result {
    let processor = Seconds(processor_time().as_nanos() as u64);
    let name = "tender_processor_seconds_total";
    Family::begin(
        f,
        "counter",
        name,
        "Processor time of the guest and its tender.",
    )?
    .sample(&[], processor)?;
    let mut family = Family::begin(
        f,
        "gauge",
        "tender_guest_memory_bytes",
        "Memory of the guest.",
    )?;
    family.sample(&[], registry.memory)?;
    let process = registry.process.as_ref();
    let name = "tender_guest_resident_bytes";
    let mut family = Family::begin(f, "gauge", name, "Guest memory in RAM.")?;
    process
        .and_then(Process::guest_resident)
        .map_or(Ok(()), |bytes| family.sample(&[], bytes))?;
    let name = "tender_resident_bytes";
    let mut family = Family::begin(
        f,
        "gauge",
        name,
        "Memory of the process in RAM, that of the guest included.",
    )?;
    process
        .and_then(Process::resident)
        .map_or(Ok(()), |bytes| family.sample(&[], bytes))?;
    let name = "tender_time_seconds_total";
    let mut family = Family::begin(
        f,
        "counter",
        name,
        "Time in the guest, asleep in POLL, and in tender itself.",
    )?;
    let Some(spent) = registry.times.as_ref().map(Times::spent) else {
        return Ok(());
    };
    for (place, nanoseconds) in [
        ("guest", spent.guest),
        ("poll", spent.poll),
        ("tender", spent.tender),
    ] {
        family.sample(&[("in", place)], Seconds(nanoseconds))?;
    }
    Ok(())
}

fn exits(f: &mut Formatter<'_>, registry: &Registry) -> fmt::Result {
    let mut family = Family::begin(
        f,
        "counter",
        "tender_exits_total",
        "Why the guest left its processor.",
    )?;
    family.sample(&[("kind", "hypercall")], registry.hypercall_sum())?;
    family.sample(&[("kind", "kick")], registry.exits.kicks.get())?;
    family.sample(
        &[("kind", "interruption")],
        registry.exits.interruptions.get(),
    )?;
    let mut family = Family::begin(
        f,
        "counter",
        "tender_hypercalls_total",
        "Hypercalls of the guest.",
    )?;
    registry
        .hypercalls()
        .try_for_each(|(name, count)| family.sample(&[("call", name)], count))
}

fn console(f: &mut Formatter<'_>, stats: &console::Stats) -> fmt::Result {
    let families = [
        (
            "tender_console_written_bytes_total",
            "Guest output written.",
            stats.written_bytes,
        ),
        (
            "tender_console_dropped_bytes_total",
            "Guest output dropped, for any reason.",
            stats.dropped_bytes,
        ),
        (
            "tender_console_excess_bytes_total",
            "Guest output dropped by --console-rate.",
            stats.excess_bytes,
        ),
    ];
    for (name, help, count) in families {
        Family::begin(f, "counter", name, help)?.sample(&[], count)?;
    }
    let name = "tender_console_failed_total";
    let mut family = Family::begin(
        f,
        "counter",
        name,
        "Failed writes of guest output, by cause.",
    )?;
    stats
        .causes()
        .iter()
        .try_for_each(|(cause, count)| family.sample(&[("cause", cause)], count))
}
