//! Makes text for the operator safe: one line per message, without control characters.

use std::fmt::{self, Write};

/// Returns whether a terminal does not print `c` but obeys it: a control character, or one that
/// changes the direction of text.
pub fn is_unsafe(c: char) -> bool {
    let is_bidirectional =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidirectional
}

/// Escapes characters that [`is_unsafe`] names, so that no name or path in a message starts another line or reaches
/// the terminal.
pub fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    // A string has room for everything.
    let _ = OneLine(&mut line).write_str(message);
    line
}

/// A writer that applies [`one_line`] to everything written to it.
pub struct OneLine<'w, W>(pub &'w mut W);

impl<W: Write> Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if is_unsafe(c) {
                write!(self.0, "{}", c.escape_default())
            } else {
                self.0.write_char(c)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_message_is_one_line_and_harmless_to_a_terminal() {
        assert_eq!(
            one_line("a\nb\r\tc\x1b[31m\u{9b}\0"),
            "a\\nb\\r\\tc\\u{1b}[31m\\u{9b}\\u{0}"
        );
        assert_eq!(
            one_line("\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}"),
            "\\u{200e}\\u{200f}\\u{202a}\\u{202e}\\u{2066}\\u{2069}"
        );
        assert_eq!(one_line("disk 'für mich'"), "disk 'für mich'");
    }
}
