//! Changes of a group: parsed, checked against roles and bounds, and turned
//! into log entries. Owner and admins add and remove; the owner sets roles and
//! may hand the group over; an owner who leaves hands it over first.

use hashbrown::HashSet;
use sha2::{Digest, Sha256};
use sluice_protocol::{
    ClientMsgId, Refusal, UserId,
    envelope::{self, group_command::Command},
    limits::{GROUP_MEMBERS_MAX, GROUP_NAME_MAX_BYTES},
    packet::{ErrorCode, MemberRole},
};
use sluice_store::Content;

use super::group::Group;

/// A change that its form allows.
#[derive(Debug, Clone)]
pub(super) enum GroupCommand {
    Create { name: String, members: Vec<UserId> },
    Add { users: Vec<UserId> },
    Remove { user: UserId },
    Leave,
    SetRole { user: UserId, role: MemberRole },
    Rename { name: String },
}

// === impl GroupCommand ===

impl GroupCommand {
    pub(super) fn parse(command: Option<Command>, sender: &UserId) -> Result<Self, Refusal> {
        Ok(match command {
            Some(Command::Create(envelope::CreateGroup { name, members })) => Self::Create {
                name: checked_name(name)?,
                members: distinct(&members, Some(sender))?,
            },
            Some(Command::Add(add)) => {
                let users = distinct(&add.users, None)?;
                if users.is_empty() {
                    return Err(Refusal::bad_request("users is empty"));
                }
                Self::Add { users }
            }
            Some(Command::Remove(remove)) => Self::Remove {
                user: UserId::parse(&remove.user_id)?,
            },
            Some(Command::Leave(_)) => Self::Leave,
            Some(Command::SetRole(set)) => Self::SetRole {
                user: UserId::parse(&set.user_id)?,
                role: MemberRole::try_from(set.role)
                    .map_err(|_| Refusal::bad_request("role is unknown"))?,
            },
            Some(Command::Rename(rename)) => Self::Rename {
                name: checked_name(rename.name)?,
            },
            None => return Err(Refusal::bad_request("command is missing")),
        })
    }

    /// Whether it makes the group.
    pub(super) fn founds(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// Who is to come in by it, the founder too.
    pub(super) fn joiners<'c>(&'c self, sender: &'c UserId) -> impl Iterator<Item = &'c UserId> {
        let (users, founder): (&[UserId], _) = match self {
            Self::Create { members, .. } => (members, Some(sender)),
            Self::Add { users } => (users, None),
            _ => (&[], None),
        };
        users.iter().chain(founder)
    }

    /// Whether the sender goes.
    pub(super) fn leaves(&self) -> bool {
        matches!(self, Self::Leave)
    }

    /// Whether this stored entry, the command's own, may be what it asked for.
    pub(super) fn asks_for(&self, entry: &Content) -> bool {
        match (self, entry) {
            (
                Self::Create { name, members },
                Content::GroupCreated {
                    name: stored_name,
                    members: stored_members,
                },
            ) => name == stored_name && members == stored_members,
            // Those who were in already are not in the entry.
            (Self::Add { users }, Content::Joined { users: stored }) => {
                stored.iter().all(|user| users.contains(user))
            }
            (Self::Remove { user }, Content::Removed { user: stored }) => user == stored,
            (Self::Leave, Content::Left) => true,
            (
                Self::SetRole { user, role },
                Content::RoleChanged {
                    user: stored_user,
                    role: stored_role,
                },
            ) => user == stored_user && role == stored_role,
            (Self::Rename { name }, Content::GroupRenamed { name: stored }) => name == stored,
            _ => false,
        }
    }

    /// The log entries that the command comes down to, the last one under the
    /// command's own id; `group` is `None` where there is none yet.
    pub(super) fn entries(
        &self,
        sender: &UserId,
        command_id: ClientMsgId,
        group: Option<&Group>,
    ) -> Result<Vec<(ClientMsgId, Content)>, Refusal> {
        if let Self::Create { name, members } = self {
            check_size(members.len() + 1)?;
            let content = Content::GroupCreated {
                name: name.clone(),
                members: members.clone(),
            };
            return Ok(vec![(command_id, content)]);
        }
        let group = group.ok_or_else(|| {
            Refusal::new(ErrorCode::UnknownConversation, "there is no such group")
        })?;
        let role = group
            .membership(sender)
            .ok_or_else(|| Refusal::new(ErrorCode::NotAMember, "you are not in this group"))?
            .role;
        let before = before(command_id);
        Ok(match self {
            Self::Create { .. } => Vec::new(),
            Self::Add { users } => vec![(command_id, add(group, role, users)?)],
            Self::Remove { user } => vec![(command_id, remove(group, sender, role, user)?)],
            Self::Leave => {
                let heir = match role {
                    MemberRole::Owner => group.heir(sender),
                    MemberRole::Admin | MemberRole::Member => None,
                };
                heir.map(|user| {
                    let role = MemberRole::Owner;
                    (before, Content::RoleChanged { user, role })
                })
                .into_iter()
                .chain([(command_id, Content::Left)])
                .collect()
            }
            Self::SetRole { user, role: wanted } => {
                check_role_change(group, sender, role, user)?;
                let change = |user: &UserId, role| Content::RoleChanged {
                    user: user.clone(),
                    role,
                };
                // There is one owner: who hands the group over stays as admin.
                let own = (*wanted == MemberRole::Owner)
                    .then(|| (before, change(sender, MemberRole::Admin)));
                own.into_iter()
                    .chain([(command_id, change(user, *wanted))])
                    .collect()
            }
            Self::Rename { name } => {
                check_admin(role)?;
                vec![(command_id, Content::GroupRenamed { name: name.clone() })]
            }
        })
    }
}

fn add(group: &Group, role: MemberRole, users: &[UserId]) -> Result<Content, Refusal> {
    check_admin(role)?;
    let users: Vec<_> = users
        .iter()
        .filter(|user| group.membership(user).is_none())
        .cloned()
        .collect();
    if users.is_empty() {
        return Err(Refusal::bad_request("all of users are members already"));
    }
    check_size(group.len() + users.len())?;
    Ok(Content::Joined { users })
}

fn remove(
    group: &Group,
    sender: &UserId,
    role: MemberRole,
    user: &UserId,
) -> Result<Content, Refusal> {
    check_admin(role)?;
    if user == sender {
        return Err(Refusal::bad_request("use leave to go yourself"));
    }
    let target = group
        .membership(user)
        .ok_or_else(|| Refusal::new(ErrorCode::NotAMember, "user_id is not in this group"))?;
    let outranked = match target.role {
        MemberRole::Member => true,
        MemberRole::Admin => role == MemberRole::Owner,
        MemberRole::Owner => false,
    };
    if !outranked {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "only the owner removes admins, and nobody the owner",
        ));
    }
    Ok(Content::Removed { user: user.clone() })
}

