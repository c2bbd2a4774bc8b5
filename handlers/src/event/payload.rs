//! A payload from JSON text, straight into `google.protobuf.Struct`.
//!
//! Numbers become doubles, because that is what a Struct has: an integer beyond 2^53 is rounded to
//! the nearest one, exactly as a publisher would that fills a Struct. (serde_json's
//! `float_roundtrip` makes decimals exact too; without it the two forms could differ in the last
//! bit.) Of two equal keys in an object the last one counts, as in protobuf's maps.
//!
//! The depth is checked on the way in, so that no deeper value ever exists.

use std::fmt;

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::PAYLOAD_DEPTH_MAX;

/// Reads the payload itself: an object, at depth 1.
pub(super) struct ObjectSeed;

impl<'de> DeserializeSeed<'de> for ObjectSeed {
    type Value = Struct;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Struct, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed {
    type Value = Struct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object as payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Struct, A::Error> {
        object(map, 1)
    }
}

/// Reads any value inside of a payload.
#[derive(Clone, Copy)]
struct ValueSeed {
    /// The depth of an object or array, should the value be one.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self).map(|kind| Value { kind: Some(kind) })
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::NullValue(0))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::BoolValue(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value as f64))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::StringValue(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::StringValue(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Kind, A::Error> {
        let inner = inner_seed(self.depth)?;
        let mut values = Vec::new();
        while let Some(value) = array.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Kind::ListValue(ListValue { values }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Kind, A::Error> {
        object(map, self.depth).map(Kind::StructValue)
    }
}

/// Reads the members of an object at `depth`.
fn object<'de, A: MapAccess<'de>>(mut map: A, depth: usize) -> Result<Struct, A::Error> {
    let inner = inner_seed(depth)?;
    let mut object = Struct::default();
    while let Some(key) = map.next_key()? {
        object.fields.insert(key, map.next_value_seed(inner)?);
    }
    Ok(object)
}

/// For what stands in an object or array at `depth`, if there may be one.
fn inner_seed<E: de::Error>(depth: usize) -> Result<ValueSeed, E> {
    if depth > PAYLOAD_DEPTH_MAX {
        return Err(E::custom(format_args!(
            "payload is nested deeper than {PAYLOAD_DEPTH_MAX} levels"
        )));
    }
    Ok(ValueSeed { depth: depth + 1 })
}
