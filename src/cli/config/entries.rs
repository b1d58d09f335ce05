//! Converts the text of a configuration file to options, with their places.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::super::argv::shown;
use super::super::options::{self, Kind, OPTIONS, OptionValue, Spec, apply};
use super::nearest::{meant, nearest};
use super::{Fault, NamedPath, Place};
use crate::config::Config;

/// Keys that are no options but arguments of the command line.
const UNIKERNEL: &str = "unikernel";
const ARGUMENTS: &str = "args";

/// The content of a file, in its order.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub entries: Vec<Entry>,
    pub unikernel: Option<NamedPath>,
    pub arguments: Vec<OsString>,
}

/// One option of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub option: OptionValue,
    /// The place of its value.
    pub place: Place,
    /// Its value, if that is a path.
    pub path: Option<NamedPath>,
}

type Table<'t> = DeTable<'t>;
type Value<'t> = Spanned<DeValue<'t>>;
type Fallible<T = ()> = Result<T, (Place, Fault)>;

impl Content {
    /// Parses the text of a file in `directory`, and checks the values of all options.
    pub(super) fn read(bytes: &[u8], directory: &Path) -> Fallible<Content> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| (Place::of(bytes, error.valid_up_to()), Fault::Encoding))?;
        let table = Table::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let message = shown(error.message().as_bytes());
            (Place::of(bytes, offset), Fault::Syntax(message))
        })?;
        let mut reader = Reader {
            bytes,
            directory,
            content: Content::default(),
        };
        for (key, value) in in_order(table.get_ref()) {
            reader.top(key, value)?;
        }
        let mut content = reader.content;
        content.entries.sort_by_key(|entry| entry.place);
        let options = content.entries.iter().map(|entry| &entry.option);
        apply(&mut Config::default(), options).map_err(|(index, error)| {
            let place = content.entries[index].place;
            (place, Fault::Option(Box::new(error)))
        })?;
        Ok(content)
    }
}

/// Returns the entries of a table in the order of the file, so that the first error is reported.
fn in_order<'t, 'v>(table: &'v Table<'t>) -> Vec<(&'v Spanned<DeString<'t>>, &'v Value<'t>)> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

struct Reader<'f> {
    bytes: &'f [u8],
    directory: &'f Path,
    content: Content,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place::of(self.bytes, span.start)
    }

    fn top(&mut self, key: &Spanned<DeString<'_>>, value: &Value<'_>) -> Fallible {
        let name = key.get_ref().as_ref();
        match name {
            UNIKERNEL => return self.unikernel(value),
            ARGUMENTS => return self.arguments(value),
            _ => {}
        }
        let spec = options::named(name.as_bytes())
            .filter(|spec| spec.in_files)
            .ok_or_else(|| (self.place(key.span()), unknown(name)))?;
        match value.get_ref() {
            DeValue::Table(devices) if spec.takes_device() => self.devices(spec, devices),
            _ => self.option(name, spec, None, value),
        }
    }

    fn unikernel(&mut self, value: &Value<'_>) -> Fallible {
        let place = self.place(value.span());
        let expected = "a string: the path of an hvt unikernel";
        let text = self.string(UNIKERNEL, value, expected)?;
        if text.is_empty() {
            return Err((place, Fault::NoUnikernel));
        }
        self.content.unikernel = Some(NamedPath {
            key: UNIKERNEL.to_owned(),
            path: self.directory.join(text),
            place,
            is_created: false,
        });
        Ok(())
    }

    fn arguments(&mut self, value: &Value<'_>) -> Fallible {
        let expected = "a list of strings, such as [\"--ipv4=10.0.0.2/24\"]";
        let DeValue::Array(args) = value.get_ref() else {
            return Err(self.mismatch(ARGUMENTS, value, expected));
        };
        for (index, argument) in args.iter().enumerate() {
            let argument = self.string(&format!("{ARGUMENTS}[{index}]"), argument, "a string")?;
            self.content.arguments.push(argument.into());
        }
        Ok(())
    }

    /// Reads `[net]`, `[block]` and other tables of devices by name.
    fn devices(&mut self, spec: &'static Spec, devices: &Table<'_>) -> Fallible {
        let has_tables = spec.property.is_some_and(|(table, _)| table == spec.name());
        for (device, value) in in_order(devices) {
            let name = device.get_ref().as_ref();
            spec.device_name(name.as_bytes())
                .map_err(|error| (self.place(device.span()), Fault::Option(Box::new(error))))?;
            match value.get_ref() {
                DeValue::Table(properties) if has_tables => {
                    self.device(spec.name(), name, properties)?;
                }
                _ => self.option(&format!("{}.{name}", spec.name()), spec, Some(name), value)?,
            }
        }
        Ok(())
    }

    /// Reads `[net.NAME]` and `[block.NAME]`.
    fn device(&mut self, kind: &str, device: &str, properties: &Table<'_>) -> Fallible {
        let known = OPTIONS.iter().filter_map(|spec| match spec.property? {
            (table, property) if table == kind => Some((property, spec)),
            _ => None,
        });
        for (property, value) in in_order(properties) {
            let name = property.get_ref().as_ref();
            let key = |property: &str| format!("{kind}.{device}.{}", shown(property.as_bytes()));
            let Some((_, spec)) = known.clone().find(|(known, _)| *known == name) else {
                let names: Vec<&str> = known.map(|(name, _)| name).collect();
                let hint = match nearest(name, names.iter().copied()) {
                    Some(meant) => format!("did you mean '{}'?", key(meant)),
                    None => format!("a device has {}", names.join(", ")),
                };
                let key = key(name);
                return Err((self.place(property.span()), Fault::UnknownKey { key, hint }));
            };
            self.option(&key(name), spec, Some(device), value)?;
        }
        Ok(())
    }

    /// Records an option, as often as it is given.
    fn option(
        &mut self,
        key: &str,
        spec: &'static Spec,
        device: Option<&str>,
        value: &Value<'_>,
    ) -> Fallible {
        let place = self.place(value.span());
        let (count, text) = self.value(key, spec, device, value)?;
        let mut option = spec.given(device.map(str::to_owned), &*text);
        option.fallback = true;
        let mut named = None;
        if let Some((before, path)) = path_in(spec.value.0, &text) {
            let path = self.directory.join(path);
            option.value = OsString::from(before);
            option.value.push(&path);
            named = Some(NamedPath {
                key: key.to_owned(),
                path,
                place,
                is_created: matches!(spec.value.0, Kind::NewFile | Kind::Socket | Kind::Port),
            });
        }
        for _ in 0..count {
            self.content.entries.push(Entry {
                option: option.clone(),
                place,
                path: named.clone(),
            });
        }
        Ok(())
    }

    /// Returns how often an option is given, and its value.
    fn value<'v>(
        &self,
        key: &str,
        spec: &Spec,
        device: Option<&str>,
        value: &'v Value<'_>,
    ) -> Fallible<(usize, Cow<'v, str>)> {
        let expected = expected(spec, device, value.get_ref());
        match (spec.value.0, value.get_ref()) {
            (Kind::Flag | Kind::Count, DeValue::Boolean(set)) => Ok((usize::from(*set), "".into())),
            (Kind::Count, DeValue::Integer(number)) => match decimal(number).parse() {
                Ok(count @ 0..=3) if !number.as_str().starts_with('-') => Ok((count, "".into())),
                _ => Err(self.mismatch(key, value, &expected)),
            },
            (Kind::Flag | Kind::Count, _) => Err(self.mismatch(key, value, &expected)),
            (Kind::Number | Kind::Port, DeValue::Integer(number)) => {
                Ok((1, decimal(number).into()))
            }
            _ => Ok((1, self.string(key, value, &expected)?.into())),
        }
    }

    fn string<'v>(&self, key: &str, value: &'v Value<'_>, expected: &str) -> Fallible<&'v str> {
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                let key = key.to_owned();
                Err((self.place(value.span()), Fault::Nul { key }))
            }
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
        let fault = Fault::Type {
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
        };
        (self.place(value.span()), fault)
    }
}

