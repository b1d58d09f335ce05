//! The statistics as JSON. The format is a contract: see `docs/stats.schema.json`. Raise [`FORMAT`]
//! with every change other than an additional member.

use std::time::Duration;

use super::process::processor_time;
use super::{Block, Net, Process, Registry, Times};
use crate::devices::console;
use crate::outcome::{Error, Outcome};
use crate::report::json::Value;
use crate::report::log_lines;

/// Version of the format.
const FORMAT: u64 = 1;

/// Returns the statistics of a run that ended with `outcome`.
pub(super) fn document(registry: &Registry, outcome: &Result<Outcome, Error>) -> Value {
    Value::Object(vec![
        ("type", "tender.stats".into()),
        ("format", FORMAT.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("name", registry.name().into()),
        ("unikernel", registry.unikernel.as_str().into()),
        ("architecture", std::env::consts::ARCH.into()),
        ("era", registry.era.name().into()),
        ("engine", registry.engine.name().into()),
        ("pid", u64::from(registry.process_id).into()),
        ("began", registry.phases.date().to_string().into()),
        ("end", end(outcome)),
        ("startup_us", startup(registry)),
        ("time_us", times(registry)),
        ("memory", memory(registry)),
        ("exits", exits(registry)),
        ("hypercalls", counts(registry.hypercalls())),
        ("console", console(&registry.console.read())),
        ("nets", list(&registry.nets, net)),
        ("blocks", list(&registry.blocks, block)),
        ("messages_left_out", log_lines::dropped().into()),
    ])
}

fn microseconds(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn counts(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Value {
    let members = counts.into_iter();
    Value::Object(members.map(|(name, count)| (name, count.into())).collect())
}

fn list<T>(items: &[T], value: fn(&T) -> Value) -> Value {
    Value::List(items.iter().map(value).collect())
}

fn end(outcome: &Result<Outcome, Error>) -> Value {
    let (cause, status, signal) = match outcome {
        Ok(Outcome::Halted(status)) => ("halt", Some(*status), None),
        Ok(Outcome::Signal(number)) => ("signal", None, Some(number.unsigned_abs())),
        Err(Error::Timeout { .. }) => ("timeout", Some(1), None),
        Err(Error::Violation { .. }) => ("guest", Some(1), None),
        Err(_) => ("host", Some(1), None),
    };
    let message = outcome
        .as_ref()
        .map_or_else(Error::to_string, Outcome::to_string);
    Value::Object(vec![
        ("cause", cause.into()),
        ("status", status.map(u64::from).into()),
        ("signal", signal.map(u64::from).into()),
        ("message", message.into()),
    ])
}

fn startup(registry: &Registry) -> Value {
    let phases = registry.phases.durations();
    counts(phases.map(|(phase, took)| (phase.name(), microseconds(took))))
}

fn times(registry: &Registry) -> Value {
    let spent = registry.times.as_ref().map(Times::spent);
    let wall = microseconds(registry.phases.began().elapsed());
    let processor = microseconds(processor_time());
    let part = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds / 1000).into();
    Value::Object(vec![
        ("wall", wall.into()),
        ("guest", part(spent.map(|spent| spent.guest))),
        ("poll", part(spent.map(|spent| spent.poll))),
        ("tender", part(spent.map(|spent| spent.tender))),
        ("processor", processor.into()),
    ])
}

fn memory(registry: &Registry) -> Value {
    let process = registry.process.as_ref();
    let guest_resident = process.and_then(Process::guest_resident);
    Value::Object(vec![
        ("guest_bytes", registry.memory.into()),
        ("guest_resident_bytes", guest_resident.into()),
        ("resident_bytes", process.and_then(Process::resident).into()),
    ])
}

fn exits(registry: &Registry) -> Value {
    counts([
        ("hypercall", registry.hypercall_sum()),
        ("kick", registry.exits.kicks.get()),
        ("interruption", registry.exits.interruptions.get()),
    ])
}

fn console(stats: &console::Stats) -> Value {
    Value::Object(vec![
        ("written_bytes", stats.written_bytes.into()),
        ("dropped_bytes", stats.dropped_bytes.into()),
        ("excess_bytes", stats.excess_bytes.into()),
        ("failed", counts(stats.causes())),
    ])
}

fn net(net: &Net) -> Value {
    let stats = net.stats();
    let ring = net.ring.as_ref().map(|counters| counters.read());
    let ring_frames = ring.map_or(0, |ring| ring.sent_frames + ring.received_frames);
    Value::Object(vec![
        ("name", net.name.as_str().into()),
        ("interface", net.interface.as_str().into()),
        ("sent_frames", stats.sent_frames.into()),
        ("sent_bytes", stats.sent_bytes.into()),
        ("received_frames", stats.received_frames.into()),
        ("received_bytes", stats.received_bytes.into()),
        ("ring_frames", ring_frames.into()),
        ("dropped", counts(stats.causes())),
        ("receive_errors", stats.receive_errors.into()),
    ])
}

fn block(block: &Block) -> Value {
    let stats = block.counters.read();
    Value::Object(vec![
        ("name", block.name.as_str().into()),
        ("path", block.path.as_str().into()),
        ("reads", stats.reads.into()),
        ("read_bytes", stats.read_bytes.into()),
        ("writes", stats.writes.into()),
        ("written_bytes", stats.written_bytes.into()),
        ("refused", stats.invalid.into()),
        ("failed", counts(stats.causes())),
    ])
}
