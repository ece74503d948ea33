//! A consumer's end of a stream on Redis, alone (by lease) or beside others.
//!
//! It first goes through what is pending under its name, page by page, then
//! reads what is new; after every error it begins again. What is under way is
//! kept in the reader, so a dropped `read` leaves it to the next one.

use std::{
    collections::VecDeque, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration,
};

use async_trait::async_trait;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    bus::Engine,
    doorbell::Doorbell,
    held::Membership,
    lease::{Lease, Tokens},
    names::Names,
    page::{Page, entry_text, read_owned, read_shared},
};
use crate::{BusEntry, BusError, EntryId, ReadBatch, Reader};

/// More than this is not asked for at once: a longer script would stall others.
const PAGE_MAX_ENTRIES: usize = 512;
/// `>`: what no consumer has had yet.
const NEW: &str = ">";
const FIRST: &str = "0-0";

/// By what right it reads.
pub(super) enum Seat {
    Owner(Lease),
    Member(Membership),
}

/// One consumer.
pub(super) struct RedisReader {
    engine: Arc<Engine>,
    names: Arc<Names>,
    seat: Seat,
    doorbell: Doorbell,
    /// [`NEW`], or behind which of its pending entries to go on.
    cursor: String,
    /// Read from Redis, not handed out yet.
    ready: VecDeque<BusEntry>,
    reset: bool,
    lost_entries: u64,
    /// A task, since it may hold what others wait for: it must go on while nobody reads.
    under_way: Option<JoinHandle<Step>>,
    looked_for_heirs: Instant,
    /// Why nothing more will come: lease lost or stream closed.
    end: Option<BusError>,
}

enum Step {
    Page(Result<Page, BusError>),
    Rung,
}

// === impl RedisReader ===

impl RedisReader {
    pub(super) fn new(
        engine: Arc<Engine>,
        names: Arc<Names>,
        seat: Seat,
        doorbell: Doorbell,
    ) -> Self {
        // A member's name is new: nothing can be pending under it.
        let cursor = match seat {
            Seat::Owner(_) => FIRST,
            Seat::Member(_) => NEW,
        };
        Self {
            engine,
            names,
            seat,
            doorbell,
            cursor: cursor.to_owned(),
            ready: VecDeque::new(),
            reset: false,
            lost_entries: 0,
            under_way: None,
            looked_for_heirs: Instant::now(),
            end: None,
        }
    }

    /// Starts the read script.
    fn page(&mut self, max: usize) -> JoinHandle<Step> {
        let (engine, names) = (Arc::clone(&self.engine), Arc::clone(&self.names));
        let cursor = self.cursor.clone();
        match &self.seat {
            Seat::Owner(lease) => {
                let tokens = lease.tokens();
                tokio::spawn(async move {
                    Step::Page(read_owned(&engine, &names, tokens, &cursor, max).await)
                })
            }
            Seat::Member(membership) => {
                let consumer = Arc::clone(&membership.consumer);
                let every = Duration::from_millis(engine.config.claim_idle_ms / 2);
                let look = self.looked_for_heirs.elapsed() >= every;
                if look {
                    self.looked_for_heirs = Instant::now();
                }
                tokio::spawn(async move {
                    Step::Page(read_shared(&engine, &names, &consumer, &cursor, max, look).await)
                })
            }
        }
    }

