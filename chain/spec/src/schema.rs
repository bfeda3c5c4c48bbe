//! chains.yaml as a JSON Schema, for editors and linters; its descriptions are the doc comments of the types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::parse::{ModuleOptions, RawConfig, RawModule, RawSlot, SlotOptions};
use crate::source::ColumnOptions;
use crate::{
    ColumnSpec, Constant, Database, Loopback, MapRef, ObjectRef, Percentage, Timespan, Verdict, VerdictSet,
};

/// The schema (draft 2020-12). What it cannot say (names that must be declared, orders that cannot be) is left to
/// [`Config::parse`](crate::Config::parse).
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    take_nothing(&mut schema);
    schema
}

/// Lets nothing stand for a mapping or a list that needs nothing, as YAML's readers do.
fn take_nothing(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let needs =
                fields.get("required").and_then(Value::as_array).is_some_and(|needs| !needs.is_empty());
            let needs =
                needs || ["minItems", "minProperties"].iter().any(|least| fields.contains_key(*least));
            if let Some(ty) = fields.get_mut("type")
                && (ty == "object" || ty == "array")
                && !needs
            {
                *ty = Value::Array(vec![ty.take(), "null".into()]);
            }
            fields.values_mut().for_each(take_nothing);
        }
        Value::Array(parts) => parts.iter_mut().for_each(take_nothing),
        _ => {}
    }
}

/// A schema that is written out where it is used.
macro_rules! inline {
    ($type:ty, $name:literal, $generator:ident => $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

inline!(ObjectRef, "Object", _generator => json_schema!({ "type": "string", "minLength": 1 }));
inline!(MapRef, "MapRef", _generator => json_schema!({ "type": "string", "pattern": "^[^/]+/[^/]+$" }));
inline!(Timespan, "Timespan", _generator => json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }));
inline!(Percentage, "Percentage", _generator => json_schema!({
    "type": "string", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,2})? *%$"
}));
inline!(VerdictSet, "Verdicts", generator => json_schema!({
    "type": "array", "items": generator.subschema_for::<Verdict>()
}));
inline!(RawModule, "ModuleOrObject", generator => json_schema!({
    "anyOf": [generator.subschema_for::<ObjectRef>(), generator.subschema_for::<ModuleOptions>()]
}));
inline!(Database, "Database", _generator => json_schema!({
    "type": "string", "pattern": "^(sqlite:.+|postgres(ql)?://.+)$"
}));
inline!(Loopback, "Loopback", _generator => json_schema!({
    "type": "string", "pattern": "^(127\\.[0-9.]+|\\[::1\\]):[0-9]+$"
}));
inline!(Constant, "Constant", _generator => json_schema!({ "type": ["string", "number", "boolean"] }));
inline!(ColumnSpec, "ColumnOrName", generator => json_schema!({
    "anyOf": [{ "type": "string" }, generator.subschema_for::<ColumnOptions>()]
}));
inline!(RawSlot, "Slot", generator => json_schema!({
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": generator.subschema_for::<Option<SlotOptions>>()
        }
    ]
}));
