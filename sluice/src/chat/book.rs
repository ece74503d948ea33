//! What is known of the conversations: names, how far who has read, what is new.

use std::collections::HashMap;

use sluice_client::{
    Content, ConversationId, ConversationKind, ConversationSummary, Entry, Seq, UserId,
};

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    /// The other party, or the group's name; as they wrote it.
    pub(crate) title: String,
    /// Messages of others that this user hasn't read.
    pub(crate) unread: u64,
    /// Of the newest entry.
    pub(crate) last_time_ms: u64,
    pub(crate) last_seq: Seq,
    /// The own newest message, for its mark and for taking it back.
    pub(crate) last_own: Seq,
    /// This user has read up to here.
    pub(crate) read: Seq,
    /// The other party has all up to here, and has read up to there.
    pub(crate) peer_delivered: Seq,
    pub(crate) peer_read: Seq,
    /// The oldest and the newest entry that were shown; 0: none.
    pub(crate) shown: (Seq, Seq),
}

/// How far a message of one's own has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The server has it.
    Stored,
    /// The other party's device has it.
    Delivered,
    /// The other party has read it.
    Read,
}

/// All conversations of one user.
#[derive(Debug)]
pub(crate) struct Book {
    me: UserId,
    conversations: HashMap<ConversationId, Conversation>,
}

// === impl Book ===

impl Book {
    pub(crate) fn new(me: UserId) -> Self {
        Self {
            me,
            conversations: HashMap::new(),
        }
    }

    /// Takes what the server says of a conversation.
    pub(crate) fn summary(&mut self, summary: &ConversationSummary) {
        let conversation = self.at(&summary.conversation);
        if !summary.title.is_empty() {
            conversation.title.clone_from(&summary.title);
        }
        conversation.last_seq = conversation.last_seq.max(summary.last_seq);
        conversation.read = conversation.read.max(summary.read_seq);
        // What was read a moment ago may not have reached the server yet.
        let all_read = conversation.read >= conversation.last_seq;
        conversation.unread = if all_read { 0 } else { summary.unread };
        conversation.peer_delivered = conversation.peer_delivered.max(summary.peer_delivered_seq);
        conversation.peer_read = conversation.peer_read.max(summary.peer_read_seq);
        if let Some(entry) = &summary.last_entry {
            conversation.last_time_ms = conversation.last_time_ms.max(entry.server_time_ms);
        }
    }

    /// Takes an entry, from the timelines or from history.
    pub(crate) fn entry(&mut self, entry: &Entry, is_new: bool) {
        let own = entry.sender == self.me;
        let conversation = self.at(&entry.conversation);
        conversation.last_seq = conversation.last_seq.max(entry.seq);
        conversation.last_time_ms = conversation.last_time_ms.max(entry.server_time_ms);
        match &entry.content {
            Content::Message { .. } if own => {
                conversation.last_own = conversation.last_own.max(entry.seq);
            }
            Content::Message { .. } if is_new && entry.seq > conversation.read => {
                conversation.unread += 1;
            }
            Content::GroupChange { name, .. } => conversation.title.clone_from(name),
            _ => {}
        }
    }

    /// Entries from one to another seq were shown.
    pub(crate) fn shown(&mut self, id: &ConversationId, from: Seq, to: Seq) {
        let (oldest, newest) = &mut self.at(id).shown;
        if *oldest == Seq(0) || from < *oldest {
            *oldest = from;
        }
        *newest = (*newest).max(to);
    }

    /// This user has read up to `seq`; whether that is news.
    pub(crate) fn read(&mut self, id: &ConversationId, seq: Seq) -> bool {
        let conversation = self.at(id);
        let is_news = seq > conversation.read;
        if is_news {
            conversation.read = seq;
        }
        if conversation.read >= conversation.last_seq {
            conversation.unread = 0;
        }
        is_news
    }

    /// The other party has all up to `seq`; whether that is news of an own message.
    pub(crate) fn peer_delivered(&mut self, id: &ConversationId, seq: Seq) -> bool {
        let conversation = self.at(id);
        let before = conversation.mark(conversation.last_own);
        conversation.peer_delivered = conversation.peer_delivered.max(seq);
        before != conversation.mark(conversation.last_own)
    }

    /// The other party has read all up to `seq`; whether that is news of an own message.
    pub(crate) fn peer_read(&mut self, id: &ConversationId, seq: Seq) -> bool {
        let conversation = self.at(id);
        let before = conversation.mark(conversation.last_own);
        conversation.peer_read = conversation.peer_read.max(seq);
        before != conversation.mark(conversation.last_own)
    }

    /// A conversation, perhaps one that nothing is known of yet.
    pub(crate) fn at(&mut self, id: &ConversationId) -> &mut Conversation {
        let me = &self.me;
        self.conversations
            .entry(id.clone())
            .or_insert_with(|| Conversation::new(id.clone(), me))
    }

    /// How far an own message has come.
    pub(crate) fn mark(&self, id: &ConversationId, seq: Seq) -> Mark {
        let conversation = self.conversations.get(id);
        conversation.map_or(Mark::Stored, |conversation| conversation.mark(seq))
    }

