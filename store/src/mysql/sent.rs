//! What was sent before, by its sender's name for it.

use std::collections::HashMap;

use sluice_protocol::{ClientMsgId, ConversationId, UserId};
use sqlx::MySqlConnection;

use super::{
    MysqlStore,
    commit::deliver_again,
    failure::Failure,
    log_rows::find_sent,
    pulls::Entries,
    servers::{Servers, Work},
};
use crate::{StoreError, Stored};

type SentKey = (ConversationId, UserId, ClientMsgId);

/// Where these, all of one server, are stored.
struct FindSent(Vec<SentKey>);

impl Work for FindSent {
    type Answer = HashMap<SentKey, u64>;
    const REPEATABLE: bool = true;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: u32,
    ) -> Result<HashMap<SentKey, u64>, Failure> {
        let keys: Vec<_> = self.0.iter().map(|(id, _, sent)| (id, *sent)).collect();
        find_sent(connection, &keys).await
    }
}

/// See [`Store::first_answers`](crate::Store::first_answers). Drives the second
/// step of a commit that stopped between the steps.
pub(super) async fn first_answers(
    store: &MysqlStore,
    sent: &[SentKey],
) -> Result<Vec<Option<Stored>>, StoreError> {
    let by_place = Servers::sort(0..sent.len(), |at| {
        store.servers.of_conversation(&sent[*at].0)
    });
    let (mut places, mut answers) = (Vec::new(), Vec::new());
    for (place, part) in by_place {
        let keys = part.iter().map(|at| sent[*at].clone()).collect();
        let found = store.servers.run(place, &FindSent(keys)).await?;
        let positions = (part.iter())
            .filter_map(|at| Some((sent[*at].0.clone(), *found.get(&sent[*at])?)))
            .collect();
        let entries = store.servers.run(place, &Entries(positions)).await?;
        for at in part {
            let position = found.get(&sent[at]).map(|seq| (sent[at].0.clone(), *seq));
            let Some(entry) = position.and_then(|position| entries.get(&position)) else {
                continue;
            };
            let stored = Stored {
                message_id: entry.message_id,
                seq: entry.seq,
                server_time_ms: entry.server_time_ms,
                inbox: Vec::new(),
            };
            places.push(at);
            answers.push((entry.conversation.clone(), stored));
        }
    }
    deliver_again(store, &mut answers).await?;
    let mut all = vec![None; sent.len()];
    for (at, (_, stored)) in places.into_iter().zip(answers) {
        all[at] = Some(stored);
    }
    Ok(all)
}
