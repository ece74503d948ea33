//! What an entry does to its conversation beside lengthening the log: who is in
//! it, as what, under which name, and which message is recalled.

use rusqlite::{Connection, OptionalExtension, params};
use sluice_protocol::{ConversationKind, Seq, UserId, packet::MemberRole};

use super::{
    commit::Stop,
    conversation_state::ConversationState,
    integer::{ConversationKey, UserKey, to_sql},
};
use crate::{CommitRefusal, Content, NewEntry, StoreError, content_row::is_message};

/// A checked effect; applying it cannot be refused any more.
pub(super) enum Effect<'e> {
    None,
    Found {
        name: &'e str,
        owner: UserKey,
        members: Vec<UserKey>,
    },
    /// A private conversation's first entry.
    Pair([UserKey; 2]),
    Rename(&'e str),
    Join(Vec<UserKey>),
    Leave(UserKey),
    SetRole(UserKey, MemberRole),
    Recall(Seq),
}

// === impl Effect ===

impl<'e> Effect<'e> {
    /// Checks that the entry fits the conversation as it stands (`state`;
    /// `None`: there is none yet) and looks its users up.
    pub(super) fn check(
        connection: &Connection,
        state: Option<&ConversationState>,
        entry: &'e NewEntry,
        sender: UserKey,
        find: &mut dyn FnMut(&UserId) -> Result<UserKey, Stop>,
    ) -> Result<Self, Stop> {
        let unknown = || Stop::from(CommitRefusal::UnknownConversation);
        let is_group = match entry.conversation.kind() {
            ConversationKind::Private(first, second) => {
                if entry.sender != first && entry.sender != second {
                    return Err(unknown());
                }
                if state.is_none() {
                    return match entry.content {
                        Content::Message { .. } => {
                            Ok(Effect::Pair([find(&first)?, find(&second)?]))
                        }
                        Content::Recall { .. } => Err(CommitRefusal::UnknownMessage.into()),
                        _ => Err(unknown()),
                    };
                }
                false
            }
            ConversationKind::Group(_) => true,
        };
        let mut find_all =
            |users: &[UserId]| users.iter().map(&mut *find).collect::<Result<_, _>>();
        match (&entry.content, state) {
            (Content::GroupCreated { name, members }, None) if is_group => Ok(Effect::Found {
                name,
                owner: sender,
                members: find_all(members)?,
            }),
            (_, None) | (Content::GroupCreated { .. }, _) => Err(unknown()),
            (Content::Message { .. }, Some(_)) => Ok(Effect::None),
            (Content::Recall { seq }, Some(state)) => {
                check_recallable(connection, state.key, *seq)?;
                Ok(Effect::Recall(*seq))
            }
            // The rest is for groups.
            (_, Some(_)) if !is_group => Err(unknown()),
            (Content::GroupRenamed { name }, Some(_)) => Ok(Effect::Rename(name)),
            (Content::Joined { users }, Some(_)) => Ok(Effect::Join(find_all(users)?)),
            (Content::Left, Some(_)) => Ok(Effect::Leave(sender)),
            (Content::Removed { user }, Some(_)) => Ok(Effect::Leave(find(user)?)),
            (Content::RoleChanged { user, role }, Some(_)) => {
                Ok(Effect::SetRole(find(user)?, *role))
            }
        }
    }

