//! What a typed line means: something to say, or a command.

use sluice_client::{MemberRole, UserId};

/// A typed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// An empty line.
    Nothing,
    /// To the open conversation.
    Say(String),
    /// Starts with a slash.
    Command(Command),
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    To(UserId),
    /// A group by its id or name.
    Group(String),
    /// A conversation by its number in the list.
    Open(usize),
    Create {
        name: String,
        users: Vec<UserId>,
    },
    List,
    /// So many entries; `older` goes on from the oldest that was shown.
    History {
        limit: Option<u32>,
        older: bool,
    },
    /// The message at this seq, or one's last.
    Recall(Option<u64>),
    Block(UserId),
    Unblock(UserId),
    Members,
    Add(Vec<UserId>),
    Remove(UserId),
    Role(UserId, MemberRole),
    Rename(String),
    Leave,
    Who,
    Help,
    Quit,
}

/// What `/help` prints: usage and meaning.
const HELP: &[(&str, &str)] = &[
    ("/to USER", "open the private conversation with USER"),
    ("/group ID", "open a group by its id or name"),
    ("/list", "your conversations, newest first"),
    ("/open N", "open number N of the list"),
    ("/history [N]", "the last N messages"),
    ("/older [N]", "the N before those"),
    (
        "/recall [SEQ]",
        "take back your last message, or the one numbered #SEQ",
    ),
    ("/create NAME USER...", "found a group"),
    ("/members", "who is in this group"),
    ("/add USER...", "let them into this group"),
    ("/remove USER", "put somebody out of this group"),
    (
        "/role USER ROLE",
        "make them member, admin or owner of this group",
    ),
    ("/rename NAME", "name this group anew"),
    ("/leave", "leave this group"),
    ("/block USER", "take no more messages from USER"),
    ("/unblock USER", "take them again"),
    ("/who", "who you are and how you are connected"),
    ("/help", "this"),
    ("/quit", "leave (also Ctrl-C, Ctrl-D)"),
    ("//text", "say something that starts with a slash"),
];

/// The lines of `/help`.
pub(crate) fn help() -> impl Iterator<Item = String> {
    HELP.iter()
        .map(|(usage, meaning)| format!("{usage:22} {meaning}"))
}

// === impl Input ===

impl Input {
    /// Reads a line; the error says what to type instead.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(Self::Nothing);
        }
        let Some(command) = trimmed.strip_prefix('/') else {
            return Ok(Self::Say(line.trim_end().to_owned()));
        };
        if command.starts_with('/') {
            return Ok(Self::Say(command.to_owned()));
        }
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        Command::parse(name, rest.trim()).map(Self::Command)
    }
}

// === impl Command ===

impl Command {
    fn parse(name: &str, rest: &str) -> Result<Self, String> {
        let command = match name {
            "to" => Self::To(user(name, rest)?),
            "group" if !rest.is_empty() => Self::Group(rest.to_owned()),
            "open" => Self::Open(rest.parse().map_err(|_| usage(name))?),
            "create" | "groups-create" => {
                let mut words = words(rest)?.into_iter();
                let group = words.next().ok_or_else(|| usage("create"))?;
                let users = words
                    .map(|word| checked(&word))
                    .collect::<Result<Vec<_>, _>>()?;
                if users.is_empty() {
                    return Err(usage("create"));
                }
                Self::Create { name: group, users }
            }
            "history" => Self::History {
                limit: number(name, rest)?,
                older: false,
            },
            "older" => Self::History {
                limit: number(name, rest)?,
                older: true,
            },
            "recall" => Self::Recall(number(name, rest.trim_start_matches('#'))?),
            "block" => Self::Block(user(name, rest)?),
            "unblock" => Self::Unblock(user(name, rest)?),
            "add" => {
                let users: Vec<_> = words(rest)?
                    .iter()
                    .map(|word| checked(word))
                    .collect::<Result<_, _>>()?;
                if users.is_empty() {
                    return Err(usage(name));
                }
                Self::Add(users)
            }
            "remove" => Self::Remove(user(name, rest)?),
            "role" => {
                let (who, role) = rest.rsplit_once(' ').ok_or_else(|| usage(name))?;
                let role = match role {
                    "member" => MemberRole::Member,
                    "admin" => MemberRole::Admin,
                    "owner" => MemberRole::Owner,
                    _ => return Err(usage(name)),
                };
                Self::Role(user(name, who.trim_end())?, role)
            }
            "rename" if !rest.is_empty() => Self::Rename(rest.to_owned()),
            "list" => Self::List,
            "members" => Self::Members,
            "leave" => Self::Leave,
            "who" => Self::Who,
            "help" | "?" => Self::Help,
            "quit" | "exit" | "q" => Self::Quit,
            "group" | "rename" => return Err(usage(name)),
            _ => {
                return Err(format!(
                    "there is no /{name}; /help lists the commands, // says a line with a slash"
                ));
            }
        };
        Ok(command)
    }
}

