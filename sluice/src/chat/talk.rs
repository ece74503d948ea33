//! The conversation: waits for what the client tells and for what is typed, and
//! shows the one and does the other, one after the other.
//!
//! What was typed is shown once it is stored, at its place in the order; until
//! then the status row counts it. So the log on the screen is the log.

use std::{
    collections::{HashMap, HashSet},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use sluice_client::{
    Client, ClientMsgId, Content, ContentType, ConversationId, DisconnectReason, Entry, Event,
    EventStream, Seq, UserId,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    account::Account,
    book::{Book, Mark},
    editor::Typed,
    input::Input,
    printable,
    render::Render,
    screen::{Keyboard, Screen},
    trouble,
};

/// A script waits no longer for the login, and for a message to be stored; a
/// person may.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(30);
/// On leaving, what is unacked is waited for.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Closing and writing the positions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A typing notice is shown for this long, and sent no more often than that.
const TYPING_SHOWN: Duration = Duration::from_secs(6);
const TYPING_SENT_EVERY: Duration = Duration::from_secs(3);
/// Somebody's typing notices are kept for so many at most.
const TYPING_MAX: usize = 64;

/// A running chat.
pub(crate) struct Talk {
    pub(crate) account: Account,
    pub(crate) book: Book,
    pub(crate) render: Render,
    pub(crate) screen: Screen,
    /// The conversation that is talked in.
    pub(crate) open: Option<ConversationId>,
    pub(crate) link: Link,
    /// Sends that aren't stored yet; the client bounds them.
    pub(crate) unacked: HashSet<ClientMsgId>,
    /// Who is typing where, and until when that is shown.
    pub(crate) typing: HashMap<(ConversationId, UserId), Instant>,
    typing_sent: Option<Instant>,
    /// All that there was has been told; from now on things are new.
    pub(crate) is_ready: bool,
    /// The user has gone; what is unacked is waited for until then.
    leaving: Option<Instant>,
    /// Lines that could not be done.
    pub(super) failures: u64,
}

/// How the connection is.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// Not there yet.
    Connecting,
    /// There.
    Online,
    /// Lost, to be tried again then.
    Offline(Option<Instant>),
}

// === impl Talk ===

impl Talk {
    pub(crate) fn new(account: Account, render: Render, screen: Screen) -> Self {
        Self {
            book: Book::new(account.user.clone()),
            account,
            render,
            screen,
            open: None,
            link: Link::Connecting,
            unacked: HashSet::new(),
            typing: HashMap::new(),
            typing_sent: None,
            is_ready: false,
            leaving: None,
            failures: 0,
        }
    }

