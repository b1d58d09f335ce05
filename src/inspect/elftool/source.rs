//! The source of a manifest. The parser reads JSON of this one form only, so a file cannot decide
//! how deep a value is nested. Pure. It is as lenient as Solo5's tool about commas and about text
//! after the object.

use guest_abi::manifest::MAX_ENTRIES;

use crate::guest::manifest::is_valid_name;

/// A device as the source declares it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Letters and digits, 67 at most.
    pub name: String,
    /// Its type, the end of a C constant's name: letters, digits and `_`.
    pub kind: String,
}

/// A rule that a source breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// Line, counted from 1.
    pub line: usize,
    /// The rule, or the expected element.
    pub rule: String,
}

/// Parses the devices that a source declares, in its order.
///
/// # Errors
/// The first rule that the source breaks.
pub(super) fn devices(text: &[u8]) -> Result<Vec<Device>, Error> {
    let mut reader = Reader { text, at: 0 };
    let (mut kind, mut version, mut devices) = (None, None, None);
    reader.object("; known keys: type, version, devices", |reader, key| {
        match key {
            "type" => kind = Some(reader.string()?),
            "version" => version = Some(reader.number()?),
            "devices" => devices = Some(reader.devices()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if kind.as_deref() != Some("solo5.manifest") {
        return reader.fail("the type must be \"solo5.manifest\"");
    }
    if version.as_deref() != Some("1") {
        return reader.fail("the version must be 1");
    }
    match devices {
        Some(devices) if devices.len() < MAX_ENTRIES => Ok(devices),
        Some(_) => reader.fail("at most 63 devices are possible"),
        None => reader.fail("no devices are declared; an empty list is \"devices\": []"),
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, rule: impl Into<String>) -> Result<T, Error> {
        let before = &self.text[..self.at.min(self.text.len())];
        Err(Error {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            rule: rule.into(),
        })
    }

    fn expected<T>(&self, what: &str) -> Result<T, Error> {
        self.fail(format!("expected {what}"))
    }

    /// The next byte after white space, if there is one; it is left where it is.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_space = |byte: &&u8| b" \t\r\n".contains(byte);
        self.at += rest.iter().take_while(is_space).count();
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// Skips white space and `byte`; an error calls it `what`.
    fn skip(&mut self, byte: u8, what: &str) -> Result<(), Error> {
        if self.peek() != Some(byte) {
            return self.expected(what);
        }
        self.at += 1;
        Ok(())
    }

    /// Reads items by `item`, up to `close`.
    fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut is_first = true;
        loop {
            match self.peek() {
                Some(byte) if byte == close => break,
                Some(b',') if !is_first => self.at += 1,
                _ => {
                    item(self)?;
                    is_first = false;
                }
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Reads an object. `member` reads the value of a key; it returns false for an unknown key.
    /// `known` lists the keys, for the error.
    fn object(
        &mut self,
        known: &str,
        mut member: impl FnMut(&mut Self, &str) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.skip(b'{', "an object")?;
        self.items(b'}', |reader| {
            let key = reader.string()?;
            reader.skip(b':', "':'")?;
            if member(reader, &key)? {
                return Ok(());
            }
            reader.fail(format!("unknown key '{}'{known}", key.escape_debug()))
        })
    }

    /// Reads a string; invalid UTF-8 and invalid characters become U+FFFD.
    fn string(&mut self) -> Result<String, Error> {
        self.skip(b'"', "a string")?;
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Some(b'\\') => {
                    let character = self.escaped()?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(byte @ b' '..) => bytes.push(byte),
                _ => return self.expected("the end of a string"),
            }
        }
    }

    /// Reads an escape sequence after its `\`.
    fn escaped(&mut self) -> Result<char, Error> {
        match self.next() {
            Some(byte @ (b'"' | b'\\' | b'/')) => Ok(byte.into()),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'u') => {
                let add = |code, byte: &u8| Some(code << 4 | char::from(*byte).to_digit(16)?);
                let digits = self.text.get(self.at..self.at + 4);
                let Some(code) = digits.and_then(|digits| digits.iter().try_fold(0, add)) else {
                    return self.expected("four hexadecimal digits");
                };
                self.at += 4;
                Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            _ => self.expected("one of \"\\/bfnrtu after \\"),
        }
    }

    /// Reads a number as text.
    fn number(&mut self) -> Result<String, Error> {
        if !matches!(self.peek(), Some(b'0'..=b'9' | b'-')) {
            return self.expected("a number");
        }
        let rest = &self.text[self.at..];
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = rest.iter().take_while(is_part).count();
        self.at += length;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn devices(&mut self) -> Result<Vec<Device>, Error> {
        let mut devices = Vec::new();
        self.skip(b'[', "a list")?;
        self.items(b']', |reader| {
            devices.push(reader.device()?);
            Ok(())
        })?;
        Ok(devices)
    }

    fn device(&mut self) -> Result<Device, Error> {
        let (mut name, mut kind) = (None, None);
        self.object(" of a device; known keys: name, type", |reader, key| {
            match key {
                "name" => name = Some(reader.string()?),
                "type" => kind = Some(reader.string()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let Some(name) = name.filter(|name| is_valid_name(name)) else {
            return self.fail("the name of a device must be 1 to 67 letters and digits");
        };
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_constant = |kind: &String| !kind.is_empty() && kind.bytes().all(is_part);
        match kind.filter(is_constant) {
            Some(kind) => Ok(Device { name, kind }),
            None => self.fail("the type of a device must be NET_BASIC or BLOCK_BASIC"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(devices: &str) -> String {
        format!("{{\"type\": \"solo5.manifest\", \"version\": 1, \"devices\": [{devices}]}}")
    }

    fn device(name: &str, kind: &str) -> Device {
        Device {
            name: name.into(),
            kind: kind.into(),
        }
    }

    #[test]
    fn devices_keep_their_order() {
        let text = source(
            "{\"name\": \"b\", \"type\": \"NET_BASIC\"},\n{ \"type\": \"BLOCK_BASIC\", \"name\": \"\\u00611\" }",
        );
        assert_eq!(
            devices(text.as_bytes()),
            Ok(vec![device("b", "NET_BASIC"), device("a1", "BLOCK_BASIC")])
        );
        assert_eq!(devices(source("").as_bytes()), Ok(vec![]));
        assert_eq!(
            devices(b"{\"devices\": [],\n\"version\":1,,\"type\" : \"solo5.manifest\",} more"),
            Ok(vec![])
        );
    }

    #[test]
    fn each_rule_is_named_with_its_line() {
        let name = "the name of a device must be 1 to 67 letters and digits";
        let long = format!(
            "{{\"name\": \"{}\", \"type\": \"NET_BASIC\"}}",
            "x".repeat(68)
        );
        for (text, line, rule) in [
            ("", 1, "expected an object"),
            ("[]", 1, "expected an object"),
            ("{\n", 2, "expected a string"),
            ("{,}", 1, "expected a string"),
            ("{\"type\" 1}", 1, "expected ':'"),
            ("{\"type\": 1}", 1, "expected a string"),
            ("{}", 1, "the type must be \"solo5.manifest\""),
            ("{\"type\": \"solo5.manifest\"}", 1, "the version must be 1"),
            (
                "{\"type\": \"solo5.manifest\",\n\"version\": 1}",
                2,
                "no devices are declared; an empty list is \"devices\": []",
            ),
            (
                "{\"type\": \"solo5.manifest\", \"version\": 1.0, \"devices\": []}",
                1,
                "the version must be 1",
            ),
            ("{\"version\": \"1\"}", 1, "expected a number"),
            ("{\"devices\": {}}", 1, "expected a list"),
            ("{\"devices\": [\n[]]}", 2, "expected an object"),
            (
                "{\"a\\n\": 1}",
                1,
                "unknown key 'a\\n'; known keys: type, version, devices",
            ),
            ("{\"type\": \"x\ny\"}", 2, "expected the end of a string"),
            (
                "{\"type\": \"\\x\"}",
                1,
                "expected one of \"\\/bfnrtu after \\",
            ),
            (
                "{\"type\": \"\\u12g4\"}",
                1,
                "expected four hexadecimal digits",
            ),
            (
                &source("{\"name\": \"a\", \"kind\": 1}"),
                1,
                "unknown key 'kind' of a device; known keys: name, type",
            ),
            (
                &source("{\"name\": \"\", \"type\": \"NET_BASIC\"}"),
                1,
                name,
            ),
            (
                &source("{\"name\": \"a-b\", \"type\": \"NET_BASIC\"}"),
                1,
                name,
            ),
            (&source("{\"type\": \"NET_BASIC\"}"), 1, name),
            (&source(&long), 1, name),
            (
                &source("{\"name\": \"a\"}"),
                1,
                "the type of a device must be NET_BASIC or BLOCK_BASIC",
            ),
            (
                &source("{\"name\": \"a\", \"type\": \"X }, {\"}"),
                1,
                "the type of a device must be NET_BASIC or BLOCK_BASIC",
            ),
        ] {
            assert_eq!(
                devices(text.as_bytes()),
                Err(Error {
                    line,
                    rule: rule.into()
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn there_is_room_for_63_devices() {
        let text =
            |count: usize| source(&"{\"name\": \"a\", \"type\": \"NET_BASIC\"},".repeat(count));
        assert_eq!(
            devices(text(63).as_bytes()).map(|devices| devices.len()),
            Ok(63)
        );
        assert_eq!(
            devices(text(64).as_bytes()).unwrap_err().rule,
            "at most 63 devices are possible"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200), good: bool, at: proptest::sample::Index) {
            let mut bytes = source("{\"name\": \"a\", \"type\": \"NET_BASIC\"}").into_bytes();
            if good { bytes.splice(at.index(bytes.len()).., text) } else { bytes.splice(.., text) };
            if let Ok(devices) = devices(&bytes) {
                prop_assert!(devices.len() < MAX_ENTRIES && devices.iter().all(|device| is_valid_name(&device.name)));
            }
        }
    }
}
