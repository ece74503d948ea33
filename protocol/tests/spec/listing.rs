//! Bytes as SPEC.md shows them: a line a field, with what it means behind `#`.

use std::fmt::Write as _;

use crate::proto_file::Schema;

const BYTES_PER_LINE: usize = 16;
const REMARK_COLUMN: usize = 50;

/// Lists an encoded message, after a 4-byte length if it is a TCP frame.
pub(crate) fn listing(schema: &Schema, message: &str, encoded: &[u8], is_frame: bool) -> String {
    let mut out = String::new();
    if is_frame {
        let length = u32::try_from(encoded.len())
            .expect("a short example")
            .to_be_bytes();
        line(&mut out, 0, &length, &format!("length = {}", encoded.len()));
    }
    fields(&mut out, schema, message, encoded, 0);
    out
}

fn fields(out: &mut String, schema: &Schema, message: &str, mut rest: &[u8], depth: usize) {
    while !rest.is_empty() {
        let start = rest;
        let (key, after_key) = varint(rest);
        let field = schema.field(message, key >> 3).expect("a declared field");
        let kind = field.kind.trim_start_matches("repeated ");
        let name = &field.name;
        match key & 7 {
            0 => {
                let (value, after) = varint(after_key);
                line(
                    out,
                    depth,
                    taken(start, after),
                    &number(schema, kind, name, value),
                );
                rest = after;
            }
            1 => {
                let (value, after) = after_key.split_first_chunk().expect("eight bytes");
                let value = u64::from_le_bytes(*value);
                line(
                    out,
                    depth,
                    taken(start, after),
                    &format!("{name} = {value}"),
                );
                rest = after;
            }
            2 => {
                let (length, after) = varint(after_key);
                let length = usize::try_from(length).expect("a short example");
                let (value, after) = after.split_at(length);
                if schema.messages.contains_key(kind) {
                    let head = &start[..start.len() - after.len() - length];
                    line(out, depth, head, &format!("{name}: {kind}, {length} bytes"));
                    fields(out, schema, kind, value, depth + 1);
                } else {
                    let remark = format!("{name} = {}", plain(kind, value));
                    line(out, depth, taken(start, after), &remark);
                }
                rest = after;
            }
            other => panic!("wire type {other} is not in use"),
        }
    }
}

fn taken<'a>(start: &'a [u8], after: &[u8]) -> &'a [u8] {
    &start[..start.len() - after.len()]
}

fn number(schema: &Schema, kind: &str, name: &str, value: u64) -> String {
    let meaning = schema.enums.get(kind).and_then(|values| {
        let named = values.iter().find(|(number, _)| *number == value);
        named.map(|(_, meaning)| meaning)
    });
    match meaning {
        Some(meaning) => format!("{name} = {value}, {meaning}"),
        None if kind == "bool" => format!("{name} = {}", value == 1),
        None => format!("{name} = {value}"),
    }
}

fn plain(kind: &str, value: &[u8]) -> String {
    match kind {
        "string" => format!("\"{}\"", String::from_utf8_lossy(value)),
        "bytes" => format!("{} bytes", value.len()),
        _ => {
            let mut numbers = Vec::new();
            let mut rest = value;
            while !rest.is_empty() {
                let (number, after) = varint(rest);
                numbers.push(number.to_string());
                rest = after;
            }
            format!("[{}]", numbers.join(", "))
        }
    }
}

fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (value, &bytes[at + 1..]);
        }
    }
    panic!("a varint is cut off");
}

fn line(out: &mut String, depth: usize, bytes: &[u8], remark: &str) {
    for (at, chunk) in bytes.chunks(BYTES_PER_LINE).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.join(" ");
        let indent = "  ".repeat(depth);
        if at == 0 {
            let _ = writeln!(out, "{hex:REMARK_COLUMN$}# {indent}{remark}");
        } else {
            let _ = writeln!(out, "{hex}");
        }
    }
}
