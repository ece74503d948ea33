//! A session that sleeps: what must be remembered while nothing is under way.

use std::sync::Arc;

use super::super::{
    Config, credit::Credit, keepalive::Keepalive, numbers::ChannelNumbers, rtt::Rtt,
};
use super::{Session, Side};
use crate::packed::{
    put_difference, put_number, take_byte, take_difference, take_narrow, take_number,
};

impl Session {
    /// Appends all that the session is, and answers true; appends nothing and
    /// answers false if something is under way, or was less than a second ago, or
    /// the session has ended.
    pub fn pack(&self, out: &mut Vec<u8>) -> bool {
        let Self {
            active,
            config: _,
            numbers,
            next_packet,
            acked_next,
            received_next,
            last_received_us,
            last_sent_us,
            rtt,
            credit,
            keepalive,
            datagram_bytes,
            patience,
            side,
            end,
        } = self;
        if active.is_some() || end.is_some() {
            return false;
        }
        out.push(u8::from(*side == Side::Client));
        numbers.pack(out);
        put_number(out, *next_packet);
        put_difference(out, *acked_next, *next_packet);
        put_number(out, *received_next);
        put_number(out, *last_received_us);
        put_difference(out, *last_sent_us, *last_received_us);
        rtt.pack(out);
        credit.pack(out);
        // A server never pings, and learns nothing of it.
        if *side == Side::Client {
            keepalive.pack(out);
        }
        put_number(out, (*datagram_bytes).into());
        out.push(*patience);
        true
    }

    /// Takes what [`Session::pack`] appended off the front.
    pub fn unpack(input: &mut &[u8], config: Arc<Config>) -> Option<Self> {
        let side = match take_byte(input)? {
            0 => Side::Server,
            _ => Side::Client,
        };
        let numbers = ChannelNumbers::unpack(input)?;
        let next_packet = take_number(input)?;
        let acked_next = take_difference(input, next_packet)?;
        let received_next = take_number(input)?;
        let last_received_us = take_number(input)?;
        let last_sent_us = take_difference(input, last_received_us)?;
        let (rtt, credit) = (Rtt::unpack(input)?, Credit::unpack(input)?);
        let keepalive = match side {
            Side::Client => Keepalive::unpack(input)?,
            Side::Server => Keepalive::new(&config),
        };
        Some(Self {
            active: None,
            config,
            numbers,
            next_packet,
            acked_next,
            received_next,
            last_received_us,
            last_sent_us,
            rtt,
            credit,
            keepalive,
            datagram_bytes: take_narrow(input)?,
            patience: take_byte(input)?,
            side,
            end: None,
        })
    }
}
