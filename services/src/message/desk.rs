//! Works off one batch of a partition: parse → check → commit → ack → fan out.
//!
//! A batch is worked in rounds. A change of a group has, for that group, a round
//! of its own, so that it and what comes behind it are checked against the group
//! as it is then; usually there is one round.

use std::{sync::Arc, time::Instant};

use hashbrown::HashSet;
use sluice_bus::BusEntry;
use sluice_protocol::{
    ConversationId, MessageId, Partition, PartitionEpoch, Refusal, UserId,
    packet::{self, ErrorCode, packet::Body},
};
use sluice_store::{Commit, CommitRefusal, Content, NewEntry, Outcome, Store, StoreError, Stored};
use sluice_trace::Stage;

use super::{
    checks::{self, Facts, Passed},
    fan_out::{self, Announcement, Audience, What},
    followed,
    group::Groups,
    job::{Ask, Job, NoJob},
};
use crate::{clock, consumer, error::WorkError, node::Node, outbox::Outbox, wire};

/// A partition's state in its owner's hands; thrown away after any failure.
pub(super) struct Desk {
    node: Arc<Node>,
    partition: Partition,
    epoch: PartitionEpoch,
    groups: Groups,
}

/// What a round is about to commit, and for whom.
#[derive(Default)]
struct Plan {
    entries: Vec<NewEntry>,
    /// Parallel to `entries`: the job in the round, and whether this entry
    /// answers it.
    seats: Vec<(usize, bool)>,
}

/// What a round has to say, in order.
#[derive(Default)]
struct Findings {
    announcements: Vec<Announcement>,
    /// Entries stored before this batch, to be read back and told again, each
    /// with its job's place in the round.
    repeats: Vec<(Stored, usize)>,
    /// Jobs that failed the checks, with why.
    failed: Vec<(usize, Refusal)>,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(node: Arc<Node>, partition: Partition, epoch: PartitionEpoch) -> Self {
        let groups = Groups::new(node.config.groups_cached_max);
        Self {
            node,
            partition,
            epoch,
            groups,
        }
    }

