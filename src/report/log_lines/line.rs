//! One log line in the selected format, built in a buffer on the stack: a signal handler, which
//! must not use the heap, can log too.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use log::Level;
use log::kv::Key;

use super::LONGEST;
use super::origin::{self, Subject};
use crate::report::json::Escaped;
use crate::report::text::OneLine;
use crate::report::timestamp::Timestamp;

/// The format of the tender's log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `tender: warn: …`.
    #[default]
    Text,
    /// One object per line: `ts`, `level`, `message`, the run's `name`, `pid`, and, where known,
    /// `device` and `cause`.
    Json,
    /// Text after `<N>`, a syslog priority, which the journal strips.
    Journald,
}

static FORMAT: AtomicU8 = AtomicU8::new(LogFormat::Text as u8);

impl LogFormat {
    /// Sets the format of all following lines.
    pub fn set_global(self) {
        FORMAT.store(self as u8, Ordering::Relaxed);
        if self == LogFormat::Json {
            origin::set_process();
        }
    }

    /// Returns the format called `name`.
    pub fn from_name(name: &str) -> Option<LogFormat> {
        match name {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            "journald" => Some(LogFormat::Journald),
            _ => None,
        }
    }

    pub(super) fn current() -> LogFormat {
        match FORMAT.load(Ordering::Relaxed) {
            1 => LogFormat::Json,
            2 => LogFormat::Journald,
            _ => LogFormat::Text,
        }
    }
}

/// A log line with its newline. A line that is too long is cut at its end.
pub struct Line {
    bytes: [u8; LONGEST],
    length: usize,
    /// Usable bytes of `bytes`.
    room: usize,
}

impl Line {
    /// Formats a message of this level.
    pub fn log(level: Level, subject: Subject<'_>, message: fmt::Arguments<'_>) -> Line {
        let format = LogFormat::current();
        Line::new(format, level, names(level).0, subject, message)
    }

    /// Formats a message of the log, with its keys `device` and `cause`.
    pub fn record(record: &log::Record<'_>) -> Line {
        let [device, cause] =
            ["device", "cause"].map(|key| record.key_values().get(Key::from(key)));
        let subject = Subject {
            device: device.as_ref().and_then(|device| device.to_borrowed_str()),
            cause: cause.as_ref().and_then(|cause| cause.to_borrowed_str()),
        };
        Line::log(record.level(), subject, *record.args())
    }

    /// Formats the error that ends the tender; the level is not printed.
    pub fn fatal(subject: Subject<'_>, message: fmt::Arguments<'_>) -> Line {
        Line::new(LogFormat::current(), Level::Error, "", subject, message)
    }

    fn new(
        format: LogFormat,
        level: Level,
        label: &str,
        subject: Subject<'_>,
        message: fmt::Arguments<'_>,
    ) -> Line {
        let end = match format {
            LogFormat::Json => origin::longest_end(),
            _ => 1,
        };
        let mut line = Line {
            bytes: [0; LONGEST],
            length: 0,
            room: LONGEST - end,
        };
        // Text beyond the room is cut.
        let _ = match format {
            LogFormat::Text => line.text(label, message),
            LogFormat::Json => line.json(level, subject, message),
            LogFormat::Journald => {
                write!(line, "<{}>", names(level).1).and_then(|()| line.text(label, message))
            }
        };
        line.room = LONGEST;
        if format != LogFormat::Json {
            let _ = line.write_str("\n");
        }
        line
    }

    fn text(&mut self, label: &str, message: fmt::Arguments<'_>) -> fmt::Result {
        self.write_str("tender: ")?;
        if !label.is_empty() {
            write!(self, "{label}: ")?;
        }
        OneLine(self).write_fmt(message)
    }

    fn json(
        &mut self,
        level: Level,
        subject: Subject<'_>,
        message: fmt::Arguments<'_>,
    ) -> fmt::Result {
        let (now, (level, _)) = (Timestamp::now(), names(level));
        write!(self, r#"{{"ts": "{now}", "level": "{level}", "message": ""#)?;
        // Cut, if it is too long; then the end still has its room.
        let _ = Escaped(self).write_fmt(message);
        self.room = LONGEST;
        origin::write_end(self, subject)
    }

    /// Returns the line as it is written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Writes each piece entirely or not at all, and nothing after a piece that did not fit.
impl Write for Line {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let place = self.bytes[..self.room]
            .get_mut(self.length..)
            .and_then(|free| free.get_mut(..piece.len()));
        place.ok_or(fmt::Error)?.copy_from_slice(piece.as_bytes());
        self.length += piece.len();
        Ok(())
    }
}

/// Returns the name of a level, and syslog's number for it.
fn names(level: Level) -> (&'static str, u8) {
    match level {
        Level::Error => ("error", 3),
        Level::Warn => ("warn", 4),
        Level::Info => ("info", 6),
        Level::Debug => ("debug", 7),
        Level::Trace => ("trace", 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, level: Level, label: &str, message: &str) -> String {
        let line = Line::new(
            format,
            level,
            label,
            Subject {
                device: Some("data"),
                cause: Some("full"),
            },
            format_args!("{message}"),
        );
        String::from_utf8(line.bytes().to_vec()).unwrap()
    }

    #[test]
    fn text_and_priorities() {
        assert_eq!(
            line(LogFormat::Text, Level::Warn, "warn", "a\nb"),
            "tender: warn: a\\nb\n"
        );
        assert_eq!(
            line(LogFormat::Text, Level::Error, "", "gone"),
            "tender: gone\n"
        );
        for (level, priority) in [
            (Level::Error, 3),
            (Level::Warn, 4),
            (Level::Info, 6),
            (Level::Debug, 7),
            (Level::Trace, 7),
        ] {
            let expected = format!("<{priority}>tender: x: text\n");
            assert_eq!(line(LogFormat::Journald, level, "x", "text"), expected);
        }
    }

    #[test]
    fn json_has_time_level_and_message() {
        let line = line(LogFormat::Json, Level::Info, "", "disk \"ä\"\n\u{1b}[31m\\");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&object["level"], &object["message"]),
            (&"info".into(), &"disk \"ä\"\n\u{1b}[31m\\".into())
        );
        assert_eq!(object["ts"].as_str().unwrap().len(), Timestamp::LENGTH);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let cause = line.rsplit_once(", \"cause\": ").unwrap().1;
        assert_eq!(cause, "\"full\"}\n");
    }

    /// Wherever the end falls: within a character, or within an escape.
    #[test]
    fn long_lines_are_cut_and_stay_valid() {
        for filler in 0..16 {
            let message = format!("{}{}", "x".repeat(filler), "ä\u{1b}\"".repeat(LONGEST));
            for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journald] {
                let line = line(format, Level::Warn, "warn", &message);
                let room = if format == LogFormat::Json { 160 } else { 16 };
                assert!(
                    line.len() <= LONGEST && line.len() > LONGEST - room,
                    "{}",
                    line.len()
                );
                assert_eq!(line.find('\n'), Some(line.len() - 1));
                if format == LogFormat::Json {
                    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
                    assert!(message.starts_with(object["message"].as_str().unwrap()));
                }
            }
        }
    }
}
