//! A client that goes on with another connection: what it had not acked comes
//! along, to it alone.

use std::time::Duration;

use sluice_protocol::{
    ConnectionId,
    packet::{CloseReason, Connect, ConnectAck, Kick, Push, packet::Body},
};

use crate::{
    client::{Client, connect},
    rig::{Rig, config, eventually},
};

#[derive(Debug, Clone, Copy)]
enum By {
    Tcp,
    Ws,
    Udp,
}

const ALL: [By; 3] = [By::Tcp, By::Ws, By::Udp];

/// How the former connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// By the login of the next one.
    Replaced,
    /// The service's kick comes before that.
    KickedBefore,
    /// The client has closed it.
    Closed,
}

async fn client(rig: &Rig, by: By) -> Client {
    match by {
        By::Tcp => Client::connect(rig.tcp).await,
        By::Ws => Client::connect_ws(rig.ws).await,
        By::Udp => Client::connect_udp(rig.udp).await,
    }
}

fn after(former: &ConnectAck, user: &str, device: &str) -> Body {
    Body::Connect(Connect {
        former_connection_id: former.connection_id.clone(),
        ..connect(user, device)
    })
}

/// Logs in as who had that connection before.
async fn come_back(client: &mut Client, former: &ConnectAck) -> (ConnectAck, Vec<Push>) {
    client.send(1, after(former, "bob", "phone")).await;
    let (mut ack, mut pushes) = (None, Vec::new());
    // Over UDP a push may overtake the answer.
    while (ack.as_ref()).is_none_or(|it: &ConnectAck| pushes.len() < it.carried_pushes as usize) {
        match client.recv().await.unwrap().body.unwrap() {
            Body::ConnectAck(it) => ack = Some(it),
            Body::Push(push) => pushes.push(push),
            other => panic!("{other:?}"),
        }
    }
    pushes.sort_by_key(|push| push.number);
    (ack.unwrap(), pushes)
}

fn event_loop(ack: &ConnectAck) -> u16 {
    ConnectionId::parse(&ack.connection_id).unwrap().event_loop
}

