//! Requests for any backend on the allow-list. The gateway writes who asks,
//! keeps the id pending, and answers by itself when the time is up.

use bytes::Bytes;
use prost::Message;
use sluice_protocol::{
    DeviceId, Refusal, UserId,
    envelope::{BackendRequest, Origin},
    limits::SHARED_PARTITIONS,
    packet::{ErrorCode, Packet, Request, packet::Body},
    partition_of,
};

use crate::{
    context::ChannelContext,
    pipeline::{Flow, Handler},
    requests::NotPending,
};

/// Request → the service's stream.
#[derive(Debug)]
pub(crate) struct Requests;

// === impl Requests ===

impl Handler for Requests {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        let id = packet.id;
        let Some(Body::Request(request)) = packet.body else {
            return Flow::Next(packet);
        };
        if let Err(refusal) = ask(context, id, request) {
            context.refuse(id, &refusal, Bytes::new());
        }
        Flow::Done
    }
}

fn ask(context: &mut ChannelContext<'_>, id: u64, request: Request) -> Result<(), Refusal> {
    if id == 0 {
        return Err(Refusal::bad_request("a request needs an id"));
    }
    let now = context.now();
    let limits = &context.bench.shared.config.requests;
    let timeout_ms = match request.timeout_ms {
        0 => limits.timeout_default_ms,
        asked => asked.min(limits.timeout_max_ms),
    };
    let pending_max = limits.pending_max;
    let partition = partition_of(&request.key, SHARED_PARTITIONS);
    let lanes = &context.bench.shared.lanes;
    let Some(lane) = lanes.request(&request.service, partition).cloned() else {
        return Err(Refusal::new(
            ErrorCode::UnknownService,
            "no such service is offered here",
        ));
    };
    let entry = entry(context, id, request, timeout_ms);
    let deadline_ms = now.mono_ms + u64::from(timeout_ms);
    let pending = context.channel.requests.get_or_insert_default();
    match pending.insert(id, deadline_ms, pending_max) {
        Ok(()) => {}
        Err(NotPending::Full) => {
            return Err(Refusal::new(
                ErrorCode::TooManyPending,
                format!("at most {pending_max} requests may wait for an answer"),
            ));
        }
        Err(NotPending::Duplicate) => {
            return Err(Refusal::bad_request("a request with this id is pending"));
        }
    }
    if lane.offer(entry, now.mono_ms).is_err() {
        pending.settle(id);
        context.busy(id, Bytes::new());
        return Ok(());
    }
    context.channel.arm(context.bench, deadline_ms);
    Ok(())
}

fn entry(context: &ChannelContext<'_>, id: u64, request: Request, timeout_ms: u32) -> Bytes {
    let request = BackendRequest {
        origin: Some(Origin {
            user_id: context.user().map_or("", UserId::as_str).to_owned(),
            device_id: context.device().map_or("", DeviceId::as_str).to_owned(),
            connection_id: context.connection_id().to_bytes().to_vec().into(),
            request_id: id,
            reply_to: context.bench.shared.reply_to.clone(),
        }),
        service: request.service,
        key: request.key,
        payload: request.payload,
        received_at_ms: context.now().unix_ms,
        deadline_ms: context.now().unix_ms + u64::from(timeout_ms),
    };
    request.encode_to_vec().into()
}
