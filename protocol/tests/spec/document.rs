//! SPEC.md as the tests read it: tables under headings, fenced blocks.

use std::collections::BTreeMap;

/// A line of a table, cell by cell, without back quotes.
pub(crate) type Row = Vec<String>;

/// A fenced block whose first word is its language: ```` ```hex name=ping frame=tcp ````.
#[derive(Debug)]
pub(crate) struct Fenced {
    /// `key=value` words behind the language.
    pub(crate) keys: BTreeMap<String, String>,
    /// Lines between the fences.
    pub(crate) body: String,
}

/// The document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) text: String,
}

// === impl Document ===

impl Document {
    /// Rows of the tables under the one heading that ends in `title` (after its
    /// hashes and number), up to the next heading of any level. Heads of tables
    /// are left out.
    pub(crate) fn rows(&self, title: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut inside = false;
        let mut found = 0;
        let mut fenced = false;
        for line in self.text.lines() {
            fenced ^= line.starts_with("```");
            if fenced {
                continue;
            }
            if line.starts_with('#') {
                inside = heading(line) == title;
                found += usize::from(inside);
            } else if inside && line.starts_with("|---") {
                // The line above it was the table's head.
                rows.pop();
            } else if inside && line.starts_with('|') {
                rows.push(cells(line));
            }
        }
        assert_eq!(found, 1, "SPEC.md has one heading `{title}`");
        rows
    }

    /// All blocks of a language.
    pub(crate) fn fenced(&self, language: &str) -> Vec<Fenced> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(info) = line.strip_prefix("```") else {
                continue;
            };
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let mut words = info.split_whitespace();
            if words.next() == Some(language) {
                blocks.push(Fenced {
                    keys: words
                        .filter_map(|word| word.split_once('='))
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .collect(),
                    body: body.join("\n") + "\n",
                });
            }
        }
        blocks
    }
}

/// A heading without hashes, chapter number and back quotes.
fn heading(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().replace('`', "");
    let numbered = |c: char| c.is_ascii_digit() || c == '.';
    match text.split_once(' ') {
        Some((number, rest)) if number.chars().all(numbered) => rest.to_owned(),
        _ => text,
    }
}

fn cells(line: &str) -> Row {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().replace('`', ""))
        .collect()
}

// === impl Fenced ===

impl Fenced {
    /// The bytes of a hex block; what follows `#` on a line is a remark.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.body
            .lines()
            .flat_map(|line| {
                line.split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
            .collect()
    }
}
