//! What was sent before, by its sender's name for it.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, MessageId, Seq, UserId, UserSeq,
};

use super::{integer::from_sql, readers::Read};
use crate::{StoreError, Stored};

/// See [`Store::first_answers`](crate::Store::first_answers).
pub(super) struct FirstAnswers(pub(super) Vec<(ConversationId, UserId, ClientMsgId)>);

impl Read for FirstAnswers {
    type Answer = Vec<Option<Stored>>;

    fn read(&self, connection: &Connection) -> Result<Self::Answer, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT m.seq, m.msg_id, m.send_ms, m.first_user_seq, m.second_user_seq
             FROM users u CROSS JOIN conversation c
             CROSS JOIN dedup d ON d.sender = u.id AND d.conversation = c.id
               AND d.client_msg_id = ?3
             CROSS JOIN message m ON m.conversation = d.conversation AND m.seq = d.seq
             WHERE u.user_id = ?1 AND c.conversation_id = ?2",
        )?;
        let mut find = |(conversation, sender, id): &(ConversationId, UserId, ClientMsgId)| {
            let key = params![sender.as_str(), conversation.as_str(), id.as_bytes()];
            let found = statement.query_row(key, |row| {
                let user_seqs = [row.get::<_, Option<i64>>(3)?, row.get(4)?];
                Ok(Stored {
                    seq: Seq(from_sql(row.get(0)?)),
                    message_id: MessageId(row.get::<_, i64>(1)? as u64),
                    server_time_ms: from_sql(row.get(2)?),
                    inbox: match conversation.kind() {
                        ConversationKind::Group(_) => Vec::new(),
                        ConversationKind::Private(first, second) => [first, second]
                            .into_iter()
                            .zip(user_seqs.map(|seq| UserSeq(from_sql(seq.unwrap_or(0)))))
                            .collect(),
                    },
                })
            });
            Ok(found.optional()?)
        };
        self.0.iter().map(&mut find).collect()
    }
}
