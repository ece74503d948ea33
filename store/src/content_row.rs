//! [`Content`] as columns `kind`, `content_type` and `body`.
//!
//! A message's body is kept as it is. Of the other kinds, which are rare, the
//! body holds the fields in order: numbers big-endian, names as a 4-byte length
//! and UTF-8, a list of names up to the end.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_protocol::{
    Seq, UserId,
    packet::{ContentType, MemberRole},
};

use crate::{Content, StoreError};

const MESSAGE: i32 = 0;
const RECALL: i32 = 1;
const GROUP_CREATED: i32 = 2;
const GROUP_RENAMED: i32 = 3;
const JOINED: i32 = 4;
const LEFT: i32 = 5;
const REMOVED: i32 = 6;
const ROLE_CHANGED: i32 = 7;

/// Columns of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentRow<'a> {
    pub(crate) kind: i32,
    pub(crate) content_type: i32,
    pub(crate) body: Cow<'a, [u8]>,
}

/// True for the kind of row that can be recalled and that counts as unread.
pub(crate) fn is_message(kind: i32) -> bool {
    kind == MESSAGE
}

// === impl ContentRow ===

impl<'a> ContentRow<'a> {
    pub(crate) fn of(content: &'a Content) -> Self {
        let (kind, body) = match content {
            Content::Message { content_type, body } => {
                return Self {
                    kind: MESSAGE,
                    content_type: *content_type as i32,
                    body: Cow::Borrowed(body),
                };
            }
            Content::Recall { seq } => (RECALL, seq.0.to_be_bytes().to_vec()),
            Content::GroupCreated { name, members } => {
                let names =
                    std::iter::once(name.as_str()).chain(members.iter().map(UserId::as_str));
                (GROUP_CREATED, names_to_bytes(names))
            }
            Content::GroupRenamed { name } => (GROUP_RENAMED, names_to_bytes([name.as_str()])),
            Content::Joined { users } => (JOINED, names_to_bytes(users.iter().map(UserId::as_str))),
            Content::Left => (LEFT, Vec::new()),
            Content::Removed { user } => (REMOVED, names_to_bytes([user.as_str()])),
            Content::RoleChanged { user, role } => {
                let mut body = (*role as i32).to_be_bytes().to_vec();
                body.extend(names_to_bytes([user.as_str()]));
                (ROLE_CHANGED, body)
            }
        };
        Self {
            kind,
            content_type: 0,
            body: Cow::Owned(body),
        }
    }

    /// # Errors
    /// [`StoreError::Damaged`] for what [`ContentRow::of`] does not write.
    pub(crate) fn into_content(self) -> Result<Content, StoreError> {
        if self.kind == MESSAGE {
            return Ok(Content::Message {
                content_type: ContentType::try_from(self.content_type)
                    .map_err(|_| damaged("an unknown content type"))?,
                body: Bytes::from(self.body.into_owned()),
            });
        }
        let mut fields = Fields(&self.body);
        let content = match self.kind {
            RECALL => Content::Recall {
                seq: Seq(u64::from_be_bytes(fields.array()?)),
            },
            GROUP_CREATED => Content::GroupCreated {
                name: fields.name()?.to_owned(),
                members: fields.users()?,
            },
            GROUP_RENAMED => Content::GroupRenamed {
                name: fields.name()?.to_owned(),
            },
            JOINED => Content::Joined {
                users: fields.users()?,
            },
            LEFT => Content::Left,
            REMOVED => Content::Removed {
                user: fields.user()?,
            },
            ROLE_CHANGED => {
                let role = i32::from_be_bytes(fields.array()?);
                Content::RoleChanged {
                    role: MemberRole::try_from(role).map_err(|_| damaged("an unknown role"))?,
                    user: fields.user()?,
                }
            }
            _ => return Err(damaged("an unknown kind of entry")),
        };
        if !fields.0.is_empty() {
            return Err(damaged("an entry with bytes left over"));
        }
        Ok(content)
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

fn names_to_bytes<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        // A name of 4 GiB does not get this far: no engine takes such a value.
        bytes.extend((name.len() as u32).to_be_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes
}

/// What is left of a body.
struct Fields<'b>(&'b [u8]);

// === impl Fields ===

impl<'b> Fields<'b> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (array, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| damaged("an entry that is too short"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn name(&mut self) -> Result<&'b str, StoreError> {
        let bytes = u32::from_be_bytes(self.array()?) as usize;
        let (name, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or_else(|| damaged("an entry that is too short"))?;
        self.0 = rest;
        std::str::from_utf8(name).map_err(|_| damaged("a name that is no UTF-8"))
    }

    fn user(&mut self) -> Result<UserId, StoreError> {
        UserId::parse(self.name()?).map_err(|error| StoreError::Damaged(error.to_string()))
    }

    fn users(&mut self) -> Result<Vec<UserId>, StoreError> {
        let mut users = Vec::new();
        while !self.0.is_empty() {
            users.push(self.user()?);
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user() -> impl Strategy<Value = UserId> {
        "[^\\p{Cc}]{1,16}".prop_map(|name| UserId::parse(&name).unwrap())
    }

    fn content() -> impl Strategy<Value = Content> {
        let users = || prop::collection::vec(user(), 0..4);
        prop_oneof![
            (0..8, any::<Vec<u8>>()).prop_map(|(content_type, body)| Content::Message {
                content_type: ContentType::try_from(content_type).unwrap(),
                body: body.into(),
            }),
            any::<u64>().prop_map(|seq| Content::Recall { seq: Seq(seq) }),
            (".{0,8}", users()).prop_map(|(name, members)| Content::GroupCreated { name, members }),
            ".{0,8}".prop_map(|name| Content::GroupRenamed { name }),
            users().prop_map(|users| Content::Joined { users }),
            Just(Content::Left),
            user().prop_map(|user| Content::Removed { user }),
            (user(), 0..3).prop_map(|(user, role)| Content::RoleChanged {
                user,
                role: MemberRole::try_from(role).unwrap(),
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_content_comes_back(content in content()) {
            prop_assert_eq!(ContentRow::of(&content).into_content().unwrap(), content);
        }

        #[test]
        fn any_bytes_are_content_or_damage(kind in -1..9, body in any::<Vec<u8>>()) {
            let row = ContentRow { kind, content_type: 0, body: Cow::Owned(body) };
            if let Ok(content) = row.clone().into_content() {
                prop_assert_eq!(ContentRow::of(&content), row);
            }
        }
    }
}
