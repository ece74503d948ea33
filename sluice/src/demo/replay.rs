//! The order of a run: accounts, groups, all strands at once, then the devices
//! that only look.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use sluice_client::{ApiError, ConversationId, Endpoint, HttpApi, Target, UserId};
use sluice_engines::GuardedFolder;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    board::Board,
    oracle::DeviceKind,
    person::{Account, Person, StatePlace, pull_everything},
    plan::{Place, Plan, PlannedStrand, UserIndex},
};

/// Sends of one sender in a strand that may be unacked.
const PIPELINE: usize = 16;
/// Accounts made, or devices that only look, at once.
const SIDE_BY_SIDE: usize = 32;
/// A call that a busy server puts off is given up beyond this wait.
const BUSY_WAIT_MAX_MS: u64 = 20_000;
/// How often progress is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// Where and how a plan is replayed.
pub struct Replay {
    /// Shared by all actors.
    pub board: Arc<Board>,
    /// The server's HTTP API.
    pub api: HttpApi,
    /// Where clients connect (perhaps relays), spread over all of them.
    pub endpoints: Vec<Endpoint>,
    /// Strands begin within this span; zero: all at once.
    pub spread: Duration,
    /// Tells how far the run is.
    pub load: watch::Sender<Load>,
    /// For the positions of those who restart.
    pub scratch: GuardedFolder,
    /// Without any progress for this long, the replay is over.
    pub patience: Duration,
    /// Shown while it runs.
    pub progress: ProgressBar,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Accounts and groups are made.
    Before,
    /// People talk.
    On,
    /// All has arrived, or nothing moves any more.
    Over,
}

/// What a replay found beside what the board holds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// First send to last arrival.
    pub duration: Duration,
    /// What went wrong, in words.
    pub failures: Vec<String>,
}

// === impl Replay ===

impl Replay {
    /// Runs the plan.
    pub async fn run(&self) -> anyhow::Result<Outcome> {
        let plan = Arc::clone(&self.board.plan);
        self.stage("registering", plan.users.len());
        let accounts = self.register(&plan).await?;
        self.stage("founding groups", plan.groups.len());
        let groups = self.found_groups(&plan, &accounts).await?;
        let people = self.people(&plan, &accounts)?;

        self.stage("replaying", plan.messages.len());
        let started = Instant::now();
        self.load.send_replace(Load::On);
        let mut outcome = self.replay(&plan, &people, &accounts, &groups).await;
        self.load.send_replace(Load::Over);
        outcome.duration = started.elapsed().saturating_sub(outcome.duration);

        let looking = plan.users.len() + plan.users.iter().flat_map(|u| u.second_device).count();
        self.stage("comparing fresh devices", looking);
        outcome.failures.extend(self.look(&plan, &accounts).await);
        for person in &people {
            person.stop().await;
        }
        self.progress.finish_and_clear();
        Ok(outcome)
    }

