//! What the commands do.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sluice_client::{ApiError, CallError, ConversationId, ErrorCode, MemberRole, Seq, UserId};
use tokio::time::timeout;

use super::{
    input::{self, Command},
    printable, render,
    talk::{Link, Talk},
    trouble::reason,
};

/// Conversations that are listed.
const LIST_MAX: u32 = 100;
/// Entries shown on opening a conversation, and by /history.
const HISTORY: u32 = 20;
/// Entries that one /history shows at most; the server's cap.
const HISTORY_MAX: u32 = 200;
/// The user waits for a command no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

impl Talk {
    /// Does a command; the error is told to the user.
    ///
    /// Offline nothing is waited for: what can be done without the server is done.
    pub(crate) async fn act(&mut self, command: Command) -> anyhow::Result<()> {
        if let Link::Offline(_) = self.link
            && needs_server(&command)
        {
            bail!("offline; try that once you are connected again");
        }
        match timeout(PATIENCE, self.act_in_time(command)).await {
            Ok(done) => done,
            Err(_) => bail!("the server did not answer within {} s", PATIENCE.as_secs()),
        }
    }

    async fn act_in_time(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::To(user) => {
                let conversation = ConversationId::private(&self.account.user, &user)
                    .map_err(|_| anyhow!("you can't talk to yourself here"))?;
                self.open(conversation).await
            }
            Command::Group(name) => {
                let group = self.book.group(&name).map_err(anyhow::Error::msg)?;
                self.open(group).await
            }
            Command::Open(number) => {
                let list = self.book.list();
                let found = number.checked_sub(1).and_then(|index| list.get(index));
                let id = found.map(|conversation| conversation.id.clone());
                self.open(id.with_context(|| format!("there is no number {number} in /list"))?)
                    .await
            }
            Command::List => {
                self.refresh_list().await?;
                self.show_list()
            }
            Command::History { limit, older } => {
                let open = self.opened()?;
                let limit = limit.unwrap_or(HISTORY).clamp(1, HISTORY_MAX);
                let (oldest, _) = self.book.at(&open).shown;
                let before = (older && oldest > Seq(0)).then_some(oldest);
                self.history(&open, before, limit).await
            }
            Command::Recall(seq) => self.recall(seq).await,
            Command::Create { name, users } => {
                let token = self.token().await?;
                let group = self.account.api.create_group(&token, &name, &users).await;
                let group = told("found the group", group)?;
                self.book.at(&group).title = name;
                self.open(group).await
            }
            Command::Members => self.members().await,
            Command::Add(users) => {
                let (group, token) = (self.group()?, self.token().await?);
                told(
                    "let them in",
                    self.account.api.add_members(&token, &group, &users).await,
                )
            }
            Command::Remove(user) => {
                let (group, token) = (self.group()?, self.token().await?);
                told(
                    "put them out",
                    self.account.api.remove_member(&token, &group, &user).await,
                )
            }
            Command::Role(user, role) => {
                let (group, token) = (self.group()?, self.token().await?);
                let set = self.account.api.set_role(&token, &group, &user, role).await;
                told("give that role", set)
            }
            Command::Rename(name) => {
                let (group, token) = (self.group()?, self.token().await?);
                told(
                    "rename the group",
                    self.account.api.rename_group(&token, &group, &name).await,
                )
            }
            Command::Leave => {
                let (group, token) = (self.group()?, self.token().await?);
                told("leave", self.account.api.leave_group(&token, &group).await)?;
                self.open = None;
                self.note("you have left the group")
            }
            Command::Block(user) => self.block(&user, true).await,
            Command::Unblock(user) => self.block(&user, false).await,
            Command::Who => self.who(),
            Command::Help => Ok(self.screen.print(&input::help().collect::<Vec<_>>())?),
            // Done by the caller.
            Command::Quit => Ok(()),
        }
    }

    /// Turns to a conversation, shows its end, and reads it.
    async fn open(&mut self, id: ConversationId) -> anyhow::Result<()> {
        let conversation = self.book.at(&id);
        // What was shown long ago has scrolled away.
        conversation.shown = (Seq(0), Seq(0));
        let title = printable::line(&conversation.title).into_owned();
        self.open = Some(id.clone());
        let mut heading = self.render.palette.bold(&format!("== {title} =="));
        if id.is_group() {
            heading += &self.render.palette.dim(&format!("  group {id}"));
        }
        self.screen.print(&[heading])?;
        self.history(&id, None, HISTORY).await
    }

    /// Shows the entries before a seq, or the newest.
    async fn history(
        &mut self,
        id: &ConversationId,
        before: Option<Seq>,
        limit: u32,
    ) -> anyhow::Result<()> {
        if let Link::Offline(_) = self.link {
            bail!("offline; /history will show what was said once you are connected again");
        }
        let page = match self.account.client.history(id, before, limit).await {
            Ok(page) => page,
            // Nothing was said there yet.
            Err(CallError::Refused(refusal))
                if !id.is_group()
                    && matches!(
                        refusal.code,
                        ErrorCode::NotAMember | ErrorCode::UnknownConversation
                    ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(call_failed("get the history", error)),
        };
        page.entries
            .iter()
            .for_each(|entry| self.book.entry(entry, false));
        if before.is_none() {
            // Shown again, whatever was shown before.
            self.book.at(id).shown = (Seq(0), Seq(0));
        }
        self.show(&page.entries)?;
        if page.entries.is_empty() && before.is_some() {
            self.note("that is all there is")?;
        }
        match page.entries.last() {
            Some(newest) => self.mark_read(id, newest.seq).await,
            None => Ok(()),
        }
    }

    async fn recall(&mut self, seq: Option<u64>) -> anyhow::Result<()> {
        let open = self.opened()?;
        let seq = match seq {
            Some(seq) => Seq(seq),
            None => self.book.at(&open).last_own,
        };
        if seq == Seq(0) {
            bail!("you have said nothing here that could be taken back");
        }
        let recalled = self.account.client.recall(&open, seq).await;
        recalled
            .map(drop)
            .map_err(|error| call_failed(&format!("take back #{seq}"), error))
    }

    async fn members(&mut self) -> anyhow::Result<()> {
        let (group, token) = (self.group()?, self.token().await?);
        let members = told(
            "list the members",
            self.account.api.members(&token, &group).await,
        )?;
        let mut lines = Vec::with_capacity(members.len());
        for (user, role) in members {
            let role = match role {
                MemberRole::Member => String::new(),
                role => format!(" ({})", render::role_name(role)),
            };
            lines.push(format!("   {}{role}", self.render.who(&user)));
        }
        Ok(self.screen.print(&lines)?)
    }

    async fn block(&mut self, user: &UserId, block: bool) -> anyhow::Result<()> {
        let token = self.token().await?;
        let (api, me) = (&self.account.api, &self.account.user);
        let name = printable::line(user.as_str());
        if block {
            told("block", api.block(&token, me, user).await)?;
            self.note(&format!("{name} is blocked"))
        } else {
            told("unblock", api.unblock(&token, me, user).await)?;
            self.note(&format!("{name} is no longer blocked"))
        }
    }

    fn who(&mut self) -> anyhow::Result<()> {
        let link = match self.link {
            Link::Online => "connected",
            Link::Connecting => "connecting",
            Link::Offline(_) => "offline",
        };
        let user = printable::line(self.account.user.as_str()).into_owned();
        let device = printable::line(self.account.device.as_str()).into_owned();
        self.note(&format!("you are {user} on device {device}, {link}"))
    }

    /// Gets the list of conversations anew.
    pub(crate) async fn refresh_list(&mut self) -> anyhow::Result<()> {
        if let Link::Offline(_) = self.link {
            return self.note("offline; the list is as old as the connection");
        }
        let list = self.account.client.conversations(None, LIST_MAX);
        let why = match timeout(PATIENCE, list).await {
            Ok(Ok(list)) => {
                list.conversations
                    .iter()
                    .for_each(|summary| self.book.summary(summary));
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the server does not answer".to_owned(),
        };
        self.note(&format!("the list may be old: {why}"))
    }

    async fn token(&self) -> anyhow::Result<String> {
        told("log in again", self.account.token().await)
    }

    fn opened(&self) -> anyhow::Result<ConversationId> {
        self.open
            .clone()
            .context("no conversation is open: /to USER, /group ID or /list")
    }

    fn group(&self) -> anyhow::Result<ConversationId> {
        let group = self.open.clone().filter(ConversationId::is_group);
        group.context("no group is open: /group ID, or /create NAME USER...")
    }
}

/// Whether a command is nothing without an answer.
fn needs_server(command: &Command) -> bool {
    match command {
        Command::To(_) | Command::Group(_) | Command::Open(_) | Command::List => false,
        // It says so itself.
        Command::History { .. } => false,
        Command::Who | Command::Help | Command::Quit => false,
        Command::Recall(_)
        | Command::Create { .. }
        | Command::Members
        | Command::Add(_)
        | Command::Remove(_)
        | Command::Role(..)
        | Command::Rename(_)
        | Command::Leave
        | Command::Block(_)
        | Command::Unblock(_) => true,
    }
}

fn told<T>(what: &str, answer: Result<T, ApiError>) -> anyhow::Result<T> {
    answer.map_err(|error| anyhow!("cannot {what}: {}", reason(&error)))
}

fn call_failed(what: &str, error: CallError) -> anyhow::Error {
    match error {
        CallError::Refused(refusal) => anyhow!("cannot {what}: {}", refusal.reason),
        error => anyhow!("cannot {what}: {error}"),
    }
}
