//! Strict reading of JSON objects whose fields depend on a tag: serde's `deny_unknown_fields` does not reach through
//! `flatten`, so the fields common to all are taken out first and what remains must fit one struct.

use std::net::{IpAddr, SocketAddr};

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Takes a field out of an object; absent and null are the same.
pub(super) fn take<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, serde_json::Error> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| serde_json::Error::custom(format!("{name}: {error}"))),
    }
}

/// Takes a field out of an object that must have it.
pub(super) fn need<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<T, serde_json::Error> {
    take(fields, name)?.ok_or_else(|| serde_json::Error::custom(format!("missing field `{name}`")))
}

/// What remains of an object, as a struct that must know every field.
pub(super) fn rest<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(fields))
}

/// Nothing may remain of an object.
pub(super) fn nothing_left(fields: &Map<String, Value>) -> Result<(), serde_json::Error> {
    match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(serde_json::Error::custom(format!("unknown field `{name}`"))),
    }
}

/// Bytes from hex digits.
pub(super) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8).ok_or_else(|| format!("{c:?} is not a hex digit")))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(format!("an odd number of hex digits: {}", digits.len()));
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Hex digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `a.b.c.d:port`, `[v6]:port`, or an address alone, whose port is 0.
pub(super) fn parse_endpoint(text: &str) -> Result<SocketAddr, String> {
    if let Ok(endpoint) = text.parse() {
        return Ok(endpoint);
    }
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr =
        address.parse().map_err(|_| format!("{text:?} is not an address or address:port"))?;
    Ok(SocketAddr::new(address, 0))
}

/// For `deserialize_with`: see [`parse_endpoint`].
pub(super) fn endpoint<'de, D: Deserializer<'de>>(input: D) -> Result<SocketAddr, D::Error> {
    parse_endpoint(&String::deserialize(input)?).map_err(D::Error::custom)
}

/// Bytes written as hex digits.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Hex(pub Vec<u8>);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        unhex(&String::deserialize(input)?).map(Hex).map_err(D::Error::custom)
    }
}

/// A value of a setting: a number stands for its digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(pub String);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Value::deserialize(input)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            other => Err(D::Error::custom(format!("a setting is a string or a number, not {other}"))),
        }
    }
}
