//! From the text of a configuration file to options: what each key stands for, and where it is.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::super::argv;
use super::super::options::{self, Key, Valued};
use super::nearest::{meant, nearest};
use super::{Fault, NamedPath, Place};

/// The keys that are no options: what stands after them on a command line.
const UNIKERNEL: &str = "unikernel";
const ARGUMENTS: &str = "args";

/// What a device's own table calls the value of the option that attaches it: `[net.NAME]` has `tap`, for `--net:NAME`.
/// Its other keys are the options that begin like it: `mac`, for `--net-mac:NAME`.
const ATTACHMENTS: [(&str, &str); 2] = [("net", "tap"), ("block", "path")];

/// What the values of options may be counted in; those may be numbers.
const NUMBERS: [&str; 4] = ["SIZE", "SECONDS", "BYTES", "PORT"];

/// What a file says, in its order.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub entries: Vec<Entry>,
    pub unikernel: Option<NamedPath>,
    pub arguments: Vec<OsString>,
}

/// One option that a file gives.
#[derive(Debug)]
pub(super) struct Entry {
    /// The option's name.
    pub name: String,
    /// The device that it is about; none with the short forms, and with options that are about none.
    pub device: Option<String>,
    /// The option as `words::split` would give it; none for a flag that is not set.
    pub args: Vec<OsString>,
    /// Where its value is.
    pub place: Place,
    /// Its value, if that is a path.
    pub path: Option<NamedPath>,
}

impl Entry {
    /// Whether it is about a device, named or not.
    pub fn is_device(&self) -> bool {
        options::with_value(format!("--{}", self.name).as_bytes())
            .is_some_and(|valued| valued.named.is_some() || self.name == "disk")
    }
}

type Table<'t> = DeTable<'t>;
type Value<'t> = Spanned<DeValue<'t>>;
type Fallible<T = ()> = Result<T, (Place, Fault)>;

impl Content {
    /// Reads the text of a file that lies in `directory`.
    pub fn read(bytes: &[u8], directory: &Path) -> Fallible<Content> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| (Place::of(bytes, error.valid_up_to()), Fault::Encoding))?;
        let table = Table::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            (
                Place::of(bytes, offset),
                Fault::Syntax(argv::shown(error.message().as_bytes())),
            )
        })?;
        let mut reader = Reader {
            bytes,
            directory,
            keys: options::keys(),
            content: Content::default(),
        };
        for (key, value) in in_order(table.get_ref()) {
            reader.top(key, value)?;
        }
        reader.content.entries.sort_by_key(|entry| entry.place);
        Ok(reader.content)
    }
}

/// What a table has, as it stands in the file: mistakes are told from the top.
fn in_order<'t, 'v>(table: &'v Table<'t>) -> Vec<(&'v Spanned<DeString<'t>>, &'v Value<'t>)> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