    fn stage(&self, name: &'static str, length: usize) {
        self.progress.set_style(
            ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        self.progress.reset();
        self.progress.set_length(length as u64);
        self.progress.set_message(name);
        if self.progress.is_hidden() {
            tracing::info!("{name}: {length}");
        }
    }

    async fn register(&self, plan: &Plan) -> anyhow::Result<Vec<Account>> {
        stream::iter(plan.users.iter().enumerate())
            .map(|(place, planned)| async move {
                let mut endpoints = self.endpoints.clone();
                endpoints.rotate_left(place % self.endpoints.len().max(1));
                let user = UserId::parse(&planned.name)?;
                let password = format!("{:032x}", rand::random::<u128>());
                patiently(|| self.api.register(&user, &password, None)).await?;
                let login = patiently(|| self.api.login(&user, &password)).await?;
                self.progress.inc(1);
                anyhow::Ok(Account {
                    user,
                    token: login.token,
                    endpoints,
                })
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await
            .context("cannot register the people of the log")
    }

    async fn found_groups(
        &self,
        plan: &Plan,
        accounts: &[Account],
    ) -> anyhow::Result<Vec<ConversationId>> {
        stream::iter(&plan.groups)
            .map(|group| async {
                let [founder, others @ ..] = group.members.as_slice() else {
                    bail!("a group needs members");
                };
                let founder = &accounts[*founder];
                let others: Vec<UserId> = others
                    .iter()
                    .map(|user| accounts[*user].user.clone())
                    .collect();
                let id = self
                    .api
                    .create_group(&founder.token, &group.name, &others)
                    .await?;
                self.progress.inc(1);
                anyhow::Ok(id)
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await
            .context("cannot found the groups")
    }

    fn people(&self, plan: &Plan, accounts: &[Account]) -> anyhow::Result<Vec<Arc<Person>>> {
        let person = |user: UserIndex| {
            let planned = &plan.users[user];
            let state = if planned.restarts {
                StatePlace::File(self.state_file(self.scratch.path(), user))
            } else {
                StatePlace::Memory
            };
            let (board, account) = (Arc::clone(&self.board), accounts[user].clone());
            Person::start(board, user, account, planned.transport, state).map(Arc::new)
        };
        (0..plan.users.len()).map(person).collect()
    }

    fn state_file(&self, folder: &Path, user: UserIndex) -> std::path::PathBuf {
        folder.join(format!("user-{user}.redb"))
    }

    /// All strands side by side, until everything has arrived or nothing moves.
    /// The outcome's duration is the time to be taken off: waiting in vain.
    async fn replay(
        &self,
        plan: &Arc<Plan>,
        people: &[Arc<Person>],
        accounts: &[Account],
        groups: &[ConversationId],
    ) -> Outcome {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let mut strands = JoinSet::new();
        for strand in 0..plan.strands.len() {
            let (plan, board) = (Arc::clone(plan), Arc::clone(&self.board));
            let planned = &plan.strands[strand];
            let speakers: HashMap<UserIndex, (Arc<Person>, Target)> = (planned.first..planned.end)
                .map(|message| plan.messages[message].sender)
                .map(|sender| {
                    let target = target(&plan, planned, sender, accounts, groups);
                    (sender, (Arc::clone(&people[sender]), target))
                })
                .collect();
            let failures = Arc::clone(&failures);
            let begin = self
                .spread
                .mul_f64(strand as f64 / plan.strands.len() as f64);
            strands.spawn(async move {
                tokio::time::sleep(begin).await;
                if let Err(error) = run_strand(&board, &plan.strands[strand], &speakers).await
                    && let Ok(mut failures) = failures.lock()
                {
                    failures.push(format!("strand {strand}: {error:#}"));
                }
            });
        }
        let waited_in_vain = self.wait_for_arrivals().await;
        strands.abort_all();
        while strands.join_next().await.is_some() {}
        let failures = failures
            .lock()
            .map(|found| found.clone())
            .unwrap_or_default();
        Outcome {
            duration: waited_in_vain,
            failures,
        }
    }

    async fn wait_for_arrivals(&self) -> Duration {
        let (messages, expected) = (self.board.plan.messages.len() as u64, self.board.expected());
        let mut last = (self.board.counts(), Instant::now());
        loop {
            tokio::time::sleep(GLANCE).await;
            let counts = self.board.counts();
            self.progress.set_position(counts.acked);
            if counts.acked >= messages && counts.arrived >= expected {
                return Duration::ZERO;
            }
            if counts != last.0 {
                last = (counts, Instant::now());
            } else if last.1.elapsed() > self.patience {
                tracing::warn!(?counts, messages, expected, "nothing moves any more");
                return last.1.elapsed();
            }
        }
    }

    /// Second devices, and a fresh device of everybody.
    async fn look(&self, plan: &Plan, accounts: &[Account]) -> Vec<String> {
        let seconds = plan.users.iter().enumerate().filter_map(|(user, planned)| {
            planned
                .second_device
                .map(|transport| (user, transport, DeviceKind::Second))
        });
        let fresh = plan
            .users
            .iter()
            .enumerate()
            .map(|(user, planned)| (user, planned.transport, DeviceKind::Fresh));
        let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let mut looks = JoinSet::new();
        for (user, transport, kind) in seconds.chain(fresh) {
            let (board, account) = (Arc::clone(&self.board), accounts[user].clone());
            let (places, progress) = (Arc::clone(&places), self.progress.clone());
            looks.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire().await;
                let who = format!("{kind:?} device of {}", account.user);
                let pulled = pull_everything(board, user, account, transport, kind).await;
                progress.inc(1);
                pulled.err().map(|error| format!("{who}: {error:#}"))
            });
        }
        let outcomes = looks.join_all().await;
        outcomes.into_iter().flatten().collect()
    }
}

/// Repeats a call that a busy server puts off.
async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
    call: impl Fn() -> F,
) -> Result<T, ApiError> {
    let mut wait_ms = 20;
    loop {
        match call().await {
            Err(ApiError::Refused { status: 503, .. }) if wait_ms < BUSY_WAIT_MAX_MS => {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..wait_ms))).await;
                wait_ms *= 2;
            }
            answer => return answer,
        }
    }
}

/// One conversation of the log, message by message.
async fn run_strand(
    board: &Board,
    strand: &PlannedStrand,
    speakers: &HashMap<UserIndex, (Arc<Person>, Target)>,
) -> anyhow::Result<()> {
    let mut before: Option<UserIndex> = None;
    for message in strand.first..strand.end {
        let sender = board.plan.messages[message].sender;
        let whole = match before {
            Some(other) if other != sender => board.wait_arrived(sender, message - 1).await,
            _ => board.wait_window(message, PIPELINE).await,
        };
        if !whole {
            bail!("a send was refused before message {message}");
        }
        let (person, target) = speakers.get(&sender).context("the sender speaks here")?;
        person.send(message, target.clone()).await?;
        before = Some(sender);
    }
    Ok(())
}

fn target(
    plan: &Plan,
    strand: &PlannedStrand,
    sender: UserIndex,
    accounts: &[Account],
    groups: &[ConversationId],
) -> Target {
    match strand.place {
        Place::Group(group) => Target::Conversation(groups[group].clone()),
        Place::Private => {
            // A private strand has two speakers; the log's reader sees to it.
            let peer = plan.peer_of(strand, sender).unwrap_or(sender);
            Target::User(accounts[peer].user.clone())
        }
    }
}
