//! Reporting for all modules: log lines, JSON, timestamps, counters.

pub mod counters;
pub mod json;
pub mod log_lines;
pub mod text;
pub mod timestamp;
