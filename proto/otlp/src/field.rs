//! Fields of protobuf messages, whose numbers are below 16: their keys are one byte.

use prost::encoding::WireType;
use prost::encoding::encode_varint;
use prost::encoding::encoded_len_varint;

/// Length of a length-delimited field.
pub(crate) fn bytes_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Length of an integer field.
pub(crate) fn varint_len(value: u64) -> usize {
    1 + encoded_len_varint(value)
}

fn key(field: u32, wire_type: WireType, out: &mut Vec<u8>) {
    debug_assert!(field < 16, "its key takes two bytes");
    out.push((field << 3) as u8 | wire_type as u8);
}

/// Nearly every length is one byte long.
#[inline]
fn bare(value: u64, out: &mut Vec<u8>) {
    if value < 128 {
        out.push(value as u8);
    } else {
        encode_varint(value, out);
    }
}

pub(crate) fn head(field: u32, len: usize, out: &mut Vec<u8>) {
    key(field, WireType::LengthDelimited, out);
    bare(len as u64, out);
}

pub(crate) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    head(field, value.len(), out);
    out.extend_from_slice(value);
}

pub(crate) fn varint(field: u32, value: u64, out: &mut Vec<u8>) {
    key(field, WireType::Varint, out);
    bare(value, out);
}

pub(crate) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An attribute: a `KeyValue` whose `AnyValue` is a string.
pub(crate) fn text(field: u32, key: &str, value: &str, out: &mut Vec<u8>) {
    let any_len = bytes_len(value.len());
    head(field, bytes_len(key.len()) + bytes_len(any_len), out);
    bytes(1, key.as_bytes(), out);
    head(2, any_len, out);
    bytes(1, value.as_bytes(), out);
}

/// An attribute: a `KeyValue` whose `AnyValue` is an integer.
pub(crate) fn number(field: u32, key: &str, value: u64, out: &mut Vec<u8>) {
    // Negative beyond this: no time is that long.
    let value = value.min(i64::MAX as u64);
    let any_len = varint_len(value);
    head(field, bytes_len(key.len()) + bytes_len(any_len), out);
    bytes(1, key.as_bytes(), out);
    head(2, any_len, out);
    varint(3, value, out);
}
