//! Holds SPEC.md against the `.proto` files, the constants and the code: what is
//! in one and not in the other fails here.
//!
//! `UPDATE_SPEC=1 cargo test -p sluice-protocol --test spec` writes the example
//! frames anew.

mod document;
mod listing;
mod proto_file;
mod vectors;

use std::{collections::BTreeSet, env, fs, path::Path};

use document::Document;
use proto_file::{Field, Schema};
use sluice_protocol::{ClientMsgId, ConversationId, UserId, limits, partition_of};

const PACKET_PROTO: &str = include_str!("../../proto/sluice/v1/packet.proto");
const BUS_PROTO: &str = include_str!("../../proto/sluice/v1/bus.proto");
const LIMITS: &str = include_str!("../../src/limits.rs");
const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");

fn spec() -> Document {
    let text = fs::read_to_string(SPEC).expect("SPEC.md lies beside the crate's manifest");
    Document { text }
}

fn schema() -> Schema {
    Schema::parse(&[PACKET_PROTO, BUS_PROTO])
}

fn number(cell: &str) -> Option<u64> {
    cell.replace([',', '_'], "").parse().ok()
}

#[test]
fn every_message_has_a_table_of_its_fields() {
    let spec = spec();
    for (message, fields) in schema().messages {
        let told: BTreeSet<Field> = spec
            .rows(&message)
            .into_iter()
            .filter_map(|row| {
                Some(Field {
                    number: number(row.first()?)?,
                    name: row.get(1)?.clone(),
                    kind: row.get(2)?.clone(),
                })
            })
            .collect();
        let declared: BTreeSet<Field> = fields.into_iter().collect();
        assert_eq!(told, declared, "table of {message} (left: SPEC.md)");
    }
}

#[test]
fn every_enum_has_a_table_of_its_values() {
    let spec = spec();
    for (name, values) in schema().enums {
        let told: BTreeSet<_> = spec
            .rows(&name)
            .into_iter()
            .filter_map(|row| Some((number(row.first()?)?, row.get(1)?.clone())))
            .collect();
        let declared: BTreeSet<_> = values.into_iter().collect();
        assert_eq!(told, declared, "table of {name} (left: SPEC.md)");
    }
}

/// Values of the constants in `limits`, by name.
macro_rules! limits {
    ($($name:ident)*) => { vec![$((stringify!($name), u64::try_from(limits::$name).expect("a small number"))),*] };
}

#[test]
fn every_limit_is_told() {
    let constants = limits![
        FRAME_MAX_BYTES_BEFORE_LOGIN FRAME_MAX_BYTES BODY_MAX_BYTES NOTICE_BODY_MAX_BYTES
        NAME_MAX_BYTES TOKEN_MAX_BYTES NONCE_BYTES PAGE_MAX_ENTRIES PAGE_MAX_BYTES
        PUSH_ACK_RANGES_MAX PUSH_ACK_CURSORS_MAX SEND_WINDOW DEVICES_MAX GROUP_MEMBERS_MAX
        GROUPS_PER_USER_MAX GROUPS_BY_OTHERS_MAX LEFT_GROUPS_MAX GROUP_NAME_MAX_BYTES DEDUP_HORIZON_MS CLIENT_MSG_ID_AHEAD_MAX_MS CONNECT_SKEW_MAX_MS
        RECALL_WINDOW_MS HOLE_PATIENCE_MS PARTITIONS_DEFAULT SHARED_PARTITIONS
    ];
    let declared = LIMITS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let listed: Vec<_> = constants.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared.collect::<Vec<_>>(), listed, "this test knows all");

    let rows = spec().rows("Limits that both sides share");
    let told: BTreeSet<_> = rows
        .iter()
        .filter_map(|row| Some((row.first()?.as_str(), number(row.get(1)?)?)))
        .collect();
    assert_eq!(told, constants.into_iter().collect(), "left: SPEC.md");
}

