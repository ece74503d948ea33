//! What one batch has to say: deliveries, collected by gateway.

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message as _;
use sluice_bus::Route;
use sluice_protocol::{
    ConnectionId, Incarnation, Refusal, UserId,
    envelope::{Delivery, Forget, Target, delivery::Body},
    packet::{self, Packet},
};

use crate::origin::{Origin, connection_bytes};

/// What one batch has to say, by gateway.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    gateways: HashMap<Incarnation, Vec<Delivery>>,
}

// === impl Outbox ===

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// All of it, each gateway's share in order.
    pub(crate) fn into_shares(self) -> HashMap<Incarnation, Vec<Delivery>> {
        self.gateways
    }

    /// Answers a request, by its id.
    pub(crate) fn answer(&mut self, origin: &Origin, body: packet::packet::Body) {
        let packet = Packet {
            id: origin.request_id,
            body: Some(body),
        };
        self.tell(origin, Body::Answer(packet.encode_to_vec().into()));
    }

    /// Refuses a request; `client_msg_id` is empty for what isn't a send.
    pub(crate) fn refuse(
        &mut self,
        origin: &Origin,
        refusal: &Refusal,
        client_msg_id: Bytes,
        now_ms: u64,
    ) {
        metrics::counter!("sluice_refusals_total", "code" => refusal.label()).increment(1);
        let error = packet::Error {
            client_msg_id,
            ..refusal.to_packet(now_ms)
        };
        self.answer(origin, packet::packet::Body::Error(error));
    }

    /// A delivery for the asking connection alone.
    pub(crate) fn tell(&mut self, origin: &Origin, body: Body) {
        let delivery = Delivery {
            targets: vec![origin.target()],
            body: Some(body),
        };
        self.gateways
            .entry(origin.reply_to)
            .or_default()
            .push(delivery);
    }

    /// The same body for many connections: one delivery a gateway.
    pub(crate) fn spread<'a>(
        &mut self,
        targets: impl Iterator<Item = (&'a UserId, &'a Route, u64)>,
        body: &Body,
    ) {
        let mut by_gateway: HashMap<Incarnation, Vec<Target>> = HashMap::new();
        for (user, route, user_seq) in targets {
            by_gateway
                .entry(route.connection.incarnation)
                .or_default()
                .push(target(user, route.connection, user_seq));
        }
        for (gateway, targets) in by_gateway {
            self.gateways.entry(gateway).or_default().push(Delivery {
                targets,
                body: Some(body.clone()),
            });
        }
    }

    /// Ends one connection for good.
    pub(crate) fn kick_one(&mut self, user: &UserId, connection: ConnectionId, kick: packet::Kick) {
        let delivery = Delivery {
            targets: vec![target(user, connection, 0)],
            body: Some(Body::Kick(kick)),
        };
        self.gateways
            .entry(connection.incarnation)
            .or_default()
            .push(delivery);
    }

    /// Tells another service node that what it keeps of a user is out of date.
    pub(crate) fn forget(&mut self, other: Incarnation, user: &UserId) {
        let users = vec![user.as_str().to_owned()];
        self.gateways.entry(other).or_default().push(Delivery {
            targets: Vec::new(),
            body: Some(Body::Forget(Forget { users })),
        });
    }

    /// Ends connections for good.
    pub(crate) fn kick<'a>(
        &mut self,
        user: &'a UserId,
        routes: impl Iterator<Item = &'a Route>,
        reason: packet::CloseReason,
        message: &str,
    ) {
        let kick = packet::Kick {
            reason: reason.into(),
            message: message.to_owned(),
        };
        self.spread(routes.map(|route| (user, route, 0)), &Body::Kick(kick));
    }
}

fn target(user: &UserId, connection: ConnectionId, user_seq: u64) -> Target {
    Target {
        connection_id: connection_bytes(connection),
        user_id: user.as_str().to_owned(),
        user_seq,
    }
}
