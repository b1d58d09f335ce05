//! The statistics in a few lines for people: at the end of a run, and on SIGUSR1. Nothing here
//! allocates, because a signal handler must not.

use std::fmt::{self, Display, Formatter};

use super::Registry;
use crate::report::counters::Count;
use crate::report::log_lines;

/// Passes each line of the summary to `write_line`, with the name of its device if it has one.
pub(crate) fn summary(
    registry: &Registry,
    mut write_line: impl FnMut(Option<&str>, fmt::Arguments<'_>),
) {
    write_line(None, format_args!("{}", Run(registry)));
    write_line(None, format_args!("console: {}", registry.console.read()));
    for net in &registry.nets {
        write_line(
            Some(&net.name),
            format_args!("{}: {}", net.interface, net.stats()),
        );
    }
    for block in &registry.blocks {
        write_line(
            Some(&block.name),
            format_args!("{}: {}", block.path, block.counters.read()),
        );
    }
}

/// Engine, hypercalls, time and memory, as far as known.
pub(super) struct Run<'r>(pub &'r Registry);

impl Display for Run<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Run(registry) = self;
        write!(
            f,
            "engine {}, {}",
            registry.engine.name(),
            Count(registry.hypercall_sum(), "hypercall")
        )?;
        for (index, (name, count)) in registry
            .hypercalls()
            .filter(|(_, count)| *count > 0)
            .enumerate()
        {
            write!(f, "{}{count} {name}", if index == 0 { " (" } else { ", " })?;
        }
        if registry.hypercalls().any(|(_, count)| count > 0) {
            f.write_str(")")?;
        }
        write!(
            f,
            ", {}; {} ms since the start",
            Count(registry.exits.kicks.get(), "kick"),
            registry.phases.began().elapsed().as_millis()
        )?;
        if let Some(spent) = registry.times.as_ref().map(super::Times::spent) {
            let [guest, poll, tender] =
                [spent.guest, spent.poll, spent.tender].map(|nanoseconds| nanoseconds / 1_000_000);
            write!(
                f,
                ", {guest} in the guest, {poll} in POLL, {tender} in tender"
            )?;
        }
        if let Some(resident) = registry.process.as_ref().and_then(super::Process::resident) {
            write!(f, "; {} KiB in RAM", resident >> 10)?;
        }
        match log_lines::dropped() {
            0 => Ok(()),
            count => write!(f, "; {} dropped", Count(count, "message")),
        }
    }
}
