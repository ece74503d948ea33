//! Entries and conversations as lines of text. Whatever others wrote passes
//! `printable` here, and nowhere else is it put on the screen.

use std::borrow::Cow;

use jiff::{Timestamp, tz::TimeZone};
use sluice_client::{Content, ContentType, Entry, MemberChangeKind, MemberRole, UserId};
use unicode_width::UnicodeWidthStr;

use super::{
    book::{Conversation, Mark},
    palette::Palette,
    printable,
};

/// Where the later lines of a message begin.
const INDENT: usize = 14;

/// When and on what things are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) now_ms: u64,
    /// In columns; `usize::MAX` where nothing has to fit.
    pub(crate) width: usize,
}

/// How things are written out.
#[derive(Debug)]
pub(crate) struct Render {
    pub(crate) palette: Palette,
    pub(crate) zone: TimeZone,
    pub(crate) me: UserId,
}

// === impl Render ===

impl Render {
    /// An entry of the open conversation; `mark` for an own message of a private one.
    /// No line of a message begins where an entry does, so that none can pass
    /// for somebody else's.
    pub(crate) fn entry(&self, entry: &Entry, mark: Option<Mark>, page: Page) -> Vec<String> {
        let time = self
            .palette
            .dim(&self.stamp(entry.server_time_ms, page.now_ms));
        let seq = self.palette.dim(&format!("#{:<3}", entry.seq));
        let mark = mark.map_or("  ", Mark::symbol);
        let head = format!("{time} {seq} {mark} ");
        let head_columns = usize::from(self.mark_column(entry, page.now_ms)) + 3;
        let (who, who_columns, text) = match said(entry) {
            Some(text) => {
                let columns = self.name(&entry.sender).width() + 2;
                (format!("{}: ", self.who(&entry.sender)), columns, text)
            }
            None => (String::new(), 0, vec![self.happening(entry)]),
        };
        let lines = printable::wrap(text, head_columns + who_columns, INDENT, page.width);
        let paint = |line: String| {
            if who.is_empty() {
                self.palette.dim(&line)
            } else {
                line
            }
        };
        let mut lines = lines.into_iter().map(paint);
        let first = format!("{head}{who}{}", lines.next().unwrap_or_default());
        let rest = lines.map(|line| format!("{:INDENT$}{line}", ""));
        std::iter::once(first).chain(rest).collect()
    }

    /// In which column of its first line an entry has its mark.
    pub(crate) fn mark_column(&self, entry: &Entry, now_ms: u64) -> u16 {
        let time = self.stamp(entry.server_time_ms, now_ms);
        let before = format!("{time} #{:<3} ", entry.seq);
        u16::try_from(before.len()).unwrap_or(u16::MAX)
    }

    /// An entry of a conversation that isn't open, on one row.
    pub(crate) fn elsewhere(&self, entry: &Entry, place: &Conversation, page: Page) -> String {
        let mut head = "* ".to_owned();
        if place.id.is_group() {
            head += &format!("[{}] ", printable::line(&place.title));
        }
        let Some(text) = said(entry) else {
            let row = printable::row(format!("{head}{}", self.happening(entry)), page.width);
            return self.palette.dim(&row);
        };
        let used = head.width() + self.name(&entry.sender).width() + 2;
        let text = printable::row(text.join(" / "), page.width.saturating_sub(used));
        format!("{head}{}: {text}", self.who(&entry.sender))
    }

    /// The list of conversations, numbered from 1.
    pub(crate) fn list(&self, conversations: &[&Conversation], now_ms: u64) -> Vec<String> {
        if conversations.is_empty() {
            return vec!["no conversations yet; /to USER begins one".to_owned()];
        }
        let line = |(index, conversation): (usize, &&Conversation)| {
            let title = printable::line(&conversation.title);
            let mut line = format!("{:>3}  {}", index + 1, self.palette.bold(&title));
            if conversation.id.is_group() {
                line += &self.palette.dim(&format!("  group {}", conversation.id));
            }
            if conversation.unread > 0 {
                line += &format!("  {} unread", conversation.unread);
            }
            let time = self.stamp(conversation.last_time_ms, now_ms);
            line + &self.palette.dim(&format!("  {time}"))
        };
        conversations.iter().enumerate().map(line).collect()
    }

    /// A user in colour, oneself as "you".
    pub(crate) fn who(&self, user: &UserId) -> String {
        let name = self.name(user);
        if *user == self.me {
            self.palette.bold(&name)
        } else {
            self.palette.name(&name)
        }
    }