async fn unbound(rig: &Rig) {
    eventually("unbound", async || {
        rig.services.routes("bob").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn unacked_pushes_come_along_to_every_transport_and_loop() {
    let rig = Rig::start().await;
    let mut loops = [0; 2];
    let ends = [End::Replaced, End::KickedBefore, End::Closed];
    let ways = ALL
        .iter()
        .flat_map(|from| ALL.iter().map(move |to| (from, to)));
    for ((from, to), end) in ways.flat_map(|way| ends.map(|end| (way, end))) {
        let mut old = client(&rig, *from).await;
        let former = old.login("bob", "phone").await;
        for n in 1..=6 {
            rig.services.push("bob", format!("{n}").as_bytes()).await;
        }
        let mut before = Vec::new();
        for _ in 0..6 {
            before.push(old.push().await);
        }
        before.sort_by_key(|push| push.number);
        // The others are still missing there.
        old.ack_pushes(2).await;
        old.send(9, Body::Ping(Default::default())).await;
        assert!(matches!(old.answer(9).await, Body::Pong(_)));
        let replaced = Kick {
            reason: CloseReason::Replaced.into(),
            message: String::new(),
        };
        match end {
            End::Replaced => {}
            End::KickedBefore => {
                rig.services.kick("bob", replaced.clone()).await;
                unbound(&rig).await;
            }
            End::Closed => {
                if let Client::Udp(client) = &mut old {
                    let now_us = client.now_us();
                    client.connection.close(now_us, 0, "");
                    client.flush().await;
                }
                drop(std::mem::replace(&mut old, client(&rig, By::Tcp).await));
                unbound(&rig).await;
            }
        }
        let mut new = client(&rig, *to).await;
        let (ack, pushes) = come_back(&mut new, &former).await;
        loops[usize::from(event_loop(&ack) == event_loop(&former))] += 1;
        assert_eq!(ack.carried_pushes, 4, "{from:?} {to:?} {end:?}");
        for (number, (push, old)) in (1..).zip(pushes.iter().zip(&before[2..])) {
            assert_eq!((push.number, push.user_seq), (number, old.user_seq));
            assert_eq!(push.entry, old.entry);
        }
        if let End::Replaced = end {
            let last = old.recv().await.unwrap();
            assert!(matches!(last.body, Some(Body::Kick(kick)) if kick.reason == replaced.reason));
        }
        rig.services.push("bob", b"next").await;
        assert_eq!(new.push().await.number, 5);
        new.ack_pushes(5).await;
        eventually("delivered cursors", async || {
            let seen = rig.services.seen().await;
            let last = pushes.last().unwrap().entry.as_ref().unwrap().seq;
            seen.delivered.iter().any(|it| it.seq > last)
        })
        .await;
        drop(new);
    }
    assert!(loops[0] > 0 && loops[1] > 0, "{loops:?}");
}

#[tokio::test]
async fn nothing_comes_along_to_others() {
    let rig = Rig::start().await;
    let mut bob = rig.login("bob").await;
    let former = Client::connect(rig.tcp).await.login("carol", "phone").await;
    let own = {
        rig.services.push("bob", b"for bob's phone").await;
        bob.push().await;
        rig.services.routes("bob").await[0].connection
    };
    let named = ConnectAck {
        connection_id: own.to_bytes().to_vec().into(),
        ..former
    };
    for (user, device) in [("mallory", "phone"), ("bob", "tablet")] {
        let mut other = Client::connect(rig.tcp).await;
        other.send(1, after(&named, user, device)).await;
        let Body::ConnectAck(ack) = other.answer(1).await else {
            panic!("no ConnectAck");
        };
        assert_eq!(ack.carried_pushes, 0);
        other.expect_silence(Duration::from_millis(50)).await;
    }
    // Names of no connection, of other gateways and of loops that there are not.
    let elsewhere = [
        ConnectionId {
            event_loop: 77,
            ..own
        },
        ConnectionId {
            slot: 4_000_000,
            ..own
        },
        ConnectionId {
            incarnation: sluice_protocol::Incarnation(u32::MAX),
            ..own
        },
    ];
    for former in elsewhere
        .map(|id| id.to_bytes().to_vec())
        .into_iter()
        .chain([vec![1; 3]])
    {
        let mut dave = Client::connect(rig.tcp).await;
        let connect = Connect {
            former_connection_id: former.into(),
            ..connect("dave", "phone")
        };
        dave.send(1, Body::Connect(connect)).await;
        assert!(matches!(dave.answer(1).await, Body::ConnectAck(_)));
    }
    bob.send(9, Body::Ping(Default::default())).await;
    assert!(matches!(bob.answer(9).await, Body::Pong(_)));
}

#[tokio::test]
async fn an_heir_that_dies_before_it_was_told_leaves_it_to_the_next() {
    let rig = Rig::start().await;
    let mut old = rig.login("bob").await;
    let former = old_ack(&rig).await;
    for _ in 0..3 {
        rig.services.push("bob", b"hold on to this").await;
        old.push().await;
    }
    rig.services.hold_sessions(true);
    for _ in 0..8 {
        let mut heir = Client::connect(rig.tcp).await;
        heir.send(1, after(&former, "bob", "phone")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(old);
    rig.services.hold_sessions(false);
    unbound(&rig).await;
    let mut heir = client(&rig, By::Udp).await;
    let (ack, pushes) = come_back(&mut heir, &former).await;
    assert_eq!((ack.carried_pushes, pushes.len()), (3, 3));
    // What the second one had unacked goes to the third.
    heir.ack_pushes(1).await;
    heir.send(9, Body::Ping(Default::default())).await;
    heir.answer(9).await;
    let (ack, pushes) = come_back(&mut client(&rig, By::Ws).await, &ack).await;
    assert_eq!((ack.carried_pushes, pushes.len()), (2, 2));
}

/// As much of the answer to a login as is needed later.
async fn old_ack(rig: &Rig) -> ConnectAck {
    let connection = rig.services.routes("bob").await[0].connection;
    ConnectAck {
        connection_id: connection.to_bytes().to_vec().into(),
        ..ConnectAck::default()
    }
}

#[tokio::test]
async fn what_the_bounds_leave_out_is_pulled() {
    let rig = Rig::start().await;
    let mut old = rig.login("bob").await;
    let former = old_ack(&rig).await;
    for _ in 0..200 {
        rig.services.push("bob", &[b'x'; 2_000]).await;
        old.push().await;
    }
    let mut new = Client::connect(rig.tcp).await;
    let (ack, pushes) = come_back(&mut new, &former).await;
    assert!(
        (20..100).contains(&ack.carried_pushes),
        "{}",
        ack.carried_pushes
    );
    assert_eq!(pushes.len(), ack.carried_pushes as usize);
    new.ack_pushes(pushes.len() as u64).await;
    let overflow = new.recv().await.unwrap().body;
    let Some(Body::Overflow(overflow)) = overflow else {
        panic!("{overflow:?}");
    };
    assert_eq!(overflow.dropped, 200 - pushes.len() as u64);
}

#[tokio::test]
async fn what_is_left_is_forgotten_after_a_while() {
    let mut config = config();
    config.push.legacy_ms = 100;
    let rig = Rig::start_with(config).await;
    let mut old = rig.login("bob").await;
    let former = old_ack(&rig).await;
    rig.services.push("bob", b"too late").await;
    old.push().await;
    drop(old);
    unbound(&rig).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (ack, pushes) = come_back(&mut Client::connect(rig.tcp).await, &former).await;
    assert_eq!((ack.carried_pushes, pushes.len()), (0, 0));
}
