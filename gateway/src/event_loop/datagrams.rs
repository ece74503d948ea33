//! A loop's UDP port: datagrams to their sessions, new sessions into the slab.

use std::net::SocketAddr;

use sluice_codec::datagram::Knock;
use sluice_protocol::limits::FRAME_MAX_BYTES_BEFORE_LOGIN;

use super::EventLoop;
use crate::{
    address_limits::AddressLimit,
    channel::Channel,
    connection::Connection,
    datagram::{DATAGRAM_FRAMING, DatagramLink, DatagramPort, Errand, Strayed, answer_with},
    mailbox::Mail,
    metrics,
    transport::Transport,
};

/// Batches received in a turn; a batch is at most 32 runs of datagrams.
const BATCHES_PER_TURN: usize = 8;
/// For another loop, gathered in a turn; what is over is lost, as on a full network.
const STRAYED_MAX: usize = 1024;
/// A client that there is no room for comes back after this or later.
const BUSY_RETRY_MS: u32 = 1_000;

// === impl EventLoop ===

impl EventLoop {
    /// Works off what the kernel holds, as far as a turn allows.
    pub(super) fn receive_datagrams(&mut self) {
        let Some(mut port) = self.datagrams.take() else {
            return;
        };
        let Some(mut buffers) = self.receive_buffers.take() else {
            return;
        };
        for _ in 0..BATCHES_PER_TURN {
            if !port.readable {
                break;
            }
            let count = port.receive(&mut buffers);
            buffers.for_each(count, |from, datagram| {
                self.take_datagram(&mut port, from, datagram);
            });
        }
        self.receive_buffers = Some(buffers);
        self.datagrams = Some(port);
        self.pass_on();
    }

    /// True when the kernel may hold more.
    pub(super) fn has_datagrams(&self) -> bool {
        self.datagrams.as_ref().is_some_and(|port| port.readable)
    }

    /// Those of its sessions that came to other loops.
    pub(super) fn take_strayed(&mut self, strayed: Vec<Strayed>) {
        let Some(mut port) = self.datagrams.take() else {
            return;
        };
        for Strayed { from, mut datagram } in strayed {
            self.take_datagram(&mut port, from, &mut datagram);
        }
        self.datagrams = Some(port);
    }

    fn take_datagram(&mut self, port: &mut DatagramPort, from: SocketAddr, datagram: &mut [u8]) {
        self.bench.metrics.datagrams_in.increment(1);
        self.bench.metrics.bytes_in.increment(datagram.len() as u64);
        match port.sort(&mut self.bench, from, datagram) {
            Errand::Session(key, header) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    let (bench, pipeline) = (&mut self.bench, &self.pipeline);
                    if connection.take_datagram(bench, pipeline, from, &header, datagram) {
                        let (address, unix_ms) = (connection.channel.peer.ip(), bench.now.unix_ms);
                        let ticket = port
                            .acceptor()
                            .fresh_ticket(address, unix_ms, rand::random());
                        connection.give_ticket(bench, &ticket);
                    }
                }
            }
            Errand::Elsewhere(event_loop) => {
                let strayed = self.strayed.get_mut(usize::from(event_loop));
                match strayed.filter(|strayed| strayed.len() < STRAYED_MAX) {
                    Some(strayed) => strayed.push(Strayed {
                        from,
                        datagram: datagram.into(),
                    }),
                    None => self.bench.metrics.datagrams_useless.increment(1),
                }
            }
            Errand::Knock(knock) => self.open_session(port, from, &knock),
            Errand::Nothing => {}
        }
    }

    /// Hands over what belongs to other loops; a loop whose mailbox is full loses it.
    fn pass_on(&mut self) {
        for (strayed, mailbox) in self.strayed.iter_mut().zip(&self.loops) {
            if !strayed.is_empty() {
                let count = strayed.len() as u64;
                match mailbox.offer(Mail::Strayed(std::mem::take(strayed))) {
                    Ok(()) => self.bench.metrics.datagrams_strayed.increment(count),
                    Err(_) => self.bench.metrics.datagrams_useless.increment(count),
                }
            }
        }
    }

    fn open_session(&mut self, port: &mut DatagramPort, from: SocketAddr, knock: &Knock) {
        let id = knock.connection_id();
        if let Some(key) = port.session(id) {
            // The Welcome was lost, or the Knock is a replay.
            if let Some(connection) = self.connections.get_mut(key)
                && let Transport::Datagram(link) = &connection.transport
            {
                link.repeat_welcome(from, &mut self.bench.outgoing, &self.bench.metrics);
            }
            return;
        }
        if let Err(why) = self.room_for(from) {
            metrics::turned_away(why);
            let busy = port.acceptor().busy(knock, BUSY_RETRY_MS);
            return answer_with(&mut self.bench, from, &busy);
        }
        let now = self.bench.now;
        let Ok(accepted) = port.acceptor().accept(knock, now.mono_us, rand::random()) else {
            self.bench.metrics.datagrams_useless.increment(1);
            return self.bench.shared.addresses.leave(from.ip());
        };
        answer_with(&mut self.bench, from, &accepted.answer);
        let config = self.bench.shared.datagram_config.clone();
        let key = self.connections.insert_with(|key| {
            let cap = FRAME_MAX_BYTES_BEFORE_LOGIN;
            let link = DatagramLink::new(accepted, from, config, now.mono_us, cap);
            let channel = Channel::new(key, from, DATAGRAM_FRAMING, now.mono_ms);
            Connection::new(Transport::Datagram(Box::new(link)), channel)
        });
        self.bench.metrics.accepted.increment(1);
        self.bench.metrics.connections.increment(1);
        if let Some(key) = key
            && let Some(connection) = self.connections.get_mut(key)
        {
            port.add(id, key);
            let login_ms = self.bench.shared.config.timeouts.login_ms;
            connection
                .channel
                .arm(&mut self.bench, now.mono_ms + login_ms);
        }
    }

    fn room_for(&self, from: SocketAddr) -> Result<(), &'static str> {
        if self.bench.draining || self.stopping {
            return Err("draining");
        }
        if self.connections.is_full() {
            return Err("full");
        }
        let addresses = &self.bench.shared.addresses;
        let entered = addresses.enter(from.ip(), self.bench.now.mono_ms);
        entered.map_err(|limit| match limit {
            AddressLimit::Connections => "address_connections",
            AddressLimit::ConnectRate => "address_connect_rate",
        })
    }
}
