//! Who hears of what a batch has stored: routes for everybody concerned in one
//! look-up, after the commit; each entry encoded once, one delivery a gateway.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use sluice_bus::{BusError, Directory, Route};
use sluice_protocol::{
    ConnectionId, Seq, UserId, UserSeq,
    envelope::{PushEntry, delivery::Body},
    limits::NOTICE_BODY_MAX_BYTES,
};
use sluice_store::{Content, StoredEntry};

use crate::{outbox::Outbox, wire};

/// Something for those who are online.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) what: What,
    pub(super) audience: Audience,
    /// The sending connection, which gets an answer instead.
    pub(super) except: Option<ConnectionId>,
}

#[derive(Debug)]
pub(super) enum What {
    Entry(StoredEntry),
    /// An encoded packet.
    Event(Bytes),
}

#[derive(Debug)]
pub(super) enum Audience {
    /// Both parties, each with a place in the inbox.
    Inboxes(Vec<(UserId, UserSeq)>),
    /// A group's members as far as they may see the entry, and who goes with it.
    Members {
        roster: Arc<[(UserId, Seq)]>,
        departed: Option<UserId>,
    },
    /// These, for an event.
    Users(Vec<UserId>),
}

/// Routes of all people a batch concerns.
struct Routes {
    places: HashMap<UserId, usize>,
    routes: Vec<Vec<Route>>,
}

/// Puts the announcements, in order, into the outbox.
pub(super) async fn announce(
    directory: &dyn Directory,
    announcements: Vec<Announcement>,
    outbox: &mut Outbox,
) -> Result<(), BusError> {
    let routes = Routes::look_up(directory, &announcements).await?;
    for announcement in &announcements {
        let body = announcement.body();
        let targets = announcement
            .audience
            .people(announcement.seq())
            .flat_map(|(user, user_seq)| {
                let routes = routes.of(user).iter();
                routes.map(move |route| (user, route, user_seq.0))
            })
            .filter(|(_, route, _)| Some(route.connection) != announcement.except);
        outbox.spread(targets, &body);
    }
    Ok(())
}

// === impl Announcement ===

impl Announcement {
    fn seq(&self) -> Seq {
        match &self.what {
            What::Entry(entry) => entry.seq,
            What::Event(_) => Seq(u64::MAX),
        }
    }

    fn body(&self) -> Body {
        let entry = match &self.what {
            What::Entry(entry) => entry,
            What::Event(packet) => return Body::Event(packet.clone()),
        };
        let push = |bytes| PushEntry {
            conversation_id: entry.conversation.as_str().to_owned(),
            seq: entry.seq.0,
            entry: bytes,
        };
        if !entry.conversation.is_group() {
            return Body::Push(push(wire::entry_bytes(entry)));
        }
        let rides_along = match &entry.content {
            Content::Message { body, .. } => body.len() <= NOTICE_BODY_MAX_BYTES,
            // A long list of names is pulled like a long body.
            Content::GroupCreated { members: users, .. } | Content::Joined { users } => {
                let names = users.iter().map(|user| user.as_str().len());
                names.sum::<usize>() <= NOTICE_BODY_MAX_BYTES
            }
            _ => true,
        };
        Body::Notice(push(match rides_along {
            true => wire::entry_bytes(entry),
            false => Bytes::new(),
        }))
    }
}

// === impl Audience ===

impl Audience {
    /// Everybody for whom the entry at `seq` is visible.
    fn people(&self, seq: Seq) -> Box<dyn Iterator<Item = (&UserId, UserSeq)> + '_> {
        match self {
            Audience::Inboxes(inboxes) => {
                Box::new(inboxes.iter().map(|(user, user_seq)| (user, *user_seq)))
            }
            Audience::Members { roster, departed } => {
                let members = roster
                    .iter()
                    .filter(move |(_, first_seq)| *first_seq <= seq)
                    .map(|(user, _)| user);
                Box::new(members.chain(departed).map(|user| (user, UserSeq(0))))
            }
            Audience::Users(users) => Box::new(users.iter().map(|user| (user, UserSeq(0)))),
        }
    }
}

// === impl Routes ===

impl Routes {
    async fn look_up(
        directory: &dyn Directory,
        announcements: &[Announcement],
    ) -> Result<Self, BusError> {
        let mut places = HashMap::new();
        let mut users = Vec::new();
        for announcement in announcements {
            for (user, _) in announcement.audience.people(announcement.seq()) {
                places.entry_ref(user).or_insert_with(|| {
                    users.push(user.clone());
                    users.len() - 1
                });
            }
        }
        let routes = match users.is_empty() {
            true => Vec::new(),
            false => directory.lookup(&users).await?,
        };
        Ok(Self { places, routes })
    }

    fn of(&self, user: &UserId) -> &[Route] {
        self.places
            .get(user)
            .and_then(|place| self.routes.get(*place))
            .map_or(&[], Vec::as_slice)
    }
}
