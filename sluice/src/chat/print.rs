//! What a chat prints: entries at their place, lists, and words of its own.

use sluice_client::{Content, Entry};

use super::{
    marks::Place,
    printable,
    render::Page,
    talk::{Talk, now_ms},
};

impl Talk {
    /// Shows entries of the open conversation that weren't shown yet at its end,
    /// or those of its past.
    pub(crate) fn show(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        let page = self.page();
        let (mut lines, mut places) = (Vec::new(), Vec::new());
        for entry in entries {
            let conversation = self.book.at(&entry.conversation);
            let (oldest, newest) = conversation.shown;
            if oldest <= entry.seq && entry.seq <= newest {
                continue;
            }
            let own = entry.sender == self.account.user;
            let is_message = matches!(entry.content, Content::Message { .. });
            let mark = (own && is_message && !entry.conversation.is_group())
                .then(|| conversation.mark(entry.seq));
            if let Some(mark) = mark {
                let column = self.render.mark_column(entry, page.now_ms);
                let message = (entry.conversation.clone(), entry.seq);
                places.push(Place {
                    line: lines.len(),
                    column,
                    message,
                    mark,
                });
            }
            lines.extend(self.render.entry(entry, mark, page));
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.book.shown(&first.conversation, first.seq, last.seq);
        }
        Ok(self.screen.print_marked(&lines, places)?)
    }

    pub(super) fn page(&self) -> Page {
        Page {
            now_ms: now_ms(),
            width: self.screen.width(),
        }
    }

    pub(crate) fn show_list(&mut self) -> anyhow::Result<()> {
        let lines = self.render.list(&self.book.list(), now_ms());
        Ok(self.screen.print(&lines)?)
    }

    /// Something that happened.
    pub(crate) fn note(&mut self, text: &str) -> anyhow::Result<()> {
        let lines = self.wrapped(text);
        let lines: Vec<_> = lines
            .iter()
            .map(|line| self.render.palette.dim(line))
            .collect();
        Ok(self.screen.print(&lines)?)
    }

    /// Something that could not be done.
    pub(super) fn wrong(&mut self, text: &str) -> anyhow::Result<()> {
        // A person sees it and tries again; a script has failed.
        self.failures += u64::from(!self.screen.has_status());
        let lines = self.wrapped(&printable::line(text));
        let lines: Vec<_> = lines
            .iter()
            .map(|line| self.render.palette.wrong(line))
            .collect();
        Ok(self.screen.print(&lines)?)
    }

    fn wrapped(&self, text: &str) -> Vec<String> {
        let lines = vec![format!("-- {text}")];
        printable::wrap(lines, 0, 0, self.screen.width())
    }
}
