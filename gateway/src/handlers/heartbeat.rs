//! Pings are answered here, in every phase. That any packet is a sign of life
//! is noted where bytes are read; silence is noticed by the channel's timer.

use sluice_protocol::packet::{Packet, Pong, packet::Body};

use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
};

/// Ping → Pong, with the server's time.
#[derive(Debug)]
pub(crate) struct Heartbeat;

// === impl Heartbeat ===

impl Handler for Heartbeat {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        match packet.body {
            // Before login a ping is a packet like others: it must log in first.
            Some(Body::Ping(_)) if context.channel.identity.is_some() => {
                let server_time_ms = context.now().unix_ms;
                context.send(packet.id, Body::Pong(Pong { server_time_ms }));
                Flow::Done
            }
            _ => Flow::Next(packet),
        }
    }
}