    /// Does all that the entries ask for. After an error nothing of this desk
    /// may be believed any more; the entries come again.
    pub(super) async fn work(&mut self, entries: &[BusEntry]) -> Result<(), WorkError> {
        metrics::histogram!("sluice_message_batch_entries").record(entries.len() as f64);
        if !self.node.config.caches {
            self.groups.clear();
        }
        let mut outbox = Outbox::default();
        let mut jobs = self.parse(entries, &mut outbox);
        let mut traced = Vec::new();
        if self.node.tracer.is_armed() {
            traced = followed::take(&self.node.tracer, &mut jobs);
        }
        while !jobs.is_empty() {
            let (round, later) = split_round(jobs);
            self.round(round, &mut outbox).await?;
            jobs = later;
        }
        for message in traced {
            self.node.tracer.mark(message, Stage::Emit);
        }
        let started = Instant::now();
        if !outbox.is_empty() {
            self.node.downlink.emit(outbox).await;
        }
        metrics::histogram!("sluice_message_emit_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Refuses entries that the store can't take, whatever they hold.
    pub(super) async fn set_aside(&self, entries: &[BusEntry]) {
        let mut outbox = Outbox::default();
        let refusal = Refusal::new(ErrorCode::Internal, "the store can't take this");
        for job in self.parse(entries, &mut outbox) {
            metrics::counter!("sluice_poison_entries_total", "role" => "message").increment(1);
            let id = job.client_msg_id_bytes();
            outbox.refuse(&job.origin, &refusal, id, clock::now_ms());
        }
        self.node.downlink.emit(outbox).await;
    }

    fn parse(&self, entries: &[BusEntry], outbox: &mut Outbox) -> Vec<Job> {
        let now_ms = clock::now_ms();
        let mut jobs = Vec::with_capacity(entries.len());
        for entry in entries {
            match Job::parse(entry, now_ms) {
                Ok(job) if job.conversation.partition(self.node.partitions) == self.partition => {
                    jobs.push(job);
                }
                Ok(job) => {
                    // The fence of this partition would not hold for it.
                    let refusal = Refusal::new(ErrorCode::Internal, "sent to a wrong partition");
                    let id = job.client_msg_id_bytes();
                    outbox.refuse(&job.origin, &refusal, id, now_ms);
                }
                Err(NoJob::Refused {
                    origin,
                    refusal,
                    client_msg_id,
                }) => outbox.refuse(&origin, &refusal, client_msg_id, now_ms),
                Err(NoJob::Unreadable(error)) => consumer::count_poison("message", &error),
            }
        }
        jobs
    }

    async fn round(&mut self, jobs: Vec<Job>, outbox: &mut Outbox) -> Result<(), WorkError> {
        let node = self.node.clone();
        let now_ms = clock::now_ms();
        let wanted: HashSet<ConversationId> = jobs
            .iter()
            .filter(|job| job.conversation.is_group())
            .map(|job| job.conversation.clone())
            .collect();
        self.groups.load(&*node.owners_store, &wanted).await?;
        let facts = Facts::gather(
            &*node.owners_store,
            &node.standings,
            &self.groups,
            &jobs,
            now_ms,
        )
        .await?;

        let taken = taken_ids(&*node.owners_store, &jobs).await?;
        let mut plan = Plan::default();
        let mut findings = Findings::default();
        for (place, job) in jobs.iter().enumerate() {
            if taken.contains(&place) {
                // What it would come down to now says nothing: it is answered
                // as the first time, or refused, by what is stored.
                self.groups.forget(&job.conversation);
                let reused = commit_refusal(CommitRefusal::ClientMsgIdReused);
                findings.failed.push((place, reused));
                continue;
            }
            let window_ms = node.config.recall_window_ms;
            match checks::check(job, &facts, &self.groups, window_ms, now_ms) {
                Ok(Passed::Store(contents)) => {
                    plan.add(place, job, contents, || {
                        (node.snowflake.issue(now_ms), now_ms)
                    });
                }
                Ok(Passed::Tell(packet, users)) => findings.announcements.push(Announcement {
                    what: What::Event(packet),
                    audience: Audience::Users(users),
                    except: job.origin.connection,
                }),
                Err(refusal) => findings.failed.push((place, refusal)),
            }
        }
        self.forgive_repeats(&jobs, &mut findings, outbox).await?;
        self.settle(&jobs, plan, &mut findings, outbox).await?;
        self.read_back(&jobs, &mut findings).await?;
        fan_out::announce(&*node.directory, findings.announcements, outbox).await?;
        Ok(())
    }

    /// Refuses what failed the checks, but answers again what was stored when
    /// it passed them: the sender may have left, or been muted, since.
    async fn forgive_repeats(
        &self,
        jobs: &[Job],
        findings: &mut Findings,
        outbox: &mut Outbox,
    ) -> Result<(), WorkError> {
        let failed = std::mem::take(&mut findings.failed);
        let failed: Vec<_> = failed
            .into_iter()
            .filter_map(|(place, refusal)| Some((place, jobs.get(place)?, refusal)))
            .collect();
        let keys: Vec<_> = failed.iter().filter_map(|(_, job, _)| job.key()).collect();
        let mut answers = match keys.is_empty() {
            true => Vec::new(),
            false => self.node.owners_store.first_answers(&keys).await?,
        }
        .into_iter();
        let before: Vec<Option<Stored>> = failed
            .iter()
            .map(|(_, job, _)| job.key().and_then(|_| answers.next().flatten()))
            .collect();
        let positions: Vec<_> = failed
            .iter()
            .zip(&before)
            .filter_map(|((_, job, _), stored)| {
                Some((job.conversation.clone(), stored.as_ref()?.seq))
            })
            .collect();
        let mut entries = match positions.is_empty() {
            true => Vec::new(),
            false => self.node.owners_store.entries(&positions).await?,
        }
        .into_iter();
        for ((place, job, refusal), stored) in failed.iter().zip(before) {
            let Some(stored) = stored else {
                refuse(outbox, job, refusal, clock::now_ms());
                continue;
            };
            if entries.next().flatten().is_some_and(|it| job.asks_for(&it)) {
                outbox.answer(&job.origin, send_ack(job, &stored));
                findings.repeats.push((stored, *place));
            } else {
                let reused = commit_refusal(CommitRefusal::ClientMsgIdReused);
                refuse(outbox, job, &reused, clock::now_ms());
            }
        }
        Ok(())
    }

    /// Commits the plan and answers each job.
    async fn settle(
        &mut self,
        jobs: &[Job],
        plan: Plan,
        findings: &mut Findings,
        outbox: &mut Outbox,
    ) -> Result<(), WorkError> {
        if plan.entries.is_empty() {
            return Ok(());
        }
        let places = plan.seats.iter().map(|(place, _)| *place);
        followed::checked(
            &self.node.tracer,
            places.filter_map(|place| jobs.get(place)),
        );
        let started = Instant::now();
        let commit = Commit {
            partition: self.partition,
            epoch: self.epoch,
            entries: plan.entries.clone(),
        };
        let outcomes = self.node.owners_store.commit(commit).await?;
        metrics::histogram!("sluice_message_commit_seconds")
            .record(started.elapsed().as_secs_f64());

        // Groups of which the store knows better. What else of the batch was
        // stored in them must still find its members.
        let mut doubted = HashSet::new();
        let placed = plan.entries.into_iter().zip(plan.seats);
        for ((entry, (place, answers)), outcome) in placed.zip(outcomes) {
            let Some(job) = jobs.get(place) else { continue };
            followed::committed(&self.node.tracer, job, &outcome);
            match outcome {
                Outcome::Stored(stored) => {
                    self.groups.apply(
                        &entry.conversation,
                        &entry.sender,
                        stored.seq,
                        &entry.content,
                    );
                    if answers {
                        outbox.answer(&job.origin, send_ack(job, &stored));
                    }
                    findings.announcements.push(Announcement {
                        audience: self.audience(
                            &entry.conversation,
                            &entry.sender,
                            &entry.content,
                            &stored,
                        ),
                        what: What::Entry(wire::committed(entry, &stored)),
                        except: job.origin.connection,
                    });
                }
                Outcome::Duplicate(stored) => {
                    if job.changes_group() {
                        doubted.insert(entry.conversation);
                    }
                    if answers {
                        outbox.answer(&job.origin, send_ack(job, &stored));
                    }
                    findings.repeats.push((stored, place));
                }
                Outcome::Refused(refusal) => {
                    doubted.insert(entry.conversation);
                    if answers {
                        refuse(outbox, job, &commit_refusal(refusal), clock::now_ms());
                    }
                }
            }
        }
        for group in doubted {
            self.groups.forget(&group);
        }
        Ok(())
    }

    /// Announces again what was stored before, as it is now: it may have been
    /// recalled since.
    async fn read_back(&mut self, jobs: &[Job], findings: &mut Findings) -> Result<(), WorkError> {
        if findings.repeats.is_empty() {
            return Ok(());
        }
        let repeats = std::mem::take(&mut findings.repeats);
        let positions: Vec<_> = repeats
            .iter()
            .filter_map(|(stored, place)| {
                Some((jobs.get(*place)?.conversation.clone(), stored.seq))
            })
            .collect();
        let groups = positions
            .iter()
            .filter(|(conversation, _)| conversation.is_group())
            .map(|(conversation, _)| conversation.clone())
            .collect();
        self.groups.load(&*self.node.owners_store, &groups).await?;
        let entries = self.node.owners_store.entries(&positions).await?;
        for ((stored, place), entry) in repeats.into_iter().zip(entries) {
            let (Some(entry), Some(job)) = (entry, jobs.get(place)) else {
                continue;
            };
            findings.announcements.push(Announcement {
                audience: self.audience(
                    &entry.conversation,
                    &entry.sender,
                    &entry.content,
                    &stored,
                ),
                what: What::Entry(entry),
                except: job.origin.connection,
            });
        }
        Ok(())
    }

    fn audience(
        &self,
        conversation: &ConversationId,
        sender: &UserId,
        content: &Content,
        stored: &Stored,
    ) -> Audience {
        if !conversation.is_group() {
            return Audience::Inboxes(stored.inbox.clone());
        }
        Audience::Members {
            roster: self
                .groups
                .of(conversation)
                .map_or_else(|| [].into(), |group| group.roster()),
            departed: match content {
                Content::Left => Some(sender.clone()),
                Content::Removed { user } => Some(user.clone()),
                _ => None,
            },
        }
    }
}

/// Places of the changes whose ids are in the store already.
async fn taken_ids(store: &dyn Store, jobs: &[Job]) -> Result<HashSet<usize>, StoreError> {
    let changes = jobs
        .iter()
        .enumerate()
        .filter(|(_, job)| job.changes_group());
    let (places, keys): (Vec<_>, Vec<_>) = changes
        .filter_map(|(place, job)| Some((place, job.key()?)))
        .unzip();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let answers = store.first_answers(&keys).await?;
    let taken = places.into_iter().zip(answers);
    Ok(taken
        .filter_map(|(place, answer)| answer.map(|_| place))
        .collect())
}

/// The jobs up to each group's first change, and those behind one; or that
/// change, if it comes first.
fn split_round(jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    if !jobs.iter().any(Job::changes_group) {
        return (jobs, Vec::new());
    }
    let mut begun: HashSet<ConversationId> = HashSet::new();
    let mut ended: HashSet<ConversationId> = HashSet::new();
    let (mut round, mut later) = (Vec::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        if ended.contains(&job.conversation) {
            later.push(job);
            continue;
        }
        let follows = !begun.insert(job.conversation.clone());
        if job.changes_group() {
            ended.insert(job.conversation.clone());
            if follows {
                later.push(job);
                continue;
            }
        }
        round.push(job);
    }
    (round, later)
}

fn refuse(outbox: &mut Outbox, job: &Job, refusal: &Refusal, now_ms: u64) {
    // Who types expects no answer.
    if !matches!(job.ask, Ask::Typing) {
        outbox.refuse(&job.origin, refusal, job.client_msg_id_bytes(), now_ms);
    }
}

fn send_ack(job: &Job, stored: &Stored) -> Body {
    let user_seq = stored
        .inbox
        .iter()
        .find(|(user, _)| *user == job.origin.user)
        .map_or(0, |(_, user_seq)| user_seq.0);
    Body::SendAck(packet::SendAck {
        client_msg_id: job.client_msg_id_bytes(),
        message_id: stored.message_id.0,
        conversation_id: job.conversation.as_str().to_owned(),
        seq: stored.seq.0,
        user_seq,
        server_time_ms: stored.server_time_ms,
    })
}

fn commit_refusal(refusal: CommitRefusal) -> Refusal {
    match refusal {
        CommitRefusal::ClientMsgIdReused => Refusal::new(
            ErrorCode::ClientMsgIdReused,
            "this client_msg_id was used for other content",
        ),
        CommitRefusal::OutOfOrder => Refusal::new(
            ErrorCode::OutOfOrder,
            "the predecessor isn't stored: resend from there",
        ),
        CommitRefusal::UnknownUser(user) => {
            Refusal::new(ErrorCode::UnknownUser, format!("there is no user {user}"))
        }
        CommitRefusal::UnknownConversation => Refusal::new(
            ErrorCode::UnknownConversation,
            "there is no such conversation",
        ),
        CommitRefusal::UnknownMessage => {
            Refusal::new(ErrorCode::UnknownMessage, "there is no such message")
        }
    }
}

// === impl Plan ===

impl Plan {
    fn add(
        &mut self,
        place: usize,
        job: &Job,
        contents: Vec<(sluice_protocol::ClientMsgId, Content)>,
        stamp: impl Fn() -> (MessageId, u64),
    ) {
        let last = contents.len().saturating_sub(1);
        for (index, (client_msg_id, content)) in contents.into_iter().enumerate() {
            let (message_id, server_time_ms) = stamp();
            self.entries.push(NewEntry {
                conversation: job.conversation.clone(),
                sender: job.origin.user.clone(),
                client_msg_id,
                predecessor: match &job.ask {
                    Ask::Send { predecessor, .. } => *predecessor,
                    _ => None,
                },
                message_id,
                server_time_ms,
                content,
            });
            self.seats.push((place, index == last));
        }
    }
}
