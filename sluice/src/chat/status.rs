//! The status row: where one is, how far the last message came, who is typing,
//! what is unread elsewhere, and how the connection is.

use sluice_client::{ConversationId, Seq, UserId};
use tokio::time::Instant;

use super::{
    printable,
    talk::{Link, Talk},
};

/// Conversations with unread messages that are named.
const UNREAD_NAMED_MAX: usize = 3;

impl Talk {
    /// Draws the row anew if it has changed.
    pub(crate) fn show_status(&mut self) -> anyhow::Result<()> {
        if !self.screen.has_status() {
            return Ok(());
        }
        let now = Instant::now();
        let mut parts = Vec::new();
        match self.open.as_ref().map(|open| self.book.at(open)) {
            Some(open) if open.last_own > Seq(0) && !open.id.is_group() => {
                let mark = open.mark(open.last_own).symbol();
                parts.push(format!("{} {}", printable::line(&open.title), mark.trim()));
            }
            Some(open) => parts.push(printable::line(&open.title).into_owned()),
            None if self.is_ready => parts.push("/to USER opens a conversation".to_owned()),
            None => {}
        }
        let is_typing = |((place, _), until): &(&(ConversationId, UserId), &Instant)| {
            self.open.as_ref() == Some(place) && **until > now
        };
        let typing: Vec<_> = self
            .typing
            .iter()
            .filter(is_typing)
            .map(|((_, who), _)| who)
            .collect();
        match typing.as_slice() {
            [] => {}
            [who] => parts.push(format!("{} is typing...", printable::line(who.as_str()))),
            several => parts.push(format!("{} are typing...", several.len())),
        }
        if !self.unacked.is_empty() {
            parts.push(format!("sending {}", self.unacked.len()));
        }
        let unread = self.unread_elsewhere();
        if !unread.is_empty() {
            parts.push(format!("unread: {unread}"));
        }
        match &self.link {
            Link::Online => {}
            Link::Connecting => parts.push("connecting...".to_owned()),
            Link::Offline(None) => parts.push("offline".to_owned()),
            Link::Offline(Some(at)) => {
                let wait_s = at.saturating_duration_since(now).as_secs();
                parts.push(format!("offline, trying again in {wait_s} s"));
            }
        }
        Ok(self.screen.set_status(parts.join(" | "))?)
    }

    fn unread_elsewhere(&self) -> String {
        let list = self.book.list();
        let unread = list
            .iter()
            .filter(|it| it.unread > 0 && Some(&it.id) != self.open.as_ref());
        let named = unread
            .take(UNREAD_NAMED_MAX)
            .map(|it| format!("{} {}", printable::line(&it.title), it.unread));
        named.collect::<Vec<_>>().join(", ")
    }
}
