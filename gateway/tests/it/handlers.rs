//! Handlers that a user of the crate adds.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sluice_bus::{MemoryBus, MemoryBusConfig};
use sluice_gateway::{ChannelContext, Flow, Handler, Outbound, Phase};
use sluice_protocol::{
    Refusal,
    packet::{ErrorCode, Packet, packet::Body},
};

use crate::{
    client::text,
    rig::{Rig, config},
};

/// Lets nobody speak of swordfish, and counts pushes.
#[derive(Default)]
struct NoSwordfish {
    pushes: AtomicUsize,
}

impl Handler for NoSwordfish {
    fn inbound(&self, context: &mut ChannelContext<'_>, packet: Packet) -> Flow {
        match &packet.body {
            Some(Body::Send(send)) if send.body.as_ref() == b"swordfish" => {
                assert_eq!(context.phase(), Phase::Open);
                let refusal = Refusal::new(ErrorCode::Forbidden, "not that word");
                context.refuse(packet.id, &refusal, send.client_msg_id.clone());
                Flow::Done
            }
            _ => Flow::Next(packet),
        }
    }

    fn outbound(&self, context: &mut ChannelContext<'_>, packet: Outbound<'_>) -> bool {
        if let Outbound::Push(_) = packet {
            self.pushes.fetch_add(1, Ordering::Relaxed);
            return context.user().is_some_and(|user| user.as_str() != "carol");
        }
        true
    }

    fn sees_outbound(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_handler_of_ones_own_sees_both_ways() {
    let bus = MemoryBus::new(MemoryBusConfig::default());
    let handler = Arc::new(NoSwordfish::default());
    let handlers = vec![Arc::clone(&handler) as Arc<dyn Handler>];
    let rig = Rig::start_parts(config(), Arc::clone(&bus) as _, bus, handlers).await;
    let mut alice = rig.login("alice").await;
    let mut bob = rig.login("bob").await;
    let mut carol = rig.login("carol").await;
    alice.send(5, Body::Send(text("bob", "swordfish"))).await;
    alice.expect_error(ErrorCode::Forbidden).await;
    for to in ["bob", "carol"] {
        alice.send(6, Body::Send(text(to, "hello"))).await;
        assert!(matches!(alice.answer(6).await, Body::SendAck(_)));
    }
    assert_eq!(bob.push().await.number, 1);
    let silence = std::time::Duration::from_millis(100);
    carol.expect_silence(silence).await;
    assert_eq!(handler.pushes.load(Ordering::Relaxed), 2);
}
