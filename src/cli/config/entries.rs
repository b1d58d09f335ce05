//! Converts the text of a configuration file to options, with their places.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::super::argv::shown;
use super::super::error::{ONE_PROCESSOR, PROCESSORS};
use super::super::options::{self, Kind, OPTIONS, OptionValue, Spec, apply};
use super::nearest::meant;
use super::syntax::syntax_errors;
use super::{Fault, NamedPath, Place};
use crate::config::Config;
use crate::host::similar::nearest;

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

/// Most errors of one file that are printed.
pub(in crate::cli) const MOST_ERRORS: usize = 8;

impl Content {
    /// Parses the text of `file`, and checks the values of all options. Returns the first
    /// errors: [`MOST_ERRORS`], and one more if there are more.
    pub(super) fn read(bytes: &[u8], file: &Path) -> Result<Content, Vec<(Place, Fault)>> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| vec![(Place::of(bytes, error.valid_up_to()), Fault::Encoding)])?;
        let (table, errors) = Table::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax_errors(text, &errors));
        }
        let mut reader = Reader {
            bytes,
            file,
            directory: file.parent().unwrap_or(Path::new("")),
            content: Content::default(),
            errors: Vec::new(),
        };
        for (key, value) in in_order(table.get_ref()) {
            if reader.is_full() {
                break;
            }
            let read = reader.top(key, value);
            reader.note(read);
        }
        let Reader {
            mut content,
            mut errors,
            ..
        } = reader;
        content.entries.sort_by_key(|entry| entry.place);
        while errors.len() <= MOST_ERRORS {
            let options = content.entries.iter().map(|entry| &entry.option);
            let Err((index, error)) = apply(&mut Config::default(), options) else {
                break;
            };
            let place = content.entries.remove(index).place;
            errors.push((place, Fault::Option(Box::new(error))));
        }
        errors.sort_by_key(|(place, _)| *place);
        if errors.is_empty() {
            Ok(content)
        } else {
            Err(errors)
        }
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
    file: &'f Path,
    directory: &'f Path,
    content: Content,
    errors: Vec<(Place, Fault)>,
}

impl Reader<'_> {
    /// Keeps an error, so that later ones are found too.
    fn note(&mut self, result: Fallible) {
        self.errors.extend(result.err());
    }

    /// Returns whether there are more errors than are printed. Reading ends then, because the place
    /// of each costs a pass over the file.
    fn is_full(&self) -> bool {
        self.errors.len() > MOST_ERRORS
    }

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
        let expected = "a list of strings, such as [\"--ipv4=10.100.0.2/24\"]";
        let DeValue::Array(args) = value.get_ref() else {
            return Err(self.mismatch(ARGUMENTS, value, expected));
        };
        for (index, argument) in args.iter().enumerate() {
            if self.is_full() {
                break;
            }
            match self.string(&format!("{ARGUMENTS}[{index}]"), argument, "a string") {
                Ok(argument) => self.content.arguments.push(argument.into()),
                Err(error) => self.errors.push(error),
            }
        }
        Ok(())
    }

    /// Reads `[net]`, `[block]` and other tables of devices by name.
    fn devices(&mut self, spec: &'static Spec, devices: &Table<'_>) -> Fallible {
        for (device, value) in in_order(devices) {
            if self.is_full() {
                break;
            }
            let name = (device.get_ref().as_ref(), self.place(device.span()));
            let read = self.named(spec, name, value);
            self.note(read);
        }
        Ok(())
    }

    /// Reads the entry of a device in such a table.
    fn named(&mut self, spec: &'static Spec, device: (&str, Place), value: &Value<'_>) -> Fallible {
        let (table, (name, place)) = (spec.name(), device);
        let has_tables = spec.property.is_some_and(|(of, _)| of == table);
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        if has_tables && !is_table && properties(table).any(|(property, _)| property == name) {
            let key = format!("{table}.{name}");
            return Err((place, Fault::NoDevice { key, table }));
        }
        spec.device_name(name.as_bytes())
            .map_err(|error| (place, Fault::Option(Box::new(error))))?;
        match value.get_ref() {
            DeValue::Table(properties) if has_tables => {
                for (property, value) in in_order(properties) {
                    if self.is_full() {
                        break;
                    }
                    let read = self.property(table, device, property, value);
                    self.note(read);
                }
                Ok(())
            }
            _ => self.option(&format!("{table}.{name}"), spec, Some(device), value),
        }
    }

    /// Reads an entry of `[net.NAME]` or `[block.NAME]`.
    fn property(
        &mut self,
        table: &'static str,
        device: (&str, Place),
        property: &Spanned<DeString<'_>>,
        value: &Value<'_>,
    ) -> Fallible {
        let name = property.get_ref().as_ref();
        let key = |property: &str| format!("{table}.{}.{}", device.0, shown(property.as_bytes()));
        if let Some((_, spec)) = properties(table).find(|(known, _)| *known == name) {
            return self.option(&key(name), spec, Some(device), value);
        }
        let names: Vec<&str> = properties(table).map(|(name, _)| name).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean '{}'?", key(meant)),
            None => format!("a device has {}", names.join(", ")),
        };
        let key = key(name);
        Err((self.place(property.span()), Fault::UnknownKey { key, hint }))
    }

    /// Records an option, as often as it is given. A device has a name and its place.
    fn option(
        &mut self,
        key: &str,
        spec: &'static Spec,
        device: Option<(&str, Place)>,
        value: &Value<'_>,
    ) -> Fallible {
        let place = self.place(value.span());
        let (name, named_at) = device.unzip();
        let (count, text) = self.value(key, spec, name, value)?;
        let mut option = spec.given(name.map(str::to_owned), &*text);
        let named_at = named_at.unwrap_or(place);
        option.in_file = Some(format!("{}:{named_at}", self.file.display()));
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

/// Returns the keys in a table of one device, with their options.
fn properties(table: &str) -> impl Iterator<Item = (&'static str, &'static Spec)> {
    OPTIONS.iter().filter_map(move |spec| match spec.property? {
        (of, property) if of == table => Some((property, spec)),
        _ => None,
    })
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
        _ if PROCESSORS.contains(&name) => ONE_PROCESSOR.to_owned(),
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
