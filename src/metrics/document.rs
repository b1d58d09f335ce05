//! The figures as JSON. The form is a promise: see `docs/stats.schema.json`, and raise [`FORMAT`] with every change that
//! is more than another member.

use std::time::Duration;

use super::process::processor_time;
use super::{Block, Net, Process, Registry, Times};
use crate::devices::console;
use crate::outcome::{Error, Outcome};
use crate::report::json::Value;
use crate::report::log_lines;

/// Version of the form.
const FORMAT: u64 = 1;

/// How a run ended, in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    cause: &'static str,
    status: Option<u8>,
    signal: Option<i32>,
    message: String,
}

impl From<&Result<Outcome, Error>> for End {
    fn from(result: &Result<Outcome, Error>) -> End {
        let (cause, status, signal) = match result {
            Ok(Outcome::Halted(status)) => ("halt", Some(*status), None),
            Ok(Outcome::Signal(number)) => ("signal", None, Some(*number)),
            Err(Error::Timeout { .. }) => ("timeout", Some(1), None),
            Err(Error::Violation { .. }) => ("guest", Some(1), None),
            Err(_) => ("host", Some(1), None),
        };
        let message = result
            .as_ref()
            .map_or_else(Error::to_string, Outcome::to_string);
        End {
            cause,
            status,
            signal,
            message,
        }
    }
}

/// Everything that is known of a run which has come to its `end`.
pub fn document(registry: &Registry, end: &End) -> Value {
    Value::Object(vec![
        ("type", "tender.stats".into()),
        ("format", FORMAT.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("unikernel", registry.unikernel.as_str().into()),
        ("architecture", std::env::consts::ARCH.into()),
        ("era", registry.era.name().into()),
        ("pid", u64::from(registry.process_id).into()),
        ("began", registry.phases.date().to_string().into()),
        ("end", end_value(end)),
        ("startup_us", startup(registry)),
        ("time_us", times(registry)),
        ("memory", memory(registry)),
        ("exits", exits(registry)),
        (
            "hypercalls",
            Value::Object(
                registry
                    .hypercalls()
                    .map(|(name, count)| (name, count.into()))
                    .collect(),
            ),
        ),
        ("console", console(&registry.console.read())),
        (
            "nets",
            registry.nets.iter().map(net).collect::<Vec<_>>().into(),
        ),
        (
            "blocks",
            registry.blocks.iter().map(block).collect::<Vec<_>>().into(),
        ),
        ("messages_left_out", log_lines::dropped().into()),
    ])
}

fn microseconds(duration: Duration) -> Value {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .into()
}

fn counts(causes: &[(&'static str, u64)]) -> Value {
    Value::Object(
        causes
            .iter()
            .map(|(cause, count)| (*cause, (*count).into()))
            .collect(),
    )
}

fn end_value(end: &End) -> Value {
    Value::Object(vec![
        ("cause", end.cause.into()),
        ("status", end.status.map(u64::from).into()),
        (
            "signal",
            end.signal
                .map(|signal| u64::from(signal.unsigned_abs()))
                .into(),
        ),
        ("message", end.message.as_str().into()),
    ])
}

fn startup(registry: &Registry) -> Value {
    Value::Object(
        registry
            .phases
            .durations()
            .map(|(phase, took)| (phase.name(), microseconds(took)))
            .collect(),
    )
}

fn times(registry: &Registry) -> Value {
    let spent = registry.times.as_ref().map(Times::spent);
    let part = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds / 1000).into();
    Value::Object(vec![
        ("wall", microseconds(registry.phases.began().elapsed())),
        ("guest", part(spent.map(|spent| spent.guest))),
        ("poll", part(spent.map(|spent| spent.poll))),
        ("tender", part(spent.map(|spent| spent.tender))),
        ("processor", microseconds(processor_time())),
    ])
}

fn memory(registry: &Registry) -> Value {
    let process = registry.process.as_ref();
    Value::Object(vec![
        ("guest_bytes", registry.memory.into()),
        (
            "guest_resident_bytes",
            process.and_then(Process::guest_resident).into(),
        ),
        ("resident_bytes", process.and_then(Process::resident).into()),
    ])
}

fn exits(registry: &Registry) -> Value {
    Value::Object(vec![
        ("hypercall", registry.hypercall_sum().into()),
        ("kick", registry.exits.kicks.get().into()),
        ("interruption", registry.exits.interruptions.get().into()),
    ])
}

fn console(stats: &console::Stats) -> Value {
    Value::Object(vec![
        ("written_bytes", stats.written_bytes.into()),
        ("dropped_bytes", stats.dropped_bytes.into()),
        ("excess_bytes", stats.excess_bytes.into()),
        ("failed", counts(&stats.causes())),
    ])
}

fn net(net: &Net) -> Value {
    let stats = net.stats();
    let ring = net.ring.as_ref().map(|counters| counters.read());
    Value::Object(vec![
        ("name", net.name.as_str().into()),
        ("interface", net.interface.as_str().into()),
        ("sent_frames", stats.sent_frames.into()),
        ("sent_bytes", stats.sent_bytes.into()),
        ("received_frames", stats.received_frames.into()),
        ("received_bytes", stats.received_bytes.into()),
        (
            "ring_frames",
            ring.map_or(0, |ring| ring.sent_frames + ring.received_frames)
                .into(),
        ),
        ("dropped", counts(&stats.causes())),
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
        ("failed", counts(&stats.causes())),
    ])
}
