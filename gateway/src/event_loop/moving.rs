//! A client goes on with another connection: the pushes that the former one has
//! unacked come along.
//!
//! ```text
//! SessionOpened at the heir ─▶ Mail::HandOver ─▶ the former closes, or has closed; its legacy
//!       ConnectAck, pushes ◀── Mail::Legacy  ◀──┘
//! ```
//!
//! Whichever comes first, the kick of the former connection, its own end or the
//! heir's login: it is closed before it is asked for its legacy, which waits for
//! that. On one loop no mail is needed. What is pushed to the former connection
//! after that is left to the sync.

use sluice_protocol::{DeviceId, UserId, packet::CloseReason};

use super::EventLoop;
use crate::{
    channel::Phase,
    handover::Unacked,
    mailbox::{Command, CommandBody, HandOver, Mail},
    slab::ChannelKey,
};

// === impl EventLoop ===

impl EventLoop {
    /// Takes a login's answer if its client had a connection here before, whose
    /// pushes are to come along; else gives it back.
    pub(super) fn open_as_heir(&mut self, command: Command) -> Option<Command> {
        let heir = command.key;
        if !matches!(command.body, CommandBody::SessionOpened(_)) {
            return Some(command);
        }
        let Some(former) = self.bench.handovers.take_former(heir) else {
            return Some(command);
        };
        let Some((user, device)) = self.awaits_answer(&command) else {
            return Some(command);
        };
        if former.event_loop == self.bench.event_loop {
            let pushes = self.give_up(ChannelKey::of(former), &user, &device);
            self.open(command, pushes);
            return None;
        }
        let Some(mailbox) = self.loops.get(usize::from(former.event_loop)) else {
            return Some(command);
        };
        let question = Mail::HandOver(Box::new(HandOver {
            former: ChannelKey::of(former),
            user,
            device,
            heir: self.bench.connection_id(heir),
        }));
        // A loop that has no room for a question is not waited for.
        if mailbox.offer(question).is_err() {
            return Some(command);
        }
        self.bench.handovers.wait(heir, command);
        None
    }

    /// Another loop asks for what a channel of this one had unacked.
    pub(super) fn hand_over(&mut self, question: &HandOver) {
        let pushes = self.give_up(question.former, &question.user, &question.device);
        let heir = question.heir;
        let answer = Mail::Legacy(ChannelKey::of(heir), pushes);
        let mailbox = self.loops.get(usize::from(heir.event_loop));
        if let Some(Err(answer)) = mailbox.map(|mailbox| mailbox.offer(answer)) {
            // A login waits for it. There are no more of these than logins.
            self.unsent.push((heir, answer));
        }
    }

    /// What the former connection's loop has found, if anything.
    pub(super) fn take_legacy(&mut self, heir: ChannelKey, pushes: Vec<Unacked>) {
        if let Some(command) = self.bench.handovers.take_opening(heir) {
            self.open(command, pushes);
        }
    }

    /// Answers that found no room before.
    pub(super) fn send_again(&mut self) {
        for (heir, answer) in std::mem::take(&mut self.unsent) {
            let mailbox = self.loops.get(usize::from(heir.event_loop));
            if let Some(Err(answer)) = mailbox.map(|mailbox| mailbox.offer(answer)) {
                self.unsent.push((heir, answer));
            }
        }
    }

    /// Whose login this answers, if that still waits for it.
    fn awaits_answer(&mut self, command: &Command) -> Option<(UserId, DeviceId)> {
        let channel = &self.connections.get_mut(command.key)?.channel;
        let identity = channel.identity.as_ref()?;
        let waits = channel.phase == Phase::Opening && channel.belongs_to(&command.user);
        waits.then(|| (identity.user.clone(), identity.device.clone()))
    }

    /// Closes the channel, if it stands and is this device's, and gives what it has
    /// left: whoever is logged in by this device now has taken its place.
    fn give_up(&mut self, former: ChannelKey, user: &UserId, device: &DeviceId) -> Vec<Unacked> {
        if let Some(connection) = self.connections.get_mut(former)
            && connection.channel.is_open()
            && (connection.channel.identity.as_ref())
                .is_some_and(|it| it.user == *user && it.device == *device)
        {
            let reason = CloseReason::Replaced.into();
            connection.channel.close(&mut self.bench, reason);
        }
        self.bench.handovers.legacy(former, user, device)
    }

    fn open(&mut self, command: Command, pushes: Vec<Unacked>) {
        if let Some(connection) = self.connections.get_mut(command.key) {
            connection.open(&mut self.bench, command, pushes);
        }
    }
}
