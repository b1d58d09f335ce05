//! A validator for the part of JSON Schema that this repository's schemas use. An unknown keyword
//! fails the test, so that no keyword is silently ignored.

use serde_json::{Map, Value};

/// Checks `value` against `schema`, and that the schema declares every member of every object in
/// it.
#[track_caller]
pub fn check(schema: &Value, value: &Value) {
    let checker = Checker { root: schema };
    if let Err(error) = checker.check(schema, value, "document") {
        panic!("{error}: {value:#}");
    }
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        for (keyword, rule) in schema.as_object().expect("a schema is an object") {
            let holds = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    self.check(self.definition(rule), value, at)?;
                    true
                }
                "type" => types(rule).any(|name| has_type(value, name)),
                "const" => value == rule,
                "enum" => rule.as_array().expect("a list").contains(value),
                "minimum" => value
                    .as_u64()
                    .is_none_or(|number| number >= rule.as_u64().expect("a number")),
                "maximum" => value
                    .as_u64()
                    .is_none_or(|number| number <= rule.as_u64().expect("a number")),
                "required" => value.as_object().is_none_or(|members| {
                    rule.as_array()
                        .expect("a list")
                        .iter()
                        .all(|name| members.contains_key(name.as_str().expect("a name")))
                }),
                "properties" => {
                    let known = rule.as_object().expect("an object");
                    value
                        .as_object()
                        .map_or(Ok(()), |members| self.check_members(known, members, at))?;
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}[{index}]"))?;
                    }
                    true
                }
                other => panic!("nothing checks the keyword {other:?}"),
            };
            if !holds {
                return Err(format!("{at} breaks {keyword}: {rule}"));
            }
        }
        Ok(())
    }

    fn check_members(
        &self,
        known: &Map<String, Value>,
        members: &Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        for (name, member) in members {
            let schema = known
                .get(name)
                .ok_or_else(|| format!("{at}.{name} is not in the schema"))?;
            self.check(schema, member, &format!("{at}.{name}"))?;
        }
        Ok(())
    }

    fn definition(&self, reference: &Value) -> &Value {
        let path = reference
            .as_str()
            .and_then(|path| path.strip_prefix('#'))
            .expect("a definition of this schema");
        self.root.pointer(path).expect("a definition that is there")
    }
}

/// The type or types that a `type` allows.
fn types(rule: &Value) -> impl Iterator<Item = &str> {
    let one = rule.as_str().into_iter();
    one.chain(
        rule.as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str),
    )
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("nothing has the type {other:?}"),
    }
}
