//! Reads a chat log: one JSON object a line, gzipped or not.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// The excerpt that ships with the program, so that it runs anywhere.
const EXCERPT: &[u8] = include_bytes!("../../data/chitchat-excerpt.ndjson.gz");

/// One conversation of the log, in the order it was held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedConversation {
    /// The people in it, in order of their first message.
    pub speakers: Vec<String>,
    /// What they said.
    pub messages: Vec<LoggedMessage>,
}

/// One message of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedMessage {
    /// Index into `speakers`.
    pub speaker: usize,
    /// UTF-8.
    pub text: Bytes,
}

#[derive(Deserialize)]
struct Line {
    conversation: String,
    sender: String,
    text: String,
}

/// Reads the first `limit` conversations of a log file, or of the excerpt.
pub fn read(path: Option<&Path>, limit: usize) -> anyhow::Result<Vec<LoggedConversation>> {
    match path {
        None => parse(MultiGzDecoder::new(EXCERPT), limit).context("the excerpt that ships"),
        Some(path) => {
            let file = File::open(path)
                .with_context(|| format!("cannot open the chat log {}", path.display()))?;
            let gzipped = path.extension().is_some_and(|extension| extension == "gz");
            let reader: Box<dyn Read> = if gzipped {
                Box::new(MultiGzDecoder::new(file))
            } else {
                Box::new(file)
            };
            parse(reader, limit).with_context(|| format!("the chat log {}", path.display()))
        }
    }
}

fn parse(reader: impl Read, limit: usize) -> anyhow::Result<Vec<LoggedConversation>> {
    let mut places = HashMap::<String, Option<usize>>::new();
    let mut conversations = Vec::<LoggedConversation>::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.with_context(|| format!("line {}", number + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line =
            serde_json::from_str(&line).map_err(|error| bad_line(number + 1, &error))?;
        let place = *places.entry(line.conversation).or_insert_with(|| {
            (conversations.len() < limit).then(|| {
                conversations.push(LoggedConversation {
                    speakers: vec![],
                    messages: vec![],
                });
                conversations.len() - 1
            })
        });
        let Some(conversation) = place.and_then(|place| conversations.get_mut(place)) else {
            continue;
        };
        let known = conversation
            .speakers
            .iter()
            .position(|speaker| *speaker == line.sender);
        let speaker = known.unwrap_or_else(|| {
            conversation.speakers.push(line.sender);
            conversation.speakers.len() - 1
        });
        conversation.messages.push(LoggedMessage {
            speaker,
            text: line.text.into(),
        });
    }
    // A monologue has nobody to receive it.
    conversations.retain(|conversation| conversation.speakers.len() >= 2);
    if conversations.is_empty() {
        bail!("no conversation of two people or more is in it");
    }
    Ok(conversations)
}

/// serde knows one line and counts it as line 1: what it says of places is left out.
fn bad_line(number: usize, error: &serde_json::Error) -> anyhow::Error {
    let said = error.to_string();
    let what = said
        .rsplit_once(" at line ")
        .map_or(&*said, |(what, _)| what);
    anyhow!(
        "line {number}, column {}: {what}; a line must be \
         {{\"conversation\":…,\"sender\":…,\"text\":…}}",
        error.column()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_holds_200_conversations() {
        let log = read(None, usize::MAX).unwrap();
        assert_eq!(log.len(), 200);
        assert!(
            log.iter()
                .all(|conversation| conversation.speakers.len() == 2)
        );
        assert_eq!(read(None, 3).unwrap(), log[..3]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.ndjson");
        let good = r#"{"conversation":"a","sender":"b","text":"c"}"#;
        std::fs::write(&path, format!("{good}\n\n{good}{{\n")).unwrap();
        let error = format!("{:#}", read(Some(&path), 9).unwrap_err());
        let place = "log.ndjson: line 3, column 45: trailing characters; a line must be";
        assert!(error.contains(place), "{error}");
        assert!(!error.contains("line 1"), "{error}");
        assert!(parse(&b""[..], 9).is_err());
    }
}