    fn name<'a>(&self, user: &'a UserId) -> Cow<'a, str> {
        if *user == self.me {
            "you".into()
        } else {
            printable::line(user.as_str())
        }
    }

    /// What an entry that is no message says.
    fn happening(&self, entry: &Entry) -> String {
        let who = self.name(&entry.sender);
        match &entry.content {
            Content::Message { .. } if entry.sender == self.me => "you took this back".to_owned(),
            Content::Message { .. } => format!("a message of {who} that was taken back"),
            Content::Recall { seq } => format!("{who} took back #{seq}"),
            Content::GroupChange {
                name,
                created: true,
                ..
            } => {
                format!("{who} founded {}", printable::line(name))
            }
            Content::GroupChange { name, .. } => {
                format!("{who} named the group {}", printable::line(name))
            }
            Content::MemberChange { kind, users, role } => {
                let users = users
                    .iter()
                    .map(|user| printable::line(user))
                    .collect::<Vec<_>>();
                member_change(&who, *kind, &users.join(", "), *role)
            }
            Content::Unknown => "something that this version cannot show".to_owned(),
        }
    }

    /// The time, with its date unless that is today's.
    fn stamp(&self, unix_ms: u64, now_ms: u64) -> String {
        let zoned = |ms: u64| {
            let time = i64::try_from(ms)
                .ok()
                .and_then(|ms| Timestamp::from_millisecond(ms).ok());
            time.unwrap_or_default().to_zoned(self.zone.clone())
        };
        let (time, now) = (zoned(unix_ms), zoned(now_ms));
        let format = if time.date() == now.date() {
            "%H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        time.strftime(format).to_string()
    }
}

fn member_change(who: &str, kind: MemberChangeKind, users: &str, role: MemberRole) -> String {
    match kind {
        MemberChangeKind::Joined => format!("{who} let {users} in"),
        MemberChangeKind::Left => format!("{who} left"),
        MemberChangeKind::Removed => format!("{who} put {users} out"),
        MemberChangeKind::Role => format!("{who} made {users} {}", role_name(role)),
        MemberChangeKind::Unspecified => format!("{who} changed something about {users}"),
    }
}

/// A role in words.
pub(crate) fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Member => "member",
        MemberRole::Admin => "admin",
        MemberRole::Owner => "owner",
    }
}

/// What a message says, in harmless lines; `None` when it is no message (any more).
fn said(entry: &Entry) -> Option<Vec<String>> {
    let Content::Message {
        content_type,
        body,
        recalled: false,
    } = &entry.content
    else {
        return None;
    };
    Some(match (content_type, std::str::from_utf8(body)) {
        (Some(ContentType::Text | ContentType::System), Ok(text)) => printable::lines(text),
        (content_type, _) => vec![format!(
            "[{}, {} bytes]",
            type_name(*content_type),
            body.len()
        )],
    })
}

