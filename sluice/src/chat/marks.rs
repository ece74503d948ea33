//! Where on the terminal the marks of own messages stand, so that they can be
//! drawn over when the other party has received or read them.
//!
//! Rows are counted as they are printed. Terminals don't agree on how wide some
//! characters are; where that could change the count, the marks above are
//! forgotten, and stay as they were printed.

use std::collections::VecDeque;

use sluice_client::{ConversationId, Seq};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::book::Mark;

/// Marks are drawn over on so many messages at most, even on tall terminals.
const PLACES_MAX: usize = 256;

/// A mark that is about to be printed.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// In which of the lines, and where in it.
    pub(crate) line: usize,
    pub(crate) column: u16,
    /// Of which message.
    pub(crate) message: (ConversationId, Seq),
    pub(crate) mark: Mark,
}

/// The marks on the terminal, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    printed: VecDeque<Printed>,
}

#[derive(Debug)]
struct Printed {
    /// Rows up from the row below the last line.
    up: u16,
    column: u16,
    message: (ConversationId, Seq),
    mark: Mark,
}

/// A mark to be drawn over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remark {
    /// Rows up from the row below the last line.
    pub(crate) up: u16,
    pub(crate) column: u16,
    pub(crate) mark: Mark,
}

// === impl Marks ===

impl Marks {
    /// Lines were printed on a terminal so wide, of which so many rows can be
    /// reached.
    pub(crate) fn printed(
        &mut self,
        lines: &[String],
        places: Vec<Place>,
        width: usize,
        height: u16,
    ) {
        let mut places = places.into_iter().peekable();
        for (index, line) in lines.iter().enumerate() {
            while let Some(place) = places.next_if(|place| place.line == index) {
                let Place {
                    column,
                    message,
                    mark,
                    ..
                } = place;
                self.printed.push_back(Printed {
                    up: 0,
                    column,
                    message,
                    mark,
                });
            }
            match rows(line, width) {
                Some(rows) => {
                    self.printed
                        .iter_mut()
                        .for_each(|it| it.up = it.up.saturating_add(rows));
                }
                None => self.forget(),
            }
        }
        self.printed.retain(|it| it.up <= height);
        let too_many = self.printed.len().saturating_sub(PLACES_MAX);
        self.printed.drain(..too_many);
    }

    /// What has changed, by what is known now.
    pub(crate) fn changed(&mut self, mark: impl Fn(&ConversationId, Seq) -> Mark) -> Vec<Remark> {
        let mut changed = Vec::new();
        for it in &mut self.printed {
            let now = mark(&it.message.0, it.message.1);
            if std::mem::replace(&mut it.mark, now) != now {
                changed.push(Remark {
                    up: it.up,
                    column: it.column,
                    mark: now,
                });
            }
        }
        changed
    }

    /// The rows are no longer where they were.
    pub(crate) fn forget(&mut self) {
        self.printed.clear();
    }
}

/// Rows that a line takes; `None` when terminals may differ.
fn rows(line: &str, width: usize) -> Option<u16> {
    let text = without_colours(line);
    let columns: usize = text.chars().map(|c| c.width().unwrap_or(0)).sum();
    let width = width.max(1);
    let has_wide = columns != text.chars().count();
    if columns != text.width() || (has_wide && columns >= width) {
        return None;
    }
    u16::try_from(columns.div_ceil(width).max(1)).ok()
}

/// A line without what `Palette` puts into it.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    std::iter::once(first).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize, seq: u64) -> Place {
        let conversation = ConversationId::parse("p:5:alice:bob").unwrap();
        Place {
            line,
            column: 11,
            message: (conversation, Seq(seq)),
            mark: Mark::Stored,
        }
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn marks_rise_with_the_rows_below_them() {
        let mut marks = Marks::default();
        marks.printed(
            &lines(&["one", "two"]),
            vec![place(0, 1), place(1, 2)],
            10,
            22,
        );
        marks.printed(&lines(&["0123456789", "0123456789a", ""]), vec![], 10, 22);
        let remarks = marks.changed(|_, seq| {
            if seq < Seq(2) {
                Mark::Read
            } else {
                Mark::Stored
            }
        });
        assert_eq!(
            remarks,
            [Remark {
                up: 6,
                column: 11,
                mark: Mark::Read
            }]
        );
        let remarks = marks.changed(|_, _| Mark::Read);
        assert_eq!(
            remarks,
            [Remark {
                up: 5,
                column: 11,
                mark: Mark::Read
            }]
        );
        assert_eq!(marks.changed(|_, _| Mark::Read), []);
    }

    #[test]
    fn what_has_scrolled_away_is_forgotten() {
        let mut marks = Marks::default();
        marks.printed(&lines(&["one"]), vec![place(0, 1)], 80, 3);
        marks.printed(&lines(&["a", "b"]), vec![], 80, 3);
        assert_eq!(marks.printed.len(), 1);
        marks.printed(&lines(&["c"]), vec![], 80, 3);
        assert_eq!(marks.printed.len(), 0);
    }

    #[test]
    fn rows_are_counted_where_all_terminals_agree() {
        assert_eq!(rows("\x1b[2m0123\x1b[0m\x1b[31m456789\x1b[0m", 10), Some(1));
        assert_eq!(rows("0123456789a", 10), Some(2));
        assert_eq!(rows("爱丽丝", 10), Some(1));
        assert_eq!(rows("爱丽丝爱丽丝", 10), None);
        assert_eq!(rows("👩‍💻", 10), None);
        assert_eq!(rows("", 10), Some(1));
    }
}