fn check_role_change(
    group: &Group,
    sender: &UserId,
    role: MemberRole,
    user: &UserId,
) -> Result<(), Refusal> {
    if role != MemberRole::Owner {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "only the owner sets roles",
        ));
    }
    if user == sender {
        return Err(Refusal::bad_request(
            "the owner's role changes by handing the group over",
        ));
    }
    match group.membership(user) {
        Some(_) => Ok(()),
        None => Err(Refusal::new(
            ErrorCode::NotAMember,
            "user_id is not in this group",
        )),
    }
}

fn check_admin(role: MemberRole) -> Result<(), Refusal> {
    match role {
        MemberRole::Owner | MemberRole::Admin => Ok(()),
        MemberRole::Member => Err(Refusal::new(
            ErrorCode::Forbidden,
            "only the owner and admins may do this",
        )),
    }
}

fn check_size(members: usize) -> Result<(), Refusal> {
    if members > GROUP_MEMBERS_MAX {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("a group has at most {GROUP_MEMBERS_MAX} members, this would make {members}"),
        ));
    }
    Ok(())
}

fn checked_name(name: String) -> Result<String, Refusal> {
    if name.is_empty() || name.len() > GROUP_NAME_MAX_BYTES {
        return Err(Refusal::bad_request(format!(
            "name must have 1 to {GROUP_NAME_MAX_BYTES} bytes, not {}",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::bad_request(
            "name must not contain control characters",
        ));
    }
    Ok(name)
}

/// Parsed, each once, in the order given, without `except`.
fn distinct(names: &[String], except: Option<&UserId>) -> Result<Vec<UserId>, Refusal> {
    // Before any allocation a name: the list may be as long as a frame allows.
    check_size(names.len())?;
    let mut seen = HashSet::with_capacity(names.len());
    let mut users = Vec::with_capacity(names.len());
    for name in names {
        let user = UserId::parse(name)?;
        if Some(&user) != except && seen.insert(user.clone()) {
            users.push(user);
        }
    }
    Ok(users)
}

/// The id of the entry that goes before a command's own: derived, so that a
/// repeat of the command repeats it too, and none that a client can use.
fn before(command_id: ClientMsgId) -> ClientMsgId {
    let digest = Sha256::new()
        .chain_update(b"before")
        .chain_update(command_id.as_bytes())
        .finalize();
    let mut random = [0; 10];
    for (byte, from) in random.iter_mut().zip(digest.iter()) {
        *byte = *from;
    }
    ClientMsgId::derived(command_id.unix_ms(), random)
}