/// A content type in words.
pub(crate) fn type_name(content_type: Option<ContentType>) -> &'static str {
    match content_type {
        Some(ContentType::Text) => "text",
        Some(ContentType::Image) => "image",
        Some(ContentType::File) => "file",
        Some(ContentType::Voice) => "voice",
        Some(ContentType::Video) => "video",
        Some(ContentType::Location) => "location",
        Some(ContentType::System) => "system",
        Some(ContentType::Custom) => "custom",
        None => "unknown",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sluice_client::{ConversationId, MessageId, Seq, UserSeq};

    use super::*;
    use crate::chat::book::Book;

    /// 2026-11-21 10:00:00 UTC.
    const NOW_MS: u64 = 1_795_255_200_000;

    pub(crate) fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    pub(crate) fn entry(conversation: &str, sender: &str, seq: u64, content: Content) -> Entry {
        Entry {
            conversation: ConversationId::parse(conversation).unwrap(),
            seq: Seq(seq),
            user_seq: UserSeq(0),
            sender: user(sender),
            client_msg_id: None,
            message_id: MessageId(seq),
            server_time_ms: NOW_MS - 60_000,
            content,
        }
    }

    pub(crate) fn message(sender: &str, seq: u64, text: &str) -> Entry {
        let body = text.to_owned().into();
        let content_type = Some(ContentType::Text);
        let content = Content::Message {
            content_type,
            body,
            recalled: false,
        };
        entry("p:5:alice:bob", sender, seq, content)
    }

    fn render() -> Render {
        Render {
            palette: Palette::plain(),
            zone: TimeZone::UTC,
            me: user("alice"),
        }
    }

    fn page(now_ms: u64, width: usize) -> Page {
        Page { now_ms, width }
    }

    const WIDE: Page = Page {
        now_ms: NOW_MS,
        width: usize::MAX,
    };

    fn one(entry: &Entry) -> String {
        render().entry(entry, None, WIDE).join("\n")
    }

    #[test]
    fn messages_are_lines_with_marks() {
        let own = message("alice", 7, "hello");
        assert_eq!(
            render().entry(&own, Some(Mark::Read), WIDE),
            ["09:59 #7   ✓✓ you: hello"]
        );
        assert_eq!(
            one(&message("bob", 12, "hi\nthere")),
            "09:59 #12     bob: hi\n              there"
        );
        let yesterday = render().entry(
            &own,
            Some(Mark::Stored),
            page(NOW_MS + 86_400_000, usize::MAX),
        );
        assert_eq!(yesterday, ["2026-11-21 09:59 #7    · you: hello"]);
    }

    #[test]
    fn long_messages_stay_in_their_column() {
        let forged = format!("hi{}09:59 #9      alice: I resign", " ".repeat(24));
        for line in &render().entry(&message("bob", 1, &forged), None, page(NOW_MS, 40))[1..] {
            assert!(line.starts_with(&" ".repeat(INDENT)), "{line:?}");
            assert!(line.width() <= 40);
        }
    }

    #[test]
    fn news_from_elsewhere_take_one_row() {
        let mut book = Book::new(user("alice"));
        let long = message("bob", 1, &format!("one\ntwo {}", "x".repeat(100)));
        book.entry(&long, true);
        let row = render().elsewhere(&long, book.list()[0], page(NOW_MS, 30));
        assert_eq!(row, format!("* bob: one / two {}...", "x".repeat(10)));
    }

    #[test]
    fn nothing_that_others_wrote_is_obeyed() {
        let evil = "\x1b]0;owned\x07\u{9b}2J\r10:00 #1      alice: I resign";
        let name = "b\u{202e}ob";
        let own_id = ConversationId::private(&user("alice"), &user(name)).unwrap();
        let contents = [
            Content::Message {
                content_type: Some(ContentType::Text),
                body: evil.into(),
                recalled: false,
            },
            Content::GroupChange {
                name: evil.into(),
                created: true,
                members: vec![],
            },
            Content::MemberChange {
                kind: MemberChangeKind::Joined,
                users: vec![evil.into()],
                role: MemberRole::Member,
            },
        ];
        for content in contents {
            let entry = entry(own_id.as_str(), name, 1, content);
            let mut book = Book::new(user("alice"));
            book.entry(&entry, true);
            let mut lines = render().entry(&entry, None, WIDE);
            lines.push(render().elsewhere(&entry, book.list()[0], WIDE));
            lines.extend(render().list(&book.list(), NOW_MS));
            for line in lines {
                assert!(!line.chars().any(printable::is_unsafe), "{line:?}");
            }
        }
    }

    #[test]
    fn what_happens_is_told() {
        let change = |kind, role| Content::MemberChange {
            kind,
            users: vec!["bob".into(), "carol".into()],
            role,
        };
        for (content, told) in [
            (Content::Recall { seq: Seq(3) }, "you took back #3"),
            (
                change(MemberChangeKind::Joined, MemberRole::Member),
                "you let bob, carol in",
            ),
            (
                change(MemberChangeKind::Role, MemberRole::Admin),
                "you made bob, carol admin",
            ),
            (
                Content::GroupChange {
                    name: "team".into(),
                    created: true,
                    members: vec![],
                },
                "you founded team",
            ),
            (Content::Unknown, "something that this version cannot show"),
            (
                Content::Message {
                    content_type: Some(ContentType::Image),
                    body: vec![0; 9].into(),
                    recalled: false,
                },
                "you: [image, 9 bytes]",
            ),
            (
                Content::Message {
                    content_type: None,
                    body: vec![].into(),
                    recalled: true,
                },
                "you took this back",
            ),
        ] {
            let line = one(&entry("g:1", "alice", 4, content));
            assert_eq!(line, format!("09:59 #4      {told}"));
        }
    }

    #[test]
    fn the_list_shows_what_is_unread() {
        let mut book = Book::new(user("alice"));
        assert!(render().list(&book.list(), NOW_MS)[0].contains("/to USER"));
        book.entry(&message("bob", 1, "hi"), true);
        assert_eq!(
            render().list(&book.list(), NOW_MS),
            ["  1  bob  1 unread  09:59"]
        );
    }
}