fn usage(name: &str) -> String {
    let is_it = |(usage, _): &&(&str, &str)| usage[1..].split(' ').next() == Some(name);
    match HELP.iter().find(is_it) {
        Some((usage, meaning)) => format!("type {usage}: {meaning}"),
        None => "type /help".to_owned(),
    }
}

/// A name alone may hold spaces, with quotes or without.
fn user(name: &str, rest: &str) -> Result<UserId, String> {
    if rest.is_empty() {
        return Err(usage(name));
    }
    let unquoted = rest
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    checked(unquoted.unwrap_or(rest))
}

fn checked(name: &str) -> Result<UserId, String> {
    UserId::parse(name).map_err(|error| error.to_string())
}

fn number<N: std::str::FromStr>(name: &str, rest: &str) -> Result<Option<N>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    rest.parse().map(Some).map_err(|_| usage(name))
}

/// Splits at spaces, but not within "double quotes".
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a closing \" is missing")?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn command(line: &str) -> Command {
        match Input::parse(line) {
            Ok(Input::Command(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn text_is_said() {
        assert_eq!(Input::parse("  "), Ok(Input::Nothing));
        assert_eq!(
            Input::parse("  hi there "),
            Ok(Input::Say("  hi there".into()))
        );
        assert_eq!(
            Input::parse("//etc/passwd"),
            Ok(Input::Say("/etc/passwd".into()))
        );
    }

    #[test]
    fn commands_take_what_they_need() {
        assert_eq!(command("/to bob"), Command::To(user("bob")));
        assert_eq!(command("/to Mary Ann"), Command::To(user("Mary Ann")));
        assert_eq!(command("/to \"Mary Ann\""), Command::To(user("Mary Ann")));
        assert_eq!(
            command("/create \"the team\" bob \"Mary Ann\" 爱丽丝"),
            Command::Create {
                name: "the team".into(),
                users: vec![user("bob"), user("Mary Ann"), user("爱丽丝")],
            }
        );
        assert_eq!(
            command("/history"),
            Command::History {
                limit: None,
                older: false
            }
        );
        assert_eq!(
            command("/older 5"),
            Command::History {
                limit: Some(5),
                older: true
            }
        );
        assert_eq!(command("/recall #7"), Command::Recall(Some(7)));
        assert_eq!(command("/recall"), Command::Recall(None));
        assert_eq!(
            command("/role Mary Ann admin"),
            Command::Role(user("Mary Ann"), MemberRole::Admin)
        );
        assert_eq!(
            command("/add a b"),
            Command::Add(vec![user("a"), user("b")])
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, told) in [
            ("/to", "/to USER"),
            ("/group", "/group ID"),
            ("/create team", "/create NAME USER..."),
            ("/create \"team", "closing"),
            ("/history x", "/history [N]"),
            ("/recall -1", "/recall [SEQ]"),
            ("/open", "/open N"),
            ("/add", "/add USER..."),
            ("/dance", "/help"),
            ("/role bob", "/role USER ROLE"),
            ("/role bob king", "/role USER ROLE"),
            ("/rename", "/rename NAME"),
            ("/block a\tb", "control characters"),
        ] {
            let error = Input::parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn help_names_only_what_there_is() {
        for (usage, _) in &HELP[..HELP.len() - 1] {
            let example = usage
                .replace(" USER...", " bob carol")
                .replace(" USER", " bob")
                .replace(" NAME", " team")
                .replace(" ROLE", " admin")
                .replace(" ID", " g:1")
                .replace(" [SEQ]", " 3")
                .replace(" [N]", " 3")
                .replace(" N", " 3");
            command(&example);
        }
    }
}
