//! `sluice recv`.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::bail;
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::tz::TimeZone;
use serde_json::json;
use sluice_client::{Content, ContentType, Entry, Event, EventStream};
use tokio_util::sync::CancellationToken;

use crate::{
    chat::{
        Account, AccountArgs, Page, Palette, Render, StateDefault, close, disconnected, kicked,
        now_ms, printable, told, type_name,
    },
    cli::Stopped,
};

/// Print messages as they come
///
/// Without --state-dir, a new device that knows nothing: all messages that the
/// server has for the user come first, then the new ones. With it, the position
/// is kept in that folder, and a later run goes on behind the last message that
/// was printed.
///
/// Exits 0 when the time is over (or --count is reached), and all that the
/// server had at login has been printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    SLUICE_PASSWORD=... sluice recv --user bob --for 10 --json\n  \
    SLUICE_PASSWORD=... sluice recv --user bob --state-dir ~/bob --count 1")]
pub struct Args {
    #[command(flatten)]
    account: AccountArgs,
    /// Stop after so many seconds [default: at Ctrl-C]
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// Stop after so many messages; fewer are a failure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also what this user sent, and what happened: recalls, members coming and going
    #[arg(long)]
    all: bool,
    /// One JSON object a message
    #[arg(long)]
    json: bool,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Progress {
    printed: u64,
    is_caught_up: bool,
    trouble: Option<String>,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let span = args.seconds.map(Duration::try_from_secs_f64).transpose()?;
    let account = args
        .account
        .open("recv", StateDefault::Gone, &shutdown)
        .await?;
    let Account {
        client,
        mut events,
        is_kept,
        user,
        ..
    } = account;
    let render = Render {
        palette: Palette::for_stdout(),
        zone: TimeZone::system(),
        me: user,
    };
    let mut progress = Progress::default();
    let show = Show {
        json: args.json,
        all: args.all,
        render,
    };
    let outcome = tokio::select! {
        outcome = receive(&mut events, &show, args.count, &mut progress) => outcome,
        () = over(span) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    };
    if is_kept && outcome.is_ok() {
        close(&client, &mut events).await;
    } else if is_kept {
        // The last entry was not printed: it is to come again.
        client.disconnect(false).await;
    } else {
        // A device that has no state won't come back.
        client.disconnect(true).await;
    }
    outcome?;
    let is_short = args.count.is_some_and(|count| progress.printed < count);
    if shutdown.is_cancelled() && (is_short || !progress.is_caught_up) {
        return Err(Stopped("all had come").into());
    }
    match args.count {
        Some(count) if progress.printed < count => {
            bail!(
                "{} of {count} messages came{}",
                progress.printed,
                progress.why()
            )
        }
        None if !progress.is_caught_up => bail!("not all has come in time{}", progress.why()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|it| *it > 0.0 && Duration::try_from_secs_f64(*it).is_ok());
    seconds.ok_or_else(|| "seconds are asked for, above 0".to_owned())
}

async fn over(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

async fn receive(
    events: &mut EventStream,
    show: &Show,
    count: Option<u64>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    while count.is_none_or(|count| progress.printed < count) {
        // Taking the next one says that the one before is done with.
        match events.next().await {
            Some(Event::Entry { entry, own }) => {
                let is_message = matches!(
                    entry.content,
                    Content::Message {
                        recalled: false,
                        ..
                    }
                );
                if show.all || (is_message && !own) {
                    show.entry(&entry)?;
                    progress.printed += 1;
                }
            }
            Some(Event::CaughtUp) => progress.is_caught_up = true,
            Some(Event::TooManyGroups { conversation }) => bail!(
                "you are in more groups than can be followed: the entries of {} would be missing",
                printable::line(conversation.as_str())
            ),
            Some(Event::ServerBehind { told, server, .. }) => {
                progress.trouble = Some(format!(
                    "the server has lost entries {} to {told}",
                    server.saturating_add(1)
                ));
            }
            Some(Event::Connected { .. }) => progress.trouble = None,
            Some(Event::Disconnected { reason, .. }) => {
                progress.trouble = told(progress.trouble.take(), disconnected(&reason));
            }
            Some(Event::Kicked { reason }) => bail!("{}", kicked(reason)),
            Some(Event::LoginRefused { refusal }) => {
                bail!(
                    "the login was refused: {}",
                    printable::line(&refusal.reason)
                )
            }
            Some(_) => {}
            None => bail!("the client has ended"),
        }
    }
    Ok(())
}

// === impl Progress ===

impl Progress {
    fn why(&self) -> String {
        let trouble = self.trouble.as_deref();
        let trouble = trouble.or((!self.is_caught_up).then_some(
            "the server has not answered so soon; more time or another --transport may help",
        ));
        trouble.map(|it| format!(": {it}")).unwrap_or_default()
    }
}

/// How entries are printed.
struct Show {
    json: bool,
    all: bool,
    render: Render,
}

// === impl Show ===

impl Show {
    fn entry(&self, entry: &Entry) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", printable::json(&to_json(entry)))?;
        } else {
            let place = printable::line(entry.conversation.as_str()).into_owned();
            let page = Page {
                now_ms: now_ms(),
                width: usize::MAX,
            };
            for line in self.render.entry(entry, None, page) {
                writeln!(stdout, "{}  {line}", self.render.palette.dim(&place))?;
            }
        }
        Ok(stdout.flush()?)
    }
}

/// An entry as one flat object. Numbers above 2^53 are strings.
fn to_json(entry: &Entry) -> serde_json::Value {
    let mut object = json!({
        "conversation": entry.conversation.as_str(),
        "seq": entry.seq.0,
        "user_seq": entry.user_seq.0,
        "message_id": entry.message_id.to_string(),
        "client_msg_id": entry.client_msg_id.map(|id| id.to_string()),
        "sender": entry.sender.as_str(),
        "server_time_ms": entry.server_time_ms,
    });
    let (kind, more) = match &entry.content {
        Content::Message { recalled: true, .. } => ("recalled_message", json!({})),
        Content::Message {
            content_type, body, ..
        } => {
            let content_type_name = type_name(*content_type);
            let body = match (content_type, std::str::from_utf8(body)) {
                (Some(ContentType::Text), Ok(text)) => json!({ "text": text }),
                _ => json!({ "body_base64": BASE64_STANDARD.encode(body) }),
            };
            object["content_type"] = content_type_name.into();
            ("message", body)
        }
        Content::Recall { seq } => ("recall", json!({ "recalled_seq": seq.0 })),
        Content::MemberChange { kind, users, role } => (
            "member_change",
            json!({ "change": short(kind.as_str_name()), "users": users, "role": short(role.as_str_name()) }),
        ),
        Content::GroupChange {
            name,
            created,
            members,
        } => (
            "group_change",
            json!({ "name": name, "created": created, "members": members }),
        ),
        Content::Unknown => ("unknown", json!({})),
    };
    object["kind"] = kind.into();
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// `MEMBER_CHANGE_KIND_JOINED` as `joined`.
fn short(name: &str) -> String {
    name.rsplit('_').next().unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use sluice_client::{ConversationId, MessageId, Seq, UserId, UserSeq};

    use super::*;

    fn entry(content: Content) -> Entry {
        Entry {
            conversation: ConversationId::parse("p:5:alice:bob").unwrap(),
            seq: Seq(3),
            user_seq: UserSeq(9),
            sender: UserId::parse("alice").unwrap(),
            client_msg_id: None,
            message_id: MessageId(1 << 60),
            server_time_ms: 1,
            content,
        }
    }

    #[test]
    fn a_message_is_one_flat_object() {
        let text = entry(Content::Message {
            content_type: Some(ContentType::Text),
            body: "hi\n\u{9b}".into(),
            recalled: false,
        });
        assert_eq!(
            printable::json(&to_json(&text)),
            r#"{"client_msg_id":null,"content_type":"text","conversation":"p:5:alice:bob","kind":"message","message_id":"1152921504606846976","sender":"alice","seq":3,"server_time_ms":1,"text":"hi\n\u009b","user_seq":9}"#
        );
        let bytes = entry(Content::Message {
            content_type: Some(ContentType::Image),
            body: vec![0xff, 0].into(),
            recalled: false,
        });
        assert_eq!(to_json(&bytes)["body_base64"], "/wA=");
    }
}
