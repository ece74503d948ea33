//! One run of a read script and what it answers.

use bytes::Bytes;
use redis::Value;

use super::{bus::Engine, lease::Tokens, names::Names};
use crate::{BusEntry, BusError, EntryId};

/// What a read script answers.
#[derive(Debug)]
pub(super) enum Page {
    /// It read, and there may have been something.
    Entries {
        /// The stream had to be made anew.
        reset: bool,
        /// Entries that were pending and are not there any more.
        lost: u64,
        /// Entries that went to the dead letters.
        buried: u64,
        /// Where to go on.
        cursor: String,
        /// Behind which id the doorbell waits.
        newest: String,
        entries: Vec<BusEntry>,
    },
    /// Another has the lease, or it ran out.
    Lost,
    /// The stream was deleted.
    Closed,
}

/// Reads as the owner, if the lease is still ours.
pub(super) async fn read_owned(
    engine: &Engine,
    names: &Names,
    tokens: Tokens,
    cursor: &str,
    max_entries: usize,
) -> Result<Page, BusError> {
    let keys = [
        names.stream.as_str(),
        names.dead.as_str(),
        names.lease.as_str(),
        names.closed.as_str(),
    ];
    let config = &engine.config;
    let answer = engine
        .link
        .script::<Value>(&engine.scripts.read_owned, &keys, |call| {
            call.arg(&tokens.current).arg(&tokens.former);
            call.arg(config.lease_ttl_ms).arg(names.down_flag());
            call.arg(cursor).arg(max_entries);
            call.arg(config.deliveries_max)
                .arg(config.dead_letters_max_entries);
        });
    parse(answer.await?).ok_or_else(|| odd(names))
}

/// Reads beside others; `look` also for what silent ones hold.
pub(super) async fn read_shared(
    engine: &Engine,
    names: &Names,
    consumer: &str,
    cursor: &str,
    max_entries: usize,
    look: bool,
) -> Result<Page, BusError> {
    let keys = [
        names.stream.as_str(),
        names.dead.as_str(),
        names.closed.as_str(),
    ];
    let config = &engine.config;
    let answer = engine
        .link
        .script::<Value>(&engine.scripts.read_shared, &keys, |call| {
            call.arg(consumer).arg(cursor).arg(max_entries);
            call.arg(config.deliveries_max)
                .arg(config.dead_letters_max_entries);
            call.arg(u8::from(look)).arg(config.claim_idle_ms);
        });
    parse(answer.await?).ok_or_else(|| odd(names))
}

fn odd(names: &Names) -> BusError {
    BusError::Unknown(format!("odd answer to a read of {}", names.plain))
}

fn parse(answer: Value) -> Option<Page> {
    let Value::Array(fields) = answer else {
        return None;
    };
    let mut fields = fields.into_iter();
    match text(fields.next()?)?.as_str() {
        "OK" => {}
        "LOST" => return Some(Page::Lost),
        _ => return Some(Page::Closed),
    }
    let reset = number(fields.next()?)? != 0;
    let lost = number(fields.next()?)?;
    let buried = number(fields.next()?)?;
    let cursor = text(fields.next()?)?;
    let newest = text(fields.next()?)?;
    let Value::Array(rows) = fields.next()? else {
        return None;
    };
    Some(Page::Entries {
        reset,
        lost,
        buried,
        cursor,
        newest,
        entries: rows.into_iter().map(entry).collect::<Option<_>>()?,
    })
}

fn entry(row: Value) -> Option<BusEntry> {
    let Value::Array(row) = row else { return None };
    let mut row = row.into_iter();
    let id = entry_id(&text(row.next()?)?)?;
    let deliveries = number(row.next()?)?;
    let Value::BulkString(payload) = row.next()? else {
        return None;
    };
    Some(BusEntry {
        id,
        deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX),
        payload: Bytes::from(payload),
    })
}

pub(super) fn entry_id(text: &str) -> Option<EntryId> {
    let (major, minor) = text.split_once('-')?;
    Some(EntryId {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// An id as Redis writes it.
pub(super) fn entry_text(id: &EntryId) -> String {
    format!("{}-{}", id.major, id.minor)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(number).ok(),
        _ => None,
    }
}