    /// Takes in what a script answered; says what to do next if there is nothing to hand out.
    fn take(&mut self, page: Result<Page, BusError>) -> Result<(), BusError> {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                self.begin_again();
                return Err(error);
            }
        };
        let (cursor, newest, entries) = match page {
            Page::Lost => {
                return Err(self.ended(BusError::LeaseLost(self.names.plain.clone())));
            }
            Page::Closed => return Err(self.ended(BusError::Closed(self.names.plain.clone()))),
            Page::Entries {
                reset,
                lost,
                buried,
                cursor,
                newest,
                entries,
            } => {
                self.reset |= reset;
                self.lost_entries += lost;
                self.report(reset, lost, buried);
                (cursor, newest, entries)
            }
        };
        match &self.seat {
            Seat::Owner(lease) => lease.token_confirmed(),
            Seat::Member(membership) => {
                let mut held = membership.held.lock();
                held.extend(entries.iter().map(|entry| entry.id));
            }
        }
        let was_new = self.cursor == NEW;
        self.cursor = cursor;
        self.ready.extend(entries);
        if self.ready.is_empty() && was_new && !self.has_news() {
            let doorbell = self.doorbell.clone();
            self.under_way = Some(tokio::spawn(async move {
                doorbell.rung(newest).await;
                Step::Rung
            }));
        }
        Ok(())
    }

    fn report(&self, reset: bool, lost: u64, buried: u64) {
        let stream = &self.names.plain;
        if reset {
            metrics::counter!("sluice_bus_stream_resets_total").increment(1);
            tracing::warn!(%stream, "the stream was gone and has been made anew");
        }
        if lost > 0 {
            metrics::counter!("sluice_bus_lost_entries_total").increment(lost);
            tracing::warn!(%stream, lost, "entries were trimmed before they were read");
        }
        if buried > 0 {
            metrics::counter!("sluice_bus_dead_letters_total").increment(buried);
            tracing::error!(%stream, buried, "entries set aside as dead letters");
        }
    }

    fn ended(&mut self, error: BusError) -> BusError {
        self.end = Some(error.clone());
        self.ready.clear();
        error
    }

    fn has_news(&self) -> bool {
        self.reset || self.lost_entries > 0
    }

    fn hand_out(&mut self, max: usize) -> ReadBatch {
        let count = max.min(self.ready.len());
        ReadBatch {
            entries: self.ready.drain(..count).collect(),
            reset: std::mem::take(&mut self.reset),
            lost_entries: std::mem::take(&mut self.lost_entries),
        }
    }

    async fn ack_owned(&self, tokens: Tokens, ids: &[String]) -> Result<String, BusError> {
        let names = &self.names;
        let keys = [
            names.stream.as_str(),
            names.lease.as_str(),
            names.closed.as_str(),
        ];
        let script = &self.engine.scripts.ack_owned;
        let acked = self.engine.link.script(script, &keys, |call| {
            call.arg(&tokens.current).arg(&tokens.former).arg(ids);
        });
        acked.await
    }

    async fn ack_shared(&self, ids: &[String]) -> Result<String, BusError> {
        let script = &self.engine.scripts.ack_shared;
        let keys = [self.names.stream.as_str()];
        let acked = self.engine.link.script(script, &keys, |call| {
            call.arg(ids);
        });
        acked.await
    }
}

#[async_trait]
impl Reader for RedisReader {
    async fn read(&mut self, max_entries: usize) -> Result<ReadBatch, BusError> {
        let max = max_entries.clamp(1, PAGE_MAX_ENTRIES);
        loop {
            if let Some(error) = &self.end {
                return Err(error.clone());
            }
            if !self.ready.is_empty() || self.has_news() {
                return Ok(self.hand_out(max));
            }
            if self.under_way.is_none() {
                self.under_way = Some(self.page(max));
            }
            // Polled where it lies, so that a dropped read leaves it to the next one.
            let step = poll_fn(|context| match &mut self.under_way {
                Some(task) => Pin::new(task).poll(context),
                None => Poll::Ready(Ok(Step::Rung)),
            })
            .await;
            self.under_way = None;
            let step = step.map_err(|_| BusError::Closed(self.names.plain.clone()))?;
            if let Step::Page(page) = step {
                self.take(page)?;
            }
        }
    }

    async fn ack(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        if let Some(error) = &self.end {
            return Err(error.clone());
        }
        if ids.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = ids.iter().map(entry_text).collect();
        let answer = match &self.seat {
            Seat::Owner(lease) => self.ack_owned(lease.tokens(), &texts).await,
            Seat::Member(_) => self.ack_shared(&texts).await,
        };
        match answer.as_deref() {
            Ok("LOST") => Err(self.ended(BusError::LeaseLost(self.names.plain.clone()))),
            Ok("CLOSED") => Err(self.ended(BusError::Closed(self.names.plain.clone()))),
            Ok(_) => {
                if let Seat::Member(membership) = &self.seat {
                    let mut held = membership.held.lock();
                    for id in ids {
                        held.remove(id);
                    }
                }
                Ok(())
            }
            Err(error) => {
                let error = error.clone();
                self.begin_again();
                Err(error)
            }
        }
    }

    /// From the first pending entry on, under a new token: after an error a
    /// script may still be on its way.
    fn begin_again(&mut self) {
        if let Seat::Owner(lease) = &self.seat {
            lease.change_token();
        }
        self.cursor = FIRST.to_owned();
        self.ready.clear();
        if let Some(task) = self.under_way.take() {
            task.abort();
        }
    }
}

impl Drop for RedisReader {
    fn drop(&mut self) {
        if let Some(task) = self.under_way.take() {
            task.abort();
        }
    }
}
