//! `sluice send`.

use std::{
    io::{Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use sluice_client::{
    ContentType, ConversationId, Ended, ErrorCode, Event, EventStream, PendingSend, SendError,
    SendReceipt, Target, UserId,
};
use tokio_util::sync::CancellationToken;

use crate::{
    chat::{Account, AccountArgs, StateDefault, disconnected, kicked, printable, told},
    cli::Stopped,
};

/// Send one message and wait until it is stored
///
/// Exits 0 only when the server has stored it. Without --state-dir a send that
/// is interrupted may or may not be stored. With it, it is kept in that folder
/// and goes out, once, when this user and device run again.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
#[command(after_help = "Examples:\n  \
    SLUICE_PASSWORD=... sluice send --user alice --to bob 'hello bob'\n  \
    uptime | sluice send --user alice --group g:123 --json -")]
pub struct Args {
    #[command(flatten)]
    account: AccountArgs,
    /// To this user (this or --group is needed)
    #[arg(long, value_name = "NAME", value_parser = UserId::parse)]
    #[arg(group = "whom")]
    to: Option<UserId>,
    /// To this group, such as g:123
    #[arg(long, value_name = "ID", value_parser = group, group = "whom")]
    group: Option<ConversationId>,
    /// Give up after so many seconds without an ack
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print the ack as a JSON object
    #[arg(long)]
    json: bool,
    /// What to say; - takes it from standard input
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let text = if args.text == "-" {
        read_text()?
    } else {
        args.text
    };
    let target = match (args.to, args.group) {
        (Some(user), _) => Target::User(user),
        (None, Some(group)) => Target::Conversation(group),
        (None, None) => bail!("--to or --group is needed"),
    };
    let account = args
        .account
        .open("send", StateDefault::Gone, &shutdown)
        .await?;
    let Account {
        client,
        mut events,
        is_kept,
        ..
    } = account;
    let pending = client.send(target.clone(), ContentType::Text, text).await;
    let pending = pending.map_err(|error| explain(error, &target))?;
    let client_msg_id = pending.client_msg_id();
    let stored = tokio::select! {
        stored = acked(pending, &mut events, args.timeout) => stored,
        () = shutdown.cancelled() => Err(Stopped("the ack").into()),
    };
    // A device that has no state won't come back.
    client.disconnect(!is_kept).await;
    let receipt = match stored {
        Ok(receipt) => receipt.map_err(|error| explain(error, &target))?,
        Err(error) if is_kept => {
            return Err(error.context("not sent yet; it is kept and goes out on the next run"));
        }
        Err(error) => return Err(error.context("not known to be stored")),
    };
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let ack = serde_json::json!({
            "client_msg_id": client_msg_id.to_string(),
            "message_id": receipt.message_id.to_string(),
            "conversation": receipt.conversation.as_str(),
            "seq": receipt.seq.0,
            "user_seq": receipt.user_seq.0,
            "server_time_ms": receipt.server_time_ms,
        });
        writeln!(stdout, "{}", printable::json(&ack))?;
    } else {
        let conversation = printable::line(receipt.conversation.as_str());
        writeln!(stdout, "stored as #{} of {conversation}", receipt.seq)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the ack; the outer error says why none came.
async fn acked(
    pending: PendingSend,
    events: &mut EventStream,
    timeout_s: u64,
) -> anyhow::Result<Result<SendReceipt, SendError>> {
    let deadline = tokio::time::sleep(Duration::from_secs(timeout_s));
    let acked = pending.acked();
    tokio::pin!(deadline, acked);
    let mut is_connected = false;
    let mut trouble = None;
    loop {
        tokio::select! {
            outcome = &mut acked => return Ok(outcome),
            () = &mut deadline => {
                let why = trouble.unwrap_or_else(|| "the server does not answer".to_owned());
                bail!("no ack within {timeout_s} s: {why}");
            }
            // After the login nothing is wanted but the ack.
            Some(event) = events.next(), if !is_connected => match event {
                Event::Connected { .. } => is_connected = true,
                Event::Disconnected { reason, .. } => {
                    trouble = told(trouble, disconnected(&reason));
                }
                _ => {}
            },
        }
    }
}

fn explain(error: SendError, target: &Target) -> anyhow::Error {
    match error {
        SendError::Refused(refusal) => {
            let code = refusal.label();
            match (refusal.code, target) {
                (ErrorCode::UnknownUser, Target::User(user)) => anyhow!(
                    "{code}: there is no user {user:?}; `sluice chat --register --user {user}` makes one"
                ),
                _ => anyhow!("{code}: {}", printable::line(&refusal.reason)),
            }
        }
        SendError::Ended(Ended::Kicked(reason)) => anyhow!("{}", kicked(reason)),
        error => anyhow!("{error}"),
    }
}

fn group(id: &str) -> Result<ConversationId, String> {
    match ConversationId::parse(id) {
        Ok(group) if group.is_group() => Ok(group),
        _ => Err("a group's id is g: and a number, as `sluice chat` lists it".to_owned()),
    }
}

fn read_text() -> anyhow::Result<String> {
    let mut text = String::new();
    // The client refuses what is too long; this only bounds the memory.
    let mut stdin = std::io::stdin().lock().take(1 << 20);
    stdin
        .read_to_string(&mut text)
        .context("standard input is no text")?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}
