//! The line being typed: keys go in, a line comes out. Knows no terminal.

use std::collections::VecDeque;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use unicode_width::UnicodeWidthChar;

/// What fits a message body whatever its characters are.
const LINE_MAX_CHARS: usize = 15_000;
/// Lines that the up key finds again.
const HISTORY_MAX_LINES: usize = 100;

/// The line being typed, with those typed before.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    line: Vec<char>,
    /// Characters before the cursor.
    cursor: usize,
    history: VecDeque<String>,
    /// How far up the history is; 0 is the line itself.
    back: usize,
    /// What stood there before the up key was pressed.
    draft: Vec<char>,
}

/// What a key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Nothing to be drawn.
    Nothing,
    /// Line or cursor.
    Changed,
    /// This line is done.
    Entered(String),
    /// Clear the screen.
    Clear,
    /// The user wants to go.
    Leave,
}

// === impl Editor ===

impl Editor {
    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Typed {
        if key.kind == KeyEventKind::Release {
            return Typed::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char(c) if control => return self.control(c),
            KeyCode::Enter if alt => self.insert('\n'),
            KeyCode::Enter => return self.enter(),
            KeyCode::Backspace if alt => self.erase_word(),
            KeyCode::Backspace => self.erase_before(),
            KeyCode::Delete => self.erase_at(),
            KeyCode::Left => self.cursor = self.left(),
            KeyCode::Right => self.cursor = self.right(),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.line.len(),
            KeyCode::Up => self.recall(self.back.saturating_add(1)),
            KeyCode::Down => self.recall(self.back.saturating_sub(1)),
            KeyCode::Char(c) if !alt => self.insert(c),
            _ => return Typed::Nothing,
        }
        Typed::Changed
    }

    /// Takes pasted text; its line ends don't end the line.
    pub(crate) fn paste(&mut self, text: &str) {
        for c in text.replace("\r\n", "\n").replace('\r', "\n").chars() {
            self.insert(c);
        }
    }

    /// The line so far.
    pub(crate) fn line(&self) -> String {
        self.line.iter().collect()
    }

    /// What of the line fits `width` columns, and the cursor's column in it.
    pub(crate) fn view(&self, width: usize) -> (String, usize) {
        // One column stays free for the cursor behind the last character.
        let room = width.saturating_sub(1);
        let (before, after) = self.line.split_at(self.cursor);
        let mut column = 0;
        let start = before
            .iter()
            .rposition(|c| {
                column += columns(*c);
                column > room
            })
            .map_or(0, |cut| cut + 1);
        let mut shown: String = before[start..].iter().map(|c| symbol(*c)).collect();
        let cursor = before[start..].iter().map(|c| columns(*c)).sum();
        column = cursor;
        for c in after {
            column += columns(*c);
            if column > room {
                break;
            }
            shown.push(symbol(*c));
        }
        (shown, cursor)
    }

    fn control(&mut self, c: char) -> Typed {
        match c {
            'c' => return Typed::Leave,
            'd' if self.line.is_empty() => return Typed::Leave,
            'd' => self.erase_at(),
            'l' => return Typed::Clear,
            'a' => self.cursor = 0,
            'e' => self.cursor = self.line.len(),
            'b' => self.cursor = self.left(),
            'f' => self.cursor = self.right(),
            'h' => self.erase_before(),
            'w' => self.erase_word(),
            'k' => self.line.truncate(self.cursor),
            'u' => {
                self.line.drain(..self.cursor);
                self.cursor = 0;
            }
            'p' => self.recall(self.back.saturating_add(1)),
            'n' => self.recall(self.back.saturating_sub(1)),
            // Ctrl-J is a line feed on its way.
            'j' => return self.enter(),
            _ => return Typed::Nothing,
        }
        Typed::Changed
    }

    fn enter(&mut self) -> Typed {
        let line = self.line();
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(HISTORY_MAX_LINES - 1);
            self.history.push_front(line.clone());
        }
        self.line.clear();
        self.cursor = 0;
        self.back = 0;
        self.draft.clear();
        Typed::Entered(line)
    }

    fn insert(&mut self, c: char) {
        let is_wanted = c == '\n' || !c.is_control();
        if is_wanted && self.line.len() < LINE_MAX_CHARS {
            self.line.insert(self.cursor, c);
            self.cursor += 1;
        }
    }

    /// One character to the left, with what is drawn onto it.
    fn left(&self) -> usize {
        let before = &self.line[..self.cursor];
        before.iter().rposition(|c| columns(*c) > 0).unwrap_or(0)
    }

    fn right(&self) -> usize {
        let after = self.line.get(self.cursor + 1..).unwrap_or_default();
        let more = after
            .iter()
            .position(|c| columns(*c) > 0)
            .unwrap_or(after.len());
        (self.cursor + 1 + more).min(self.line.len())
    }

    fn erase_before(&mut self) {
        let left = self.left();
        self.line.drain(left..self.cursor);
        self.cursor = left;
    }

    fn erase_at(&mut self) {
        self.line.drain(self.cursor..self.right());
    }

    fn erase_word(&mut self) {
        let before = &self.line[..self.cursor];
        let word_end = before
            .iter()
            .rposition(|c| !c.is_whitespace())
            .map_or(0, |at| at + 1);
        let space = before[..word_end].iter().rposition(|c| c.is_whitespace());
        let start = space.map_or(0, |at| at + 1);
        self.line.drain(start..self.cursor);
        self.cursor = start;
    }

    fn recall(&mut self, back: usize) {
        if back > self.history.len() || back == self.back {
            return;
        }
        if self.back == 0 {
            self.draft = std::mem::take(&mut self.line);
        }
        self.back = back;
        self.line = match back.checked_sub(1) {
            Some(index) => self.history[index].chars().collect(),
            None => std::mem::take(&mut self.draft),
        };
        self.cursor = self.line.len();
    }
}

