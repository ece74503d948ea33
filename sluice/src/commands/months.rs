//! `sluice months`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};
use sluice_protocol::{
    UserId,
    packet::{ContentType, MemberRole},
};
use sluice_store::{ArchiveReader, Content, Month, MonthAge, MysqlMonths, StoredEntry};
use tokio_util::sync::CancellationToken;

use super::serve::Place;
use crate::{chat::printable, cli::Stopped};

/// Add, archive and drop months of messages (MySQL, MariaDB)
///
/// Messages lie in partitions by the month (UTC) in which they were stored. The
/// oldest may be dropped once its repeats are past, 31 days after its end:
/// clients are told that inboxes and logs begin later, and miss nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice months list --config sluice.toml\n  \
    sluice months archive 2026-08 --to /var/backups/sluice --config sluice.toml\n  \
    sluice months drop 2026-08 --archive /var/backups/sluice/sluice-2026-08.ndjson.gz\n  \
    sluice months read /var/backups/sluice/sluice-2026-08.ndjson.gz")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the months of every database
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Give months ahead partitions of their own; every start of a role adds six
    Add {
        #[command(flatten)]
        place: Place,
        /// How many months ahead there are to be
        #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=120))]
        ahead: u32,
    },
    /// Write a month that is over to a file; it stays in the databases
    Archive {
        #[command(flatten)]
        place: Place,
        /// Such as 2026-08
        month: Month,
        /// The folder of the file, which is called sluice-MONTH.ndjson.gz
        #[arg(long, value_name = "DIR", default_value = ".")]
        to: PathBuf,
    },
    /// Drop the oldest month from all databases
    Drop {
        #[command(flatten)]
        place: Place,
        /// Such as 2026-08
        month: Month,
        /// Its archive, which is compared with the databases, entry by entry
        #[arg(long, value_name = "FILE", required_unless_present = "without_archive")]
        archive: Option<PathBuf>,
        /// Drop what is in no archive
        #[arg(long, conflicts_with = "archive")]
        without_archive: bool,
    },
    /// Print the entries of an archive, one JSON object a line
    Read {
        /// The file
        file: PathBuf,
    },
}

/// Runs the command. What Ctrl-C leaves half done, the same command does again:
/// an archive has no name before it is whole, and a month goes last of all.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    if let Action::Read { file } = &args.action {
        read(file, &shutdown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let done = shutdown.run_until_cancelled(act(args.action)).await;
    done.unwrap_or_else(|| Err(Stopped("the end").into()))?;
    Ok(ExitCode::SUCCESS)
}

async fn act(action: Action) -> anyhow::Result<()> {
    match action {
        Action::List { place } => list(&open(place).await?).await?,
        Action::Add { place, ahead } => add(&open(place).await?, ahead).await?,
        Action::Archive { place, month, to } => {
            let file = to.join(format!("sluice-{month}.ndjson.gz"));
            let entries = open(place).await?.archive(month, &file).await?;
            say(&format!("{}: {entries} entries of {month}", file.display()))?;
        }
        Action::Drop {
            place,
            month,
            archive,
            ..
        } => {
            let months = open(place).await?;
            let entries = months.drop_month(month, archive.as_deref()).await?;
            say(&format!("{month} is dropped, with {entries} entries"))?;
        }
        // Of a file alone.
        Action::Read { .. } => {}
    }
    Ok(())
}

async fn open(place: Place) -> anyhow::Result<MysqlMonths> {
    let config = place.read()?;
    let mysql = config.store.mysql.context(
        "months are a matter of [store.mysql], which the configuration doesn't have; \
         a store in a folder keeps everything in one file",
    )?;
    Ok(MysqlMonths::open(&mysql).await?)
}

async fn list(months: &MysqlMonths) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["month", "database", "entries (about)", "MiB", ""]);
    for state in months.list().await? {
        table.add_row([
            state.month.to_string(),
            state.database,
            state.entries.to_string(),
            (state.bytes / (1024 * 1024)).to_string(),
            match state.age {
                MonthAge::Ahead => "ahead",
                MonthAge::Current => "now",
                MonthAge::Recent => "over; to be kept for repeats",
                MonthAge::Old => "may be archived and dropped",
            }
            .to_owned(),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    say(&table.to_string())
}

async fn add(months: &MysqlMonths, ahead: u32) -> anyhow::Result<()> {
    for (database, added) in months.add(ahead).await? {
        say(&match (added.first(), added.last()) {
            (Some(first), Some(last)) => format!("{database}: {first} to {last} added"),
            _ => format!("{database}: they are there"),
        })?;
    }
    Ok(())
}

fn read(file: &Path, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    for entry in ArchiveReader::open(file)? {
        if shutdown.is_cancelled() {
            return Err(Stopped("the end").into());
        }
        writeln!(stdout, "{}", printable::json(&to_json(&entry?)))?;
    }
    Ok(stdout.flush()?)
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// An entry as one flat object, as `sluice recv --json` has it.
fn to_json(entry: &StoredEntry) -> Value {
    let (kind, more) = match &entry.content {
        Content::Message { .. } if entry.recalled => ("recalled_message", json!({})),
        Content::Message { content_type, body } => {
            let body = match (content_type, std::str::from_utf8(body)) {
                (ContentType::Text, Ok(text)) => json!({ "text": text }),
                _ => json!({ "body_base64": BASE64_STANDARD.encode(body) }),
            };
            (
                "message",
                with(body, "content_type", short(content_type.as_str_name())),
            )
        }
        Content::Recall { seq } => ("recall", json!({ "recalled_seq": seq.0 })),
        Content::GroupCreated { name, members } => (
            "group_change",
            json!({ "name": name, "created": true, "members": names(members) }),
        ),
        Content::GroupRenamed { name } => {
            ("group_change", json!({ "name": name, "created": false }))
        }
        Content::Joined { users } => (
            "member_change",
            json!({ "change": "joined", "users": names(users) }),
        ),
        Content::Left => ("member_change", json!({ "change": "left" })),
        Content::Removed { user } => (
            "member_change",
            json!({ "change": "removed", "users": [user.as_str()] }),
        ),
        Content::RoleChanged { user, role } => {
            ("member_change", role_changed(user.as_str(), *role))
        }
    };
    let mut object = json!({
        "conversation": entry.conversation.as_str(),
        "seq": entry.seq.0,
        "message_id": entry.message_id.to_string(),
        "client_msg_id": entry.client_msg_id.to_string(),
        "sender": entry.sender.as_str(),
        "server_time_ms": entry.server_time_ms,
        "kind": kind,
    });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

fn role_changed(user: &str, role: MemberRole) -> Value {
    json!({ "change": "role", "users": [user], "role": short(role.as_str_name()) })
}

fn names(users: &[UserId]) -> Vec<&str> {
    users.iter().map(UserId::as_str).collect()
}

fn with(mut object: Value, key: &str, value: String) -> Value {
    object[key] = value.into();
    object
}

/// `CONTENT_TYPE_TEXT` as `text`.
fn short(name: &str) -> String {
    name.rsplit('_').next().unwrap_or(name).to_ascii_lowercase()
}