struct Reader<'f> {
    bytes: &'f [u8],
    directory: &'f Path,
    keys: Vec<(String, Key)>,
    content: Content,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place::of(self.bytes, span.start)
    }

    fn top(&mut self, key: &Spanned<DeString<'_>>, value: &Value<'_>) -> Fallible {
        let name = key.get_ref().as_ref();
        match name {
            UNIKERNEL => {
                let text = self.string(name, value, "a string: the path of an hvt unikernel")?;
                if text.is_empty() {
                    return Err((self.place(value.span()), Fault::NoUnikernel));
                }
                let (path, place) = (self.directory.join(text), self.place(value.span()));
                self.content.unikernel = Some(NamedPath {
                    key: name.to_owned(),
                    path,
                    place,
                    is_made: false,
                });
                return Ok(());
            }
            ARGUMENTS => return self.arguments(value),
            _ => {}
        }
        match self
            .keys
            .iter()
            .position(|(known, _)| known == name)
            .map(|at| &self.keys[at].1)
        {
            None => Err((self.place(key.span()), self.unknown(name))),
            Some(Key::Flag) => self.flag(name, value),
            Some(Key::Count) => self.count(name, value),
            Some(&Key::Valued(valued)) => match value.get_ref() {
                DeValue::Table(devices) if valued.named.is_some() => self.devices(valued, devices),
                _ => self.option(name, valued, None, value),
            },
        }
    }

    /// What is said of a key that does not exist.
    fn unknown(&self, name: &str) -> Fault {
        let key = argv::shown(name.as_bytes());
        if ["config", "check", "help", "version"].contains(&name) {
            return Fault::NotInFiles { key };
        }
        let mut keys = vec![UNIKERNEL, ARGUMENTS];
        keys.extend(self.keys.iter().map(|(name, _)| name.as_str()));
        let hint = match meant(name, &keys) {
            Some(meant) => format!("did you mean '{meant}'?"),
            None => "keys are option names; 'tender --help' lists them".to_owned(),
        };
        Fault::UnknownKey { key, hint }
    }

    fn arguments(&mut self, value: &Value<'_>) -> Fallible {
        let expected = "a list of strings, such as [\"--ipv4=10.0.0.2/24\"]";
        let DeValue::Array(args) = value.get_ref() else {
            return Err(self.mismatch(ARGUMENTS, value, expected));
        };
        for (index, word) in args.iter().enumerate() {
            let word = self.string(&format!("{ARGUMENTS}[{index}]"), word, "a string")?;
            self.content.arguments.push(word.into());
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, value: &Value<'_>) -> Fallible {
        let DeValue::Boolean(set) = *value.get_ref() else {
            return Err(self.mismatch(name, value, "true or false"));
        };
        self.repeat(name, value, usize::from(set));
        Ok(())
    }

    fn count(&mut self, name: &str, value: &Value<'_>) -> Fallible {
        let count = match value.get_ref() {
            DeValue::Boolean(set) => Some(usize::from(*set)),
            DeValue::Integer(number) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let count = count.filter(|count| *count <= 3);
        let count =
            count.ok_or_else(|| self.mismatch(name, value, "true, false, or how often: 0 to 3"))?;
        self.repeat(name, value, count);
        Ok(())
    }

    fn repeat(&mut self, name: &str, value: &Value<'_>, count: usize) {
        let (args, place) = (
            vec![OsString::from(format!("--{name}")); count],
            self.place(value.span()),
        );
        self.content.entries.push(Entry {
            name: name.to_owned(),
            device: None,
            args,
            place,
            path: None,
        });
    }

    /// `[net]` and `[block]`, and what else names devices: each by its name.
    fn devices(&mut self, valued: &'static Valued, devices: &Table<'_>) -> Fallible {
        for (device, value) in in_order(devices) {
            let name = device.get_ref().as_ref();
            let key = format!("{}.{}", valued.name, argv::shown(name.as_bytes()));
            let option = format!("--{}:{name}", valued.name);
            argv::check_name(option.as_bytes(), name.as_bytes())
                .map_err(|error| (self.place(device.span()), Fault::Option(Box::new(error))))?;
            match (
                value.get_ref(),
                ATTACHMENTS
                    .iter()
                    .find(|(option, _)| *option == valued.name),
            ) {
                (DeValue::Table(properties), Some((_, attachment))) => {
                    self.device(valued, attachment, name, properties)?;
                }
                _ => self.option(&key, valued, Some(name), value)?,
            }
        }
        Ok(())
    }

    /// `[net.NAME]` and `[block.NAME]`.
    fn device(
        &mut self,
        valued: &'static Valued,
        attachment: &str,
        device: &str,
        table: &Table<'_>,
    ) -> Fallible {
        let prefix = format!("{}-", valued.name);
        for (property, value) in in_order(table) {
            let name = property.get_ref().as_ref();
            let of_devices = |name: &str, key: &Key| match key {
                Key::Valued(valued) if valued.named.is_some() => name
                    .strip_prefix(&prefix)
                    .map(|rest| (rest.to_owned(), *valued)),
                _ => None,
            };
            let mut known: Vec<_> = self
                .keys
                .iter()
                .filter_map(|(name, key)| of_devices(name, key))
                .collect();
            known.insert(0, (attachment.to_owned(), valued));
            let key = |property: &str| {
                format!(
                    "{}.{device}.{}",
                    valued.name,
                    argv::shown(property.as_bytes())
                )
            };
            let Some((_, option)) = known.iter().find(|(known, _)| known == name) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
                let hint = match nearest(name, names.iter().copied()) {
                    Some(meant) => format!("did you mean '{}'?", key(meant)),
                    None => format!("a device has {}", names.join(", ")),
                };
                return Err((
                    self.place(property.span()),
                    Fault::UnknownKey {
                        key: key(name),
                        hint,
                    },
                ));
            };
            self.option(&key(name), option, Some(device), value)?;
        }
        Ok(())
    }

    /// Notes the option `valued`.
    fn option(
        &mut self,
        key: &str,
        valued: &'static Valued,
        device: Option<&str>,
        value: &Value<'_>,
    ) -> Fallible {
        let is_number = NUMBERS.contains(&valued.value);
        let text = match value.get_ref() {
            DeValue::Integer(number) if is_number => decimal(number.as_str(), number.radix()),
            found => {
                let is_table = matches!(found, DeValue::Table(_));
                let (number, others) = match valued.named {
                    _ if is_number => ("a whole number or ", ""),
                    Some(_) if device.is_none() => ("", ", or a table of devices"),
                    None if is_table && valued.name == "disk" => {
                        ("", "; a device with a name is [block.NAME]")
                    }
                    _ => ("", ""),
                };
                self.string(
                    key,
                    value,
                    &format!("{number}a string: {}{others}", valued.value),
                )?
                .to_owned()
            }
        };
        let place = self.place(value.span());
        let (text, path) = match path_in(valued.value, &text) {
            Some((before, path)) if !path.is_empty() => {
                let path = self.directory.join(path);
                let mut text = OsString::from(before);
                text.push(&path);
                // Figures and sockets are made.
                let is_made = !(before.is_empty()
                    && (valued.value.starts_with("PATH") || valued.value == "DIR"));
                (
                    text,
                    Some(NamedPath {
                        key: key.to_owned(),
                        path,
                        place,
                        is_made,
                    }),
                )
            }
            _ => (OsString::from(text), None),
        };
        let mut word = OsString::from(match (device, valued.named) {
            (Some(device), Some(named)) => format!("--{named}={device}="),
            _ => format!("--{}=", valued.name),
        });
        word.push(text);
        let device = device.map(str::to_owned);
        self.content.entries.push(Entry {
            name: valued.name.to_owned(),
            device,
            args: vec![word],
            place,
            path,
        });
        Ok(())
    }

    fn string<'v>(&self, key: &str, value: &'v Value<'_>, expected: &str) -> Fallible<&'v str> {
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => Err((
                self.place(value.span()),
                Fault::Nul {
                    key: key.to_owned(),
                },
            )),
            DeValue::String(text) => Ok(text),
            _ => Err(self.mismatch(key, value, expected)),
        }
    }

    fn mismatch(&self, key: &str, value: &Value<'_>, expected: &str) -> (Place, Fault) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (key, expected) = (key.to_owned(), expected.to_owned());
        (
            self.place(value.span()),
            Fault::Type {
                key,
                found,
                expected,
            },
        )
    }
}

