//! `sluice dead-letters`: what no consumer could deal with, listed, put back or
//! removed.
//!
//! Reads in pages of `PAGE_ENTRIES`, so that neither Redis nor this process
//! ever holds more than a few MiB of bodies at once.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Subcommand;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use jiff::Timestamp;
use serde::Serialize;
use sluice_bus::{DeadLetter, EntryId, RedisBus, Stream};
use sluice_protocol::{Partition, limits::SHARED_PARTITIONS};
use tokio_util::sync::CancellationToken;

use super::serve::Place;
use crate::{chat::printable, config::Config};

/// List, replay or remove the entries that no consumer could deal with
///
/// An entry of a stream that was handed out again and again and never
/// acknowledged is set aside as a dead letter, with the reason. Needs
/// [bus.redis] in the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    List(ListArgs),
    /// Append dead letters anew to the end of their stream
    #[command(after_help = "Examples:\n  \
        sluice dead-letters replay --config sluice.toml --stream 'rq:stock:{3}' 1763740000000-0\n  \
        sluice dead-letters replay --config sluice.toml --stream rq:stock --all")]
    Replay(ChosenArgs),
    /// Remove dead letters for good
    #[command(after_help = "Examples:\n  \
        sluice dead-letters remove --config sluice.toml --stream 'rq:stock:{3}' 1763740000000-0\n  \
        sluice dead-letters remove --config sluice.toml --stream rq:stock --all")]
    Remove(ChosenArgs),
}

/// Show dead letters, oldest first within each stream
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: StreamChoice,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Also the entries themselves, as base64 (they hold what users wrote)
    #[arg(long, requires = "json")]
    bodies: bool,
    /// One JSON object a dead letter
    #[arg(long)]
    json: bool,
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
struct ChosenArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: StreamChoice,
    /// Which, by the ids that `list` shows; then --stream names one partition
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    ids: Vec<String>,
    /// All dead letters of the streams
    #[arg(long)]
    all: bool,
    /// The number as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Which streams.
#[derive(Debug, clap::Args)]
struct StreamChoice {
    /// A stream, as `rq:stock:{3}` or `up:message:{12}`, or all partitions of it,
    /// as `rq:stock` [default: all streams of the configuration]
    #[arg(long = "stream", value_name = "STREAM")]
    streams: Vec<String>,
}

/// A dead letter as it is shown.
#[derive(Serialize)]
struct Row {
    stream: String,
    /// Names it among the dead letters of its stream.
    id: String,
    reason: String,
    deliveries: u64,
    /// When it was set aside, and when it was appended.
    time: String,
    appended: String,
    /// Of the entry, in bytes.
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Replay,
    Remove,
}

/// What has been done.
#[derive(Debug, Default, Serialize)]
struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
}