/// Returns the string value of the top-level key `name`, as far as the text can be parsed.
pub(super) fn top_string(bytes: &[u8], name: &str) -> Option<String> {
    let (table, _) = Table::parse_recoverable(std::str::from_utf8(bytes).ok()?);
    Some(table.get_ref().get(name)?.get_ref().as_str()?.to_owned())
}

/// Converts a TOML number to the value of an option.
fn decimal(number: &DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())
}

/// Returns the error for an unknown key.
fn unknown(name: &str) -> Fault {
    let key = shown(name.as_bytes());
    if options::named(name.as_bytes()).is_some() {
        return Fault::NotInFiles { key };
    }
    let options = OPTIONS.iter().filter(|spec| spec.in_files).map(Spec::name);
    let keys: Vec<&str> = [UNIKERNEL, ARGUMENTS].into_iter().chain(options).collect();
    let hint = match meant(name, &keys) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => "keys are option names; 'tender --help' lists them".to_owned(),
    };
    Fault::UnknownKey { key, hint }
}

/// Describes the values that an option accepts instead of `found`.
fn expected(spec: &Spec, device: Option<&str>, found: &DeValue<'_>) -> String {
    let ((kind, value), is_table) = (spec.value, matches!(found, DeValue::Table(_)));
    match (kind, spec.same_as) {
        (Kind::Flag, _) => "true or false".to_owned(),
        (Kind::Count, _) => "true, false, or how often: 0 to 3".to_owned(),
        (Kind::Number | Kind::Port, _) => format!("a whole number or a string: {value}"),
        _ if spec.takes_device() && device.is_none() => {
            format!("a string: {value}, or a table of devices")
        }
        (_, Some(other)) if is_table => {
            format!("a string: {value}; a device with a name is [{other}.NAME]")
        }
        _ => format!("a string: {value}"),
    }
}

/// Splits `value` before the path in it, if there is one.
pub(super) fn path_in(kind: Kind, value: &str) -> Option<(&str, &str)> {
    let before = match kind {
        Kind::Directory => "",
        Kind::File if !value.starts_with('@') => "",
        Kind::NewFile if value != "-" => "",
        Kind::Socket | Kind::Port if !value.starts_with("unix:@") => "unix:",
        _ => return None,
    };
    let path = value.strip_prefix(before).filter(|path| !path.is_empty())?;
    Some((before, path))
}