/// How a character of the line is drawn: on one row, and never obeyed.
fn symbol(c: char) -> char {
    match c {
        '\n' => '⏎',
        c if super::printable::is_unsafe(c) => '\u{fffd}',
        c => c,
    }
}

fn columns(c: char) -> usize {
    symbol(c).width().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn press(editor: &mut Editor, code: KeyCode) -> Typed {
        editor.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn control(editor: &mut Editor, c: char) -> Typed {
        editor.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        for c in text.chars() {
            press(&mut editor, KeyCode::Char(c));
        }
        editor
    }

    #[test]
    fn a_line_is_typed_mended_and_entered() {
        let mut editor = typed("helo world");
        (0..7).for_each(|_| drop(press(&mut editor, KeyCode::Left)));
        press(&mut editor, KeyCode::Char('l'));
        press(&mut editor, KeyCode::End);
        assert_eq!(
            press(&mut editor, KeyCode::Enter),
            Typed::Entered("hello world".into())
        );
        assert_eq!(editor.line(), "");
        assert_eq!(control(&mut editor, 'd'), Typed::Leave);
    }

    #[test]
    fn words_and_ends_are_erased() {
        let mut editor = typed("one two  ");
        control(&mut editor, 'w');
        assert_eq!(editor.line(), "one ");
        press(&mut editor, KeyCode::Left);
        control(&mut editor, 'k');
        assert_eq!(editor.line(), "one");
        control(&mut editor, 'b');
        control(&mut editor, 'u');
        assert_eq!(editor.line(), "e");
        press(&mut editor, KeyCode::Delete);
        assert_eq!(editor.line(), "");
        press(&mut editor, KeyCode::Backspace);
        assert_eq!(control(&mut editor, 'c'), Typed::Leave);
    }

    #[test]
    fn combining_marks_go_with_their_character() {
        let mut editor = typed("ae\u{301}");
        press(&mut editor, KeyCode::Left);
        assert_eq!(editor.view(10), ("ae\u{301}".into(), 1));
        press(&mut editor, KeyCode::Right);
        press(&mut editor, KeyCode::Backspace);
        assert_eq!(editor.line(), "a");
    }

    #[test]
    fn earlier_lines_come_back_and_the_draft_stays() {
        let mut editor = typed("first");
        press(&mut editor, KeyCode::Enter);
        editor.paste("draft");
        press(&mut editor, KeyCode::Up);
        assert_eq!(editor.line(), "first");
        press(&mut editor, KeyCode::Up);
        assert_eq!(editor.line(), "first");
        press(&mut editor, KeyCode::Down);
        assert_eq!(editor.line(), "draft");
        press(&mut editor, KeyCode::Down);
        assert_eq!(editor.line(), "draft");
    }

    #[test]
    fn a_paste_keeps_its_lines_and_loses_its_controls() {
        let mut editor = Editor::default();
        editor.paste("one\r\ntwo\x1b[2J");
        assert_eq!(editor.line(), "one\ntwo[2J");
        assert_eq!(editor.view(80).0, "one⏎two[2J");
        editor.paste(&"x".repeat(2 * LINE_MAX_CHARS));
        assert_eq!(editor.line.len(), LINE_MAX_CHARS);
    }

    #[test]
    fn the_view_follows_the_cursor() {
        let mut editor = typed("abcdefghij");
        assert_eq!(editor.view(5), ("ghij".into(), 4));
        press(&mut editor, KeyCode::Home);
        assert_eq!(editor.view(5), ("abcd".into(), 0));
        assert_eq!(typed("爱丽丝").view(6), ("丽丝".into(), 4));
    }

    proptest! {
        #[test]
        fn no_keys_break_it(
            keys in prop::collection::vec((0_u8..14, any::<char>()), 0..80),
            width in 0_usize..40,
        ) {
            let mut editor = Editor::default();
            for (key, c) in keys {
                match key {
                    0 => drop(press(&mut editor, KeyCode::Left)),
                    1 => drop(press(&mut editor, KeyCode::Right)),
                    2 => drop(press(&mut editor, KeyCode::Backspace)),
                    3 => drop(press(&mut editor, KeyCode::Delete)),
                    4 => drop(press(&mut editor, KeyCode::Up)),
                    5 => drop(press(&mut editor, KeyCode::Down)),
                    6 => drop(press(&mut editor, KeyCode::Enter)),
                    7 => drop(control(&mut editor, 'w')),
                    8 => drop(control(&mut editor, 'a')),
                    9 => editor.paste("e\u{301}\n丝"),
                    _ => drop(press(&mut editor, KeyCode::Char(c))),
                }
                prop_assert!(editor.cursor <= editor.line.len());
                let (shown, cursor) = editor.view(width);
                prop_assert!(cursor <= width.saturating_sub(1));
                prop_assert!(shown.chars().map(columns).sum::<usize>() <= width.saturating_sub(1));
                prop_assert!(!shown.contains(char::is_control));
                let _ = shown.width();
            }
        }
    }
}