/// The string that the key `name` outside of all tables has, as far as the text can be read.
pub(super) fn top_string(bytes: &[u8], name: &str) -> Option<String> {
    let (table, _) = Table::parse_recoverable(std::str::from_utf8(bytes).ok()?);
    Some(table.get_ref().get(name)?.get_ref().as_str()?.to_owned())
}

/// A number of a file as a command line has it.
fn decimal(digits: &str, radix: u32) -> String {
    i128::from_str_radix(digits, radix)
        .map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

/// Where in `value` a path is, going by what the help text calls the value, such as `PATH`, `FILE|-` or `unix:PATH`:
/// what is before the path, and the path.
pub(super) fn path_in<'v>(form: &str, value: &'v str) -> Option<(&'v str, &'v str)> {
    let parts = form.split('|').map(|part| {
        part.split_at(
            part.find(|c: char| c.is_ascii_uppercase())
                .unwrap_or(part.len()),
        )
    });
    let fits = |&(before, name): &(&str, &str)| {
        if name.is_empty() {
            value == before
        } else {
            value.starts_with(before)
        }
    };
    let (before, name) = parts
        .filter(fits)
        .max_by_key(|(before, name)| (name.is_empty(), before.len()))?;
    ["PATH", "FILE", "DIR"]
        .contains(&name)
        .then(|| value.split_at(before.len()))
}
