//! Reporting for all modules: log lines, JSON, clocks, timestamps, counters.

pub mod clock;
pub mod counters;
pub mod json;
pub mod log_lines;
pub mod message;
pub mod text;
pub mod timestamp;
