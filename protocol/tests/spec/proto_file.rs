//! The `.proto` files as text: messages with their fields, enums with their
//! values. Knows as much of the language as these files use.

use std::collections::BTreeMap;

/// One field of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Field {
    pub(crate) number: u64,
    pub(crate) name: String,
    /// Without package, with `repeated`: `repeated Entry`.
    pub(crate) kind: String,
}

/// All that is declared in one or more files.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) messages: BTreeMap<String, Vec<Field>>,
    pub(crate) enums: BTreeMap<String, Vec<(u64, String)>>,
}

enum Block {
    Message(String),
    Enum(String),
    Oneof,
}

// === impl Schema ===

impl Schema {
    pub(crate) fn parse(texts: &[&str]) -> Self {
        let mut schema = Self::default();
        for text in texts {
            schema.take(text);
        }
        schema
    }

    pub(crate) fn field(&self, message: &str, number: u64) -> Option<&Field> {
        let fields = self.messages.get(message)?;
        fields.iter().find(|field| field.number == number)
    }

    fn take(&mut self, text: &str) {
        let mut open: Vec<Block> = Vec::new();
        for line in text.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            let words: Vec<&str> = line
                .split([' ', ';', '='])
                .filter(|w| !w.is_empty())
                .collect();
            match words.as_slice() {
                [] | ["syntax" | "package" | "import", ..] => {}
                ["message", name, "{}"] => {
                    self.messages.insert((*name).to_owned(), Vec::new());
                }
                ["message", name, "{"] => {
                    self.messages.insert((*name).to_owned(), Vec::new());
                    open.push(Block::Message((*name).to_owned()));
                }
                ["enum", name, "{"] => {
                    self.enums.insert((*name).to_owned(), Vec::new());
                    open.push(Block::Enum((*name).to_owned()));
                }
                ["oneof", _, "{"] => open.push(Block::Oneof),
                ["}"] => {
                    open.pop().expect("a closing brace of a block");
                }
                [rest @ .., number] => {
                    let number = number.parse().expect("a number ends the line");
                    self.declare(&open, rest, number);
                }
            }
        }
        assert!(open.is_empty(), "every block is closed");
    }

    fn declare(&mut self, open: &[Block], words: &[&str], number: u64) {
        let block = open
            .iter()
            .rev()
            .find(|block| !matches!(block, Block::Oneof));
        match (block, words) {
            (Some(Block::Enum(name)), [value]) => {
                let values = self.enums.get_mut(name).expect("declared above");
                values.push((number, (*value).to_owned()));
            }
            (Some(Block::Message(message)), [kind @ .., name]) => {
                let fields = self.messages.get_mut(message).expect("declared above");
                fields.push(Field {
                    number,
                    name: (*name).to_owned(),
                    kind: kind.join(" ").replace("sluice.v1.", ""),
                });
            }
            _ => panic!("{words:?} = {number} is outside of messages and enums"),
        }
    }
}
