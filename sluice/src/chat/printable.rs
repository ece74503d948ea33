//! Others' texts made harmless: what they write is shown, never obeyed.
//!
//! A terminal obeys control characters (C0, DEL, C1), and some reorder what is
//! around them (the bidirectional controls) or end the line. All of these are
//! shown as escapes; everything else, emoji and their joiners included, stays.

use std::{borrow::Cow, fmt::Write as _};

use unicode_width::UnicodeWidthChar;

/// Longer texts are cut here when shown, in characters.
const SHOWN_MAX_CHARS: usize = 8_000;
/// Lines aren't broken into pieces smaller than that, however narrow the screen is.
const WRAP_MIN_COLUMNS: usize = 10;

/// A name or title on one line: nothing in it reaches the terminal as a command.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a string doesn't fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A message as lines of its own, cut when it is very long. The caller indents
/// all but the first, so that none can pass for a message of somebody else.
pub(crate) fn lines(text: &str) -> Vec<String> {
    let (shown, cut) = match text.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => text.split_at(end),
        None => (text, ""),
    };
    let mut lines: Vec<String> = shown
        .split('\n')
        .map(|text| line(&text.trim_end_matches('\r').replace('\t', "    ")).into_owned())
        .collect();
    if !cut.is_empty() {
        lines.push(format!("[{} more bytes]", cut.len()));
    }
    lines
}

/// Breaks lines so that all fit `width` columns, the first behind `used` ones and
/// the others behind `indent`; at spaces, where there are some.
pub(crate) fn wrap(lines: Vec<String>, used: usize, indent: usize, width: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for line in lines {
        let mut rest = line.as_str();
        loop {
            let used = if rows.is_empty() { used } else { indent };
            let room = width.saturating_sub(used).max(WRAP_MIN_COLUMNS);
            let Some(end) = end_of(rest, room) else {
                rows.push(rest.to_owned());
                break;
            };
            let at = rest[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end);
            let (row, after) = rest.split_at(at);
            rows.push(row.to_owned());
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
    }
    rows
}

/// As much of a line as fits `width` columns, with dots where some is missing.
pub(crate) fn row(line: String, width: usize) -> String {
    if end_of(&line, width).is_none() {
        return line;
    }
    let end = end_of(&line, width.saturating_sub(3)).unwrap_or(line.len());
    format!("{}...", &line[..end])
}

/// Where the columns end, in bytes; `None` when all fit. At least one character
/// is before it.
fn end_of(line: &str, room: usize) -> Option<usize> {
    let mut columns = 0;
    let over = line.char_indices().position(|(_, c)| {
        columns += c.width().unwrap_or(0);
        columns > room
    })?;
    line.char_indices().nth(over.max(1)).map(|(at, _)| at)
}

/// A JSON text in which what `line` would escape is escaped too. serde_json
/// leaves DEL, C1 and the reordering characters as they are.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if !text.chars().any(is_unsafe) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // All of them are in the basic plane, and only strings hold them.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a terminal would obey it, or draw its neighbours in another order.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' // direction marks
            | '\u{2028}' | '\u{2029}'            // line and paragraph ends
            | '\u{202a}'..='\u{202e}'            // embeddings and overrides
            | '\u{2066}'..='\u{2069}'            // isolates
            | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_shown() {
        assert_eq!(
            line("a\x1b[2Jb\x07\u{9b}31m"),
            "a\\u{1b}[2Jb\\u{7}\\u{9b}31m"
        );
        assert_eq!(line("safe \u{202e}fdp.exe"), "safe \\u{202e}fdp.exe");
        assert!(matches!(line("爱丽丝 👩‍💻 é"), Cow::Borrowed("爱丽丝 👩‍💻 é")));
    }

    #[test]
    fn a_message_keeps_its_lines() {
        assert_eq!(
            lines("one\r\n\ttwo\rthree\n"),
            ["one", "    two\\u{d}three", ""]
        );
        assert_eq!(lines(""), [""]);
        let long = lines(&"é".repeat(SHOWN_MAX_CHARS + 3));
        assert_eq!(long.last().unwrap(), "[6 more bytes]");
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        let wrapped = |text: &str| wrap(lines(text), 10, 4, 20);
        assert_eq!(wrapped("short"), ["short"]);
        assert_eq!(
            wrapped("four and four and four more"),
            ["four and", "four and four", "more"]
        );
        assert_eq!(
            wrapped("0123456789abcdefghijklmnop"),
            ["0123456789", "abcdefghijklmnop"]
        );
        assert_eq!(wrapped("one\n\ntwo"), ["one", "", "two"]);
        assert_eq!(wrapped("爱丽丝爱丽丝"), ["爱丽丝爱丽", "丝"]);
        assert_eq!(wrap(lines("a b"), 5, 4, 0), ["a b"]);
        assert_eq!(
            wrap(lines("whatever it is"), 9, 9, usize::MAX),
            ["whatever it is"]
        );
    }

    #[test]
    fn a_row_says_that_something_is_missing() {
        assert_eq!(row("hello".into(), 5), "hello");
        assert_eq!(row("hello!".into(), 5), "he...");
        assert_eq!(row("爱丽丝".into(), 5), "爱...");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"text": "\u{1b}\u{7f}\u{9b}\u{202e}\n\"x\\"});
        let text = json(&value);
        assert!(!text.chars().any(is_unsafe), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    proptest! {
        #[test]
        fn nothing_unsafe_comes_through(text in any::<String>()) {
            prop_assert!(!line(&text).chars().any(is_unsafe));
            let kept: String = wrap(lines(&text), 12, 3, 30).concat();
            prop_assert_eq!(kept.replace(' ', ""), lines(&text).concat().replace(' ', ""));
            prop_assert!(!lines(&text).iter().any(|line| line.chars().any(is_unsafe)));
            let value = serde_json::json!({ "text": text });
            let text = json(&value);
            prop_assert!(!text.chars().any(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }
}