#[test]
fn every_packet_has_an_example() {
    let shown: BTreeSet<_> = vectors::all().iter().filter_map(|v| v.body).collect();
    for field in &schema().messages["Packet"] {
        let shown = shown.contains(field.name.as_str());
        assert!(shown || field.name == "id", "no example of {}", field.name);
    }
}

#[test]
fn examples_are_what_the_code_encodes() {
    let (spec, schema) = (spec(), schema());
    let mut text = spec.text.clone();
    let blocks: Vec<_> = spec
        .fenced("hex")
        .into_iter()
        // Those of the transports are held by the codec's test.
        .filter(|block| {
            !["ws", "udp", "frames", "sealed"]
                .iter()
                .any(|of| block.keys.contains_key(*of))
        })
        .collect();
    let vectors = vectors::all();
    let named: Vec<_> = blocks
        .iter()
        .map(|block| block.keys["name"].as_str())
        .collect();
    let expected: Vec<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(named, expected, "hex blocks (left: SPEC.md) in order");

    for (block, vector) in blocks.iter().zip(&vectors) {
        let name = vector.name;
        assert_eq!((vector.again)(&vector.encoded), vector.encoded, "{name}");
        let frame = if vector.is_frame { "tcp" } else { "none" };
        assert_eq!(block.keys["frame"], frame, "{name}");
        let right = listing::listing(&schema, vector.message, &vector.encoded, vector.is_frame);
        if env::var_os("UPDATE_SPEC").is_some() {
            let head = format!("```hex name={name} frame={frame}\n");
            let old = format!("{head}{}```\n", block.body);
            text = text.replace(&old, &format!("{head}{right}```\n"));
            continue;
        }
        let mut bytes = Vec::new();
        if vector.is_frame {
            bytes.extend((vector.encoded.len() as u32).to_be_bytes());
        }
        bytes.extend(&vector.encoded);
        assert_eq!(
            block.bytes(),
            bytes,
            "bytes of {name}; UPDATE_SPEC=1 writes them"
        );
        assert_eq!(
            block.body, right,
            "remarks of {name}; UPDATE_SPEC=1 writes them"
        );
    }
    if text != spec.text {
        fs::write(Path::new(SPEC), text).expect("SPEC.md can be written");
    }
}

#[test]
fn ids_and_partitions_are_what_the_code_derives() {
    let spec = spec();
    let pairs = spec.rows("Conversation ids of pairs");
    assert!(pairs.len() >= 4);
    for row in &pairs {
        let [one, other, id] = [0, 1, 2].map(|at| row[at].as_str());
        let user = |name| UserId::parse(name).expect("an example is valid");
        let derived = ConversationId::private(&user(one), &user(other));
        assert_eq!(derived.expect("two users").as_str(), id);
    }
    for row in &spec.rows("Ids that are refused") {
        assert!(ConversationId::parse(&row[0]).is_err(), "{row:?}");
    }
    let partitions = spec.rows("Partitions");
    assert!(partitions.len() >= 6);
    for row in &partitions {
        let (key, count) = (row[0].trim_matches('"'), number(&row[2]).expect("a count"));
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(format!("{hash:016x}"), row[1]);
        let partition = partition_of(key.as_bytes(), count as u16);
        assert_eq!(Some(u64::from(partition.0)), number(&row[3]));
    }
    for row in &spec.rows("A client_msg_id") {
        let random: Vec<u8> = row[1]
            .as_bytes()
            .chunks(2)
            .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
            .collect();
        let random = random.try_into().expect("ten bytes");
        let id = ClientMsgId::new(number(&row[0]).expect("a time"), random);
        assert_eq!(id.to_string(), row[2]);
    }
}

#[test]
fn names_of_the_handshake_and_version_are_told() {
    let text = spec().text;
    for told in [
        format!("`{}`", sluice_protocol::WEBSOCKET_SUBPROTOCOL),
        format!("`protocol_version` = {}", sluice_protocol::PROTOCOL_VERSION),
    ] {
        assert!(text.contains(&told), "SPEC.md doesn't say {told}");
    }
}