    /// Applies it as of the entry at `seq`.
    pub(super) fn apply(
        self,
        connection: &Connection,
        state: &ConversationState,
        seq: Seq,
    ) -> Result<(), StoreError> {
        let conversation = state.key;
        match self {
            Effect::None => {}
            Effect::Found {
                name,
                owner,
                members,
            } => {
                rename(connection, conversation, name)?;
                // The owner first: named again among the members, it stays the owner.
                join(
                    connection,
                    conversation,
                    owner,
                    true,
                    MemberRole::Owner,
                    seq,
                )?;
                for member in members {
                    join(
                        connection,
                        conversation,
                        member,
                        true,
                        MemberRole::Member,
                        seq,
                    )?;
                }
            }
            Effect::Pair(parties) => {
                for party in parties {
                    join(
                        connection,
                        conversation,
                        party,
                        false,
                        MemberRole::Member,
                        seq,
                    )?;
                }
            }
            Effect::Rename(name) => {
                keep_name(connection, conversation, name, seq)?;
                rename(connection, conversation, name)?;
            }
            Effect::Join(users) => {
                for user in users {
                    join(
                        connection,
                        conversation,
                        user,
                        true,
                        MemberRole::Member,
                        seq,
                    )?;
                }
            }
            Effect::Leave(user) => {
                connection
                    .prepare_cached(
                        "UPDATE user_conversation_list SET last_seq = ?3
                         WHERE user = ?1 AND conversation = ?2 AND last_seq IS NULL",
                    )?
                    .execute(params![user, conversation, to_sql(seq.0)])?;
            }
            Effect::SetRole(user, role) => {
                connection
                    .prepare_cached(
                        "UPDATE user_conversation_list SET role = ?3
                         WHERE user = ?1 AND conversation = ?2 AND last_seq IS NULL",
                    )?
                    .execute(params![user, conversation, role as i32])?;
            }
            Effect::Recall(target) => {
                connection
                    .prepare_cached(
                        "UPDATE message SET recalled = 1, body = x''
                         WHERE conversation = ?1 AND seq = ?2",
                    )?
                    .execute(params![conversation, to_sql(target.0)])?;
                connection
                    .prepare_cached(
                        "INSERT INTO recall (conversation, target, seq) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![conversation, to_sql(target.0), to_sql(seq.0)])?;
            }
        }
        Ok(())
    }
}

fn check_recallable(
    connection: &Connection,
    conversation: ConversationKey,
    seq: Seq,
) -> Result<(), Stop> {
    let kind: Option<i32> = connection
        .prepare_cached("SELECT kind FROM message WHERE conversation = ?1 AND seq = ?2")?
        .query_row(params![conversation, to_sql(seq.0)], |row| row.get(0))
        .optional()?;
    match kind {
        Some(kind) if is_message(kind) => Ok(()),
        _ => Err(CommitRefusal::UnknownMessage.into()),
    }
}

/// The entry that recalled a message, if there is one.
pub(super) fn find_recall(
    connection: &Connection,
    conversation: ConversationKey,
    target: Seq,
) -> Result<Option<i64>, StoreError> {
    let found = connection
        .prepare_cached("SELECT seq FROM recall WHERE conversation = ?1 AND target = ?2")?
        .query_row(params![conversation, to_sql(target.0)], |row| row.get(0));
    Ok(found.optional()?)
}

fn rename(
    connection: &Connection,
    conversation: ConversationKey,
    name: &str,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE conversation SET name = ?2 WHERE id = ?1")?
        .execute(params![conversation, name])?;
    Ok(())
}

/// Those who left before a renaming go on seeing the name that was.
fn keep_name(
    connection: &Connection,
    conversation: ConversationKey,
    new: &str,
    until: Seq,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO past_name (conversation, until_seq, name)
             SELECT id, ?2, name FROM conversation WHERE id = ?1 AND name <> ?3",
        )?
        .execute(params![conversation, to_sql(until.0), new])?;
    Ok(())
}

/// Who is in already stays as they are; who left before begins anew, and keeps
/// the window that they had.
fn join(
    connection: &Connection,
    conversation: ConversationKey,
    user: UserKey,
    is_group: bool,
    role: MemberRole,
    seq: Seq,
) -> Result<(), StoreError> {
    if is_group {
        connection
            .prepare_cached(
                "INSERT INTO past_membership (user, conversation, first_seq, last_seq)
                 SELECT user, conversation, first_seq, last_seq FROM user_conversation_list
                 WHERE user = ?1 AND conversation = ?2 AND last_seq IS NOT NULL",
            )?
            .execute(params![user, conversation])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO user_conversation_list
               (user, conversation, is_group, first_seq, last_seq, role, delivered_seq, read_seq)
             VALUES (?1, ?2, ?3, ?4, NULL, ?5, 0, 0)
             ON CONFLICT (user, conversation) DO UPDATE
             SET first_seq = excluded.first_seq, last_seq = NULL, role = excluded.role
             WHERE last_seq IS NOT NULL",
        )?
        .execute(params![
            user,
            conversation,
            is_group,
            to_sql(seq.0),
            role as i32
        ])?;
    Ok(())
}