/// Dead letters asked for at once; each may have 64 KiB.
const PAGE_ENTRIES: usize = 64;

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let work = async {
        match args.act {
            Act::List(args) => list(args).await,
            Act::Replay(args) => settle(args, Fate::Replay).await,
            Act::Remove(args) => settle(args, Fate::Remove).await,
        }
    };
    // Whatever was under way is done as a whole or not at all.
    let result = shutdown.run_until_cancelled(work).await;
    result.unwrap_or_else(|| Err(crate::cli::Stopped("the end").into()))
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let config = args.place.read()?;
    let streams = args.choice.streams(&config)?;
    let bus = open(&config)?;
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["stream", "id", "reason", "deliveries", "time", "bytes"]);
    let mut room = args.limit;
    let mut rows = 0_usize;
    for stream in &streams {
        let mut after = None;
        while room > 0 {
            let page = bus
                .dead_letters(stream, after, PAGE_ENTRIES.min(room))
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            room -= page.len().min(room);
            rows += page.len();
            for letter in page {
                let row = Row::of(stream, letter, args.bodies);
                if args.json {
                    writeln!(std::io::stdout(), "{}", serde_json::to_string(&row)?)?;
                } else {
                    table.add_row(row.cells());
                }
            }
        }
    }
    if room == 0 {
        eprintln!("--limit {} was reached; there may be more", args.limit);
    }
    if !args.json && rows > 0 {
        writeln!(std::io::stdout(), "{table}")?;
    }
    if !args.json && rows == 0 {
        writeln!(std::io::stdout(), "no dead letters")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn settle(args: ChosenArgs, fate: Fate) -> anyhow::Result<ExitCode> {
    let config = args.place.read()?;
    let streams = args.choice.streams(&config)?;
    let ids = args
        .ids
        .iter()
        .map(|text| id(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if !args.all && streams.len() != 1 {
        bail!("ids are those of one stream: name it, as --stream 'rq:stock:{{3}}'");
    }
    let bus = open(&config)?;
    let mut done = 0;
    for stream in &streams {
        // All ids first: what dies again meanwhile isn't replayed without end.
        let chosen = match args.all {
            true => ids_of(&bus, stream).await?,
            false => ids.clone(),
        };
        for some in chosen.chunks(PAGE_ENTRIES) {
            done += match fate {
                Fate::Replay => bus.replay_dead_letters(stream, some).await,
                Fate::Remove => bus.remove_dead_letters(stream, some).await,
            }
            .with_context(|| format!("{stream}, after {done}; repeating is harmless"))?;
        }
    }
    tell(fate, done, args.json)?;
    let wanted = ids.len() as u64;
    if done < wanted {
        eprintln!("{} of {wanted} are not there", wanted - done);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(fate: Fate, count: u64, json: bool) -> anyhow::Result<()> {
    let mut done = Done::default();
    let verb = match fate {
        Fate::Replay => {
            done.replayed = Some(count);
            "replayed"
        }
        Fate::Remove => {
            done.removed = Some(count);
            "removed"
        }
    };
    let mut stdout = std::io::stdout();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(&done)?)?;
    } else {
        writeln!(stdout, "{count} {verb}")?;
    }
    Ok(())
}

async fn ids_of(bus: &RedisBus, stream: &Stream) -> anyhow::Result<Vec<EntryId>> {
    let mut ids = Vec::new();
    loop {
        let page = bus
            .dead_letters(stream, ids.last().copied(), PAGE_ENTRIES)
            .await?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page.iter().map(|letter| letter.id));
    }
}

fn open(config: &Config) -> anyhow::Result<std::sync::Arc<RedisBus>> {
    let Some(redis) = &config.bus.redis else {
        bail!("dead letters are kept on Redis: the configuration has no [bus.redis]");
    };
    RedisBus::open(redis).context("the bus on Redis")
}

/// An id as Redis writes it.
fn id(text: &str) -> anyhow::Result<EntryId> {
    let parsed = text.split_once('-').and_then(|(major, minor)| {
        Some(EntryId {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    parsed.with_context(|| format!("{text:?} is no id as `list` shows them"))
}

// === impl StreamChoice ===

impl StreamChoice {
    fn streams(&self, config: &Config) -> anyhow::Result<Vec<Stream>> {
        if !self.streams.is_empty() {
            let named = self.streams.iter().map(|name| of_name(name, config));
            return Ok(named.collect::<anyhow::Result<Vec<_>>>()?.concat());
        }
        let own = ["up:message", "up:query", "up:session", "up:ack"];
        let own = own.into_iter().map(str::to_owned);
        let services = &config.gateway.requests.services;
        if services.is_empty() {
            eprintln!(
                "streams of backends are left out: gateway.requests.services is empty in this \
                 configuration; --stream rq:SERVICE names one"
            );
        }
        let backends = services.iter().map(|service| format!("rq:{service}"));
        let all = own.chain(backends);
        Ok(all
            .map(|name| of_name(&name, config))
            .collect::<anyhow::Result<Vec<_>>>()?
            .concat())
    }
}

/// The stream of that name, or all its partitions.
fn of_name(name: &str, config: &Config) -> anyhow::Result<Vec<Stream>> {
    if let Some(stream) = Stream::parse(name) {
        return Ok(vec![stream]);
    }
    let partitions = match name {
        "up:message" => config.partitions,
        _ => SHARED_PARTITIONS,
    };
    (0..partitions)
        .map(Partition)
        .map(|partition| {
            Stream::parse(&format!("{name}:{{{partition}}}")).filter(|stream| stream.blocks_producer())
        })
        .collect::<Option<Vec<_>>>()
        .with_context(|| format!("{name:?} is no stream; they are up:message, up:query, up:session, up:ack and rq:SERVICE, one partition of it as rq:stock:{{3}}"))
}

// === impl Row ===

impl Row {
    fn of(stream: &Stream, letter: DeadLetter, with_body: bool) -> Self {
        Self {
            stream: stream.to_string(),
            id: format!("{}-{}", letter.id.major, letter.id.minor),
            reason: letter.reason,
            deliveries: letter.deliveries,
            time: time(Some(letter.id.major)),
            appended: time(id(&letter.original_id).ok().map(|id| id.major)),
            size: letter.payload.len(),
            body: with_body.then(|| BASE64_STANDARD.encode(&letter.payload)),
        }
    }

    /// The reason may be a backend's own words, so it is made safe to print.
    fn cells(self) -> [String; 6] {
        [
            self.stream,
            self.id,
            printable::line(&self.reason).into_owned(),
            self.deliveries.to_string(),
            self.time,
            self.size.to_string(),
        ]
    }
}

/// RFC 3339; empty where there is none.
fn time(unix_ms: Option<u64>) -> String {
    let stamp = unix_ms
        .and_then(|ms| i64::try_from(ms).ok())
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map(|stamp| stamp.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(streams: &[&str]) -> anyhow::Result<Vec<String>> {
        let choice = StreamChoice {
            streams: streams.iter().map(ToString::to_string).collect(),
        };
        let mut config = Config::default();
        config.gateway.requests.services = vec!["stock".into()];
        Ok(choice
            .streams(&config)?
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    #[test]
    fn streams_are_named_singly_or_whole() {
        assert_eq!(
            names(&["rq:a:{3}", "down:{9}"]).unwrap(),
            ["rq:a:{3}", "down:{9}"]
        );
        assert_eq!(names(&["rq:other"]).unwrap().len(), 8);
        assert_eq!(names(&["up:message"]).unwrap().len(), 64);
        let all = names(&[]).unwrap();
        assert_eq!(all.len(), 64 + 4 * 8);
        assert!(all.contains(&"rq:stock:{7}".to_owned()));
        for wrong in ["stock", "down", "rq:", "up:other", "rq:a:{x}"] {
            assert!(names(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_are_read() {
        assert_eq!(id("5-1").unwrap(), EntryId { major: 5, minor: 1 });
        for wrong in ["5", "-", "a-1", "1-2-3"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