    /// Whether something is known of it.
    pub(crate) fn knows(&self, id: &ConversationId) -> bool {
        self.conversations.contains_key(id)
    }

    /// A group by its id, its number or its name.
    pub(crate) fn group(&self, name: &str) -> Result<ConversationId, String> {
        let id =
            ConversationId::parse(name).or_else(|_| ConversationId::parse(&format!("g:{name}")));
        if let Ok(id) = id
            && id.is_group()
        {
            return Ok(id);
        }
        let mut named = self
            .list()
            .into_iter()
            .filter(|c| c.id.is_group() && c.title == name);
        match (named.next(), named.next()) {
            (Some(group), None) => Ok(group.id.clone()),
            (None, _) => Err(format!(
                "you are in no group named {name:?}; /list shows yours"
            )),
            (Some(_), Some(_)) => Err(format!(
                "several groups are named {name:?}; open one by its number in /list"
            )),
        }
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<&Conversation> {
        let mut list: Vec<_> = self
            .conversations
            .values()
            .filter(|c| c.last_seq > Seq(0))
            .collect();
        list.sort_by(|a, b| {
            b.last_time_ms
                .cmp(&a.last_time_ms)
                .then_with(|| a.id.cmp(&b.id))
        });
        list
    }
}

// === impl Conversation ===

impl Conversation {
    fn new(id: ConversationId, me: &UserId) -> Self {
        let title = match id.kind() {
            ConversationKind::Private(one, other) if one == *me => other.to_string(),
            ConversationKind::Private(one, _) => one.to_string(),
            ConversationKind::Group(number) => format!("group {number}"),
        };
        Self {
            id,
            title,
            unread: 0,
            last_time_ms: 0,
            last_seq: Seq(0),
            last_own: Seq(0),
            read: Seq(0),
            peer_delivered: Seq(0),
            peer_read: Seq(0),
            shown: (Seq(0), Seq(0)),
        }
    }

    /// How far an own message has come; a group's members are not told apart.
    pub(crate) fn mark(&self, seq: Seq) -> Mark {
        match seq {
            seq if seq <= self.peer_read => Mark::Read,
            seq if seq <= self.peer_delivered => Mark::Delivered,
            _ => Mark::Stored,
        }
    }
}

// === impl Mark ===

impl Mark {
    /// Two columns.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Stored => " ·",
            Self::Delivered => " ✓",
            Self::Read => "✓✓",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::render::tests::{entry, message, user};

    #[test]
    fn unread_is_counted_and_read() {
        let mut book = Book::new(user("alice"));
        let hi = message("bob", 1, "hi");
        book.entry(&hi, true);
        book.entry(&message("alice", 2, "hello"), true);
        book.entry(&message("bob", 3, "how are you"), true);
        assert_eq!(book.list()[0].unread, 2);
        assert_eq!(book.list()[0].title, "bob");
        assert!(book.read(&hi.conversation, Seq(3)));
        assert!(!book.read(&hi.conversation, Seq(2)));
        assert_eq!(book.list()[0].unread, 0);
        book.entry(&message("bob", 3, "how are you"), false);
        assert_eq!(book.list()[0].unread, 0);
    }

    #[test]
    fn marks_rise_only() {
        let mut book = Book::new(user("alice"));
        let own = message("alice", 5, "hello");
        let id = own.conversation.clone();
        book.entry(&own, true);
        assert_eq!(book.at(&id).mark(Seq(5)), Mark::Stored);
        assert!(!book.peer_delivered(&id, Seq(4)));
        assert!(book.peer_delivered(&id, Seq(5)));
        assert!(book.peer_read(&id, Seq(5)));
        assert!(!book.peer_delivered(&id, Seq(3)));
        assert_eq!(book.at(&id).mark(Seq(5)), Mark::Read);
        assert_eq!(book.at(&id).mark(Seq(6)), Mark::Stored);
    }

    #[test]
    fn groups_are_found_by_id_number_and_name() {
        let mut book = Book::new(user("alice"));
        for id in ["g:7", "g:8", "g:9"] {
            let name = if id == "g:7" { "team" } else { "twins" }.to_owned();
            let content = Content::GroupChange {
                name,
                created: true,
                members: vec![],
            };
            book.entry(&entry(id, "bob", 1, content), true);
        }
        let team = ConversationId::parse("g:7").unwrap();
        assert_eq!(book.group("team"), Ok(team.clone()));
        assert_eq!(book.group("g:7"), Ok(team.clone()));
        assert_eq!(book.group("7"), Ok(team));
        assert!(book.group("twins").unwrap_err().contains("several"));
        assert!(book.group("else").unwrap_err().contains("/list"));
    }

    #[test]
    fn what_was_shown_has_two_ends() {
        let mut book = Book::new(user("alice"));
        let id = message("bob", 1, "").conversation;
        book.shown(&id, Seq(10), Seq(20));
        book.shown(&id, Seq(5), Seq(9));
        book.shown(&id, Seq(21), Seq(21));
        assert_eq!(book.at(&id).shown, (Seq(5), Seq(21)));
    }
}