    /// Talks until the user leaves, the pipe ends or the server ends the session.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
        let mut keyboard = self.screen.keyboard(shutdown.clone());
        let outcome = self.converse(&mut keyboard, &shutdown).await;
        // The terminal is restored before anything is said about the end.
        drop(self.screen);
        let Account {
            client,
            mut events,
            is_kept,
            ..
        } = self.account;
        close(&client, &mut events).await;
        outcome?;
        if !self.unacked.is_empty() {
            let fate = if is_kept {
                "they will be sent next time"
            } else {
                "they are lost"
            };
            bail!("{} messages were not sent: {fate}", self.unacked.len());
        }
        Ok(if self.failures == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn converse(
        &mut self,
        keyboard: &mut mpsc::Receiver<Keyboard>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let is_script = !self.screen.has_status();
        let mut patience = Instant::now() + SCRIPT_PATIENCE;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if let Some(by) = self.leaving
                && (self.unacked.is_empty() || Instant::now() >= by)
            {
                return Ok(());
            }
            self.show_status()?;
            // A script's lines are done one after the other: what is said before
            // a command is stored before it.
            let is_busy = !self.is_ready || (is_script && !self.unacked.is_empty());
            tokio::select! {
                event = self.account.events.next() => match event {
                    Some(event) => self.event(event).await?,
                    None => bail!("the client has ended"),
                },
                Some(typed) = keyboard.recv(), if !is_busy && self.leaving.is_none() => {
                    patience = Instant::now() + SCRIPT_PATIENCE;
                    // A command may wait for the server; Ctrl-C must not wait for it.
                    tokio::select! {
                        done = self.typed(typed) => done?,
                        () = shutdown.cancelled() => {}
                    }
                }
                _ = second.tick() => {}
                () = sleep_until(patience), if is_script && is_busy => {
                    let missing = if self.is_ready { "stored" } else { "connected" };
                    bail!("not {missing} within {} s", SCRIPT_PATIENCE.as_secs());
                }
                () = shutdown.cancelled(), if self.leaving.is_none() => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        let is_online = matches!(self.link, Link::Online);
        let patience = if is_online {
            LEAVE_TIMEOUT
        } else {
            Duration::ZERO
        };
        self.leaving = Some(Instant::now() + patience);
    }

    // ---- What is typed ----

    async fn typed(&mut self, keyboard: Keyboard) -> anyhow::Result<()> {
        match self.screen.take(keyboard)? {
            Typed::Entered(line) => self.line(&line).await,
            Typed::Changed => {
                self.tell_typing().await;
                Ok(())
            }
            Typed::Leave => {
                self.leave();
                Ok(())
            }
            Typed::Nothing | Typed::Clear => Ok(()),
        }
    }

    async fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let done = match Input::parse(line) {
            Ok(Input::Nothing) => Ok(()),
            Ok(Input::Say(text)) => self.say(text).await,
            Ok(Input::Command(super::input::Command::Quit)) => {
                self.leave();
                Ok(())
            }
            Ok(Input::Command(command)) => self.act(command).await,
            Err(wrong) => Err(anyhow::Error::msg(wrong)),
        };
        if let Err(error) = done {
            // What the screen itself says can't be told on the screen.
            if error.is::<std::io::Error>() {
                return Err(error);
            }
            self.wrong(&format!("{error:#}"))?;
        }
        Ok(())
    }

    async fn say(&mut self, text: String) -> anyhow::Result<()> {
        let Some(conversation) = self.open.clone() else {
            bail!("nobody to talk to yet: /to USER, /group ID or /list");
        };
        let pending = self
            .account
            .client
            .send(conversation, ContentType::Text, text)
            .await?;
        self.unacked.insert(pending.client_msg_id());
        self.typing_sent = None;
        Ok(())
    }

    async fn tell_typing(&mut self) {
        let draft = self.screen.draft();
        let is_message = !draft.trim().is_empty() && !draft.starts_with('/');
        let is_due = self
            .typing_sent
            .is_none_or(|sent| sent.elapsed() > TYPING_SENT_EVERY);
        if let Some(conversation) = self.open.clone()
            && is_message
            && is_due
        {
            self.typing_sent = Some(Instant::now());
            // Only a notice: when the client has ended, the events say so.
            let _ = self.account.client.typing(conversation).await;
        }
    }

    // ---- What the client tells ----

    async fn event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Connected { .. } => {
                let was_lost = matches!(self.link, Link::Offline(_));
                self.link = Link::Online;
                if was_lost && self.is_ready {
                    self.note("connected again")?;
                }
            }
            Event::Disconnected {
                reason,
                retry_in_ms,
            } => self.disconnected(reason, retry_in_ms)?,
            Event::CaughtUp if !self.is_ready => {
                self.is_ready = true;
                self.refresh_list().await?;
                self.show_list()?;
            }
            Event::Entry { entry, own } => self.entry(entry, own).await?,
            Event::Ephemeral {
                conversation,
                sender,
                body,
                ..
            } => {
                let text = String::from_utf8_lossy(&body).into_owned();
                let title = printable::line(&self.book.at(&conversation).title).into_owned();
                let said = printable::line(&text);
                let line = format!(
                    "* [{title}] {}: {said} (not kept)",
                    self.render.who(&sender)
                );
                self.screen.print(&[line])?;
            }
            Event::Typing { conversation, user } => self.somebody_types(conversation, user)?,
            Event::Delivered {
                conversation,
                user,
                seq,
            } => {
                let is_news = self.book.peer_delivered(&conversation, seq);
                self.marked(&user, seq, Mark::Delivered, is_news)?;
            }
            Event::Read {
                conversation,
                user,
                seq,
            } if user == self.account.user => {
                self.book.read(&conversation, seq);
            }
            Event::Read {
                conversation,
                user,
                seq,
            } => {
                let is_news = self.book.peer_read(&conversation, seq);
                self.marked(&user, seq, Mark::Read, is_news)?;
            }
            Event::SendRefused {
                client_msg_id,
                conversation,
                refusal,
            } => {
                self.unacked.remove(&client_msg_id);
                let title = self.book.at(&conversation).title.clone();
                self.wrong(&format!("not sent to {title}: {}", refusal.reason))?;
            }
            Event::Kicked { reason } => bail!("{}", trouble::kicked(reason)),
            Event::LoginRefused { refusal } => bail!("the login was refused: {}", refusal.reason),
            Event::CaughtUp => {}
            Event::TooManyGroups { .. } => {
                self.wrong("you are in too many groups: not all of them are shown")?;
            }
            Event::Archived { told: 0, .. } => {}
            Event::Archived { .. } => {
                self.wrong("messages from before your absence were archived by the server")?;
            }
            Event::ServerBehind { .. } => {
                self.wrong("the server has lost messages that were shown before")?;
            }
        }
        Ok(())
    }

    fn disconnected(&mut self, why: DisconnectReason, retry: Option<u64>) -> anyhow::Result<()> {
        let was_offline = matches!(self.link, Link::Offline(_));
        let retry_at = retry.map(|ms| Instant::now() + Duration::from_millis(ms));
        self.link = Link::Offline(retry_at);
        if was_offline {
            return Ok(());
        }
        let why = trouble::disconnected(&why);
        self.note(&format!(
            "the connection is lost ({why}); what you say is sent later"
        ))
    }

    async fn entry(&mut self, entry: Entry, own: bool) -> anyhow::Result<()> {
        if let Some(id) = entry.client_msg_id.filter(|_| own) {
            self.unacked.remove(&id);
        }
        self.typing
            .remove(&(entry.conversation.clone(), entry.sender.clone()));
        let is_new_group = entry.conversation.is_group() && !self.book.knows(&entry.conversation);
        self.book.entry(&entry, true);
        if !self.is_ready {
            return Ok(());
        }
        if is_new_group && !matches!(entry.content, Content::GroupChange { .. }) {
            // Its name is known to the server alone.
            self.refresh_list().await?;
        }
        if self.open.as_ref() == Some(&entry.conversation) {
            self.show(std::slice::from_ref(&entry))?;
            return self.mark_read(&entry.conversation, entry.seq).await;
        }
        if own {
            return Ok(());
        }
        let page = self.page();
        let place = self.book.at(&entry.conversation);
        let line = self.render.elsewhere(&entry, place, page);
        Ok(self.screen.print(&[line])?)
    }

    fn somebody_types(&mut self, place: ConversationId, who: UserId) -> anyhow::Result<()> {
        let now = Instant::now();
        self.typing.retain(|_, until| *until > now);
        let is_open = self.open.as_ref() == Some(&place);
        if self.typing.len() >= TYPING_MAX {
            return Ok(());
        }
        let is_news = self
            .typing
            .insert((place, who.clone()), now + TYPING_SHOWN)
            .is_none();
        if is_news && is_open && !self.screen.has_status() {
            self.note(&format!("{} is typing", printable::line(who.as_str())))?;
        }
        Ok(())
    }

    /// Draws the marks anew, or tells a pipe what is news.
    fn marked(&mut self, who: &UserId, seq: Seq, mark: Mark, is_news: bool) -> anyhow::Result<()> {
        if self.screen.has_status() {
            return Ok(self.screen.remark(&self.book)?);
        }
        if !self.is_ready || !is_news {
            return Ok(());
        }
        let who = printable::line(who.as_str());
        let symbol = mark.symbol().trim();
        match mark {
            Mark::Read => self.note(&format!("{symbol} {who} has read up to #{seq}")),
            Mark::Delivered | Mark::Stored => {
                self.note(&format!("{symbol} {who} has received up to #{seq}"))
            }
        }
    }

    /// This user has seen all up to `seq`.
    pub(crate) async fn mark_read(&mut self, id: &ConversationId, seq: Seq) -> anyhow::Result<()> {
        if self.book.read(id, seq) {
            self.account.client.read(id, seq).await?;
        }
        Ok(())
    }
}

/// Writes the positions and says goodbye, within bounds.
pub(crate) async fn close(client: &Client, events: &mut EventStream) {
    // Nothing more can be done about what doesn't end in time.
    let _ = timeout(CLOSE_TIMEOUT, events.commit()).await;
    let _ = timeout(CLOSE_TIMEOUT, client.disconnect(false)).await;
}

/// By this machine's clock; only for showing times.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
