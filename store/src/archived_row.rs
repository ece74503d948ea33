//! A row of the table `message` as a line of an archive.

use std::{borrow::Cow, io};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sluice_protocol::{ClientMsgId, ConversationId, MessageId, Seq, UserId};

use crate::{StoredEntry, content_row::ContentRow};

/// A line of the file: a row of the table `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArchivedRow {
    /// The place of its server in the configuration.
    pub(crate) database: usize,
    pub(crate) conversation: String,
    pub(crate) seq: u64,
    pub(crate) server_time_ms: u64,
    #[serde(with = "number_as_text")]
    pub(crate) message_id: u64,
    pub(crate) sender: String,
    /// As a UUID is written.
    pub(crate) client_msg_id: String,
    pub(crate) kind: u8,
    pub(crate) content_type: u8,
    pub(crate) recalled: bool,
    pub(crate) counting: u64,
    pub(crate) counting_first: u64,
    #[serde(with = "bytes_as_base64")]
    pub(crate) body: Vec<u8>,
}

// === impl ArchivedRow ===

impl ArchivedRow {
    /// As it stands in the file, with its line end.
    pub(crate) fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    pub(crate) fn into_entry(self) -> Result<StoredEntry, String> {
        let content = ContentRow {
            kind: i32::from(self.kind),
            content_type: i32::from(self.content_type),
            body: Cow::Owned(self.body),
        };
        let text = |error: sluice_protocol::IdError| error.to_string();
        Ok(StoredEntry {
            conversation: ConversationId::parse(&self.conversation).map_err(text)?,
            seq: Seq(self.seq),
            message_id: MessageId(self.message_id),
            sender: UserId::parse(&self.sender).map_err(text)?,
            client_msg_id: ClientMsgId::parse_text(&self.client_msg_id).map_err(text)?,
            server_time_ms: self.server_time_ms,
            content: content.into_content().map_err(|error| error.to_string())?,
            recalled: self.recalled,
        })
    }
}

/// Readers whose numbers are floating-point ones would round message ids.
mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod bytes_as_base64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{BASE64_STANDARD, Engine};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
