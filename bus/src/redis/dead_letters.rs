//! Entries that were handed out again and again and never acknowledged.
//!
//! They lie in `dead:{stream}` with the reason, bounded by
//! `dead_letters_max_entries`, until somebody looks at them: replayed to the end
//! of their stream, or removed.

use bytes::Bytes;

use super::{
    bus::RedisBus,
    names::Names,
    page::{entry_id, entry_text},
};
use crate::{BusError, EntryId, Stream};

/// An entry that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it among the dead letters of its stream; its time is when it was set aside.
    pub id: EntryId,
    /// Its id in the stream, `ms-n`: `ms` is when it was appended.
    pub original_id: String,
    /// How often it had been handed out.
    pub deliveries: u64,
    /// Why it was set aside.
    pub reason: String,
    /// As it was appended.
    pub payload: Bytes,
}

/// An entry as `XRANGE` gives it: its id, its fields with their values.
type Row = (String, Vec<(String, Vec<u8>)>);

impl RedisBus {
    /// Dead letters of a stream behind `after`, oldest first, at most `max_entries`.
    ///
    /// # Errors
    /// As [`crate::Bus::lag`].
    pub async fn dead_letters(
        &self,
        stream: &Stream,
        after: Option<EntryId>,
        max_entries: usize,
    ) -> Result<Vec<DeadLetter>, BusError> {
        let names = Names::of(&self.engine.link, stream);
        let start = after.map_or("-".to_owned(), |id| format!("({}", entry_text(&id)));
        let mut range = redis::cmd("XRANGE");
        range.arg(&names.dead).arg(start).arg("+");
        range.arg("COUNT").arg(max_entries);
        let rows: Vec<Row> = self.engine.link.run(&names.dead, &range).await?;
        Ok(rows.into_iter().filter_map(dead_letter).collect())
    }

    /// Appends these dead letters to the end of their stream, each with its
    /// removal from here in one step. Returns how many were still there.
    ///
    /// # Errors
    /// As [`crate::Bus::append`]; repeating is harmless.
    pub async fn replay_dead_letters(
        &self,
        stream: &Stream,
        ids: &[EntryId],
    ) -> Result<u64, BusError> {
        let names = Names::of(&self.engine.link, stream);
        let texts: Vec<String> = ids.iter().map(entry_text).collect();
        let keys = [names.stream.as_str(), names.dead.as_str()];
        let script = &self.engine.scripts.replay;
        let replayed = self.engine.link.script(script, &keys, |call| {
            call.arg(&texts);
        });
        replayed.await
    }

    /// Removes these dead letters for good. Returns how many there were.
    ///
    /// # Errors
    /// As [`crate::Bus::lag`].
    pub async fn remove_dead_letters(
        &self,
        stream: &Stream,
        ids: &[EntryId],
    ) -> Result<u64, BusError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let names = Names::of(&self.engine.link, stream);
        let texts: Vec<String> = ids.iter().map(entry_text).collect();
        let mut remove = redis::cmd("XDEL");
        remove.arg(&names.dead).arg(&texts);
        self.engine.link.run(&names.dead, &remove).await
    }
}

fn dead_letter((id, fields): Row) -> Option<DeadLetter> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name);
    let text = |name: &str| {
        let value = field(name).map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        value.unwrap_or_default()
    };
    Some(DeadLetter {
        id: entry_id(&id)?,
        original_id: text("id"),
        deliveries: text("deliveries").parse().unwrap_or(0),
        reason: text("reason"),
        payload: Bytes::copy_from_slice(field("p").map_or(&[], |(_, value)| value)),
    })
}
