//! Reading one field: a value of the type and range that the field must have, or an error that
//! names it.

use crate::error::PacketError;
use crate::tnetstring::{List, Map, Value};

pub(crate) fn bytes_of<'a>(value: Value<'a>, field: &'static str) -> Result<&'a [u8], PacketError> {
    let Value::Bytes(bytes) = value else { return Err(PacketError::field(field, "a byte string")) };
    Ok(bytes)
}

pub(crate) fn str_of<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, PacketError> {
    std::str::from_utf8(bytes_of(value, field)?).map_err(|_| PacketError::field(field, "UTF-8"))
}

pub(crate) fn bool_of(value: Value<'_>, field: &'static str) -> Result<bool, PacketError> {
    let Value::Bool(value) = value else { return Err(PacketError::field(field, "a boolean")) };
    Ok(value)
}

pub(crate) fn list_of<'a>(value: Value<'a>, field: &'static str) -> Result<List<'a>, PacketError> {
    let Value::List(list) = value else { return Err(PacketError::field(field, "a list")) };
    Ok(list)
}

pub(crate) fn map_of<'a>(value: Value<'a>, field: &'static str) -> Result<Map<'a>, PacketError> {
    let Value::Map(map) = value else { return Err(PacketError::field(field, "a map")) };
    Ok(map)
}

pub(crate) fn u64_of(value: Value<'_>, field: &'static str) -> Result<u64, PacketError> {
    let Value::Int(value) = value else { return Err(PacketError::field(field, "an integer")) };
    u64::try_from(value).map_err(|_| PacketError::field(field, "an integer from 0"))
}

pub(crate) fn u32_of(value: Value<'_>, field: &'static str) -> Result<u32, PacketError> {
    u32::try_from(u64_of(value, field)?)
        .map_err(|_| PacketError::field(field, "an integer from 0 to 4294967295"))
}

pub(crate) fn u16_of(value: Value<'_>, field: &'static str) -> Result<u16, PacketError> {
    u16::try_from(u64_of(value, field)?)
        .map_err(|_| PacketError::field(field, "an integer from 0 to 65535"))
}
