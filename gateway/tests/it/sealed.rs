//! Encrypted TCP with a real gateway: the packets of plain TCP, on the same port, and
//! bytes that mean harm.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use sluice_codec::{
    datagram::{ServerKey, ServerPin},
    encode_packet,
    sealed_tcp::{SealedStream, StreamConnector},
};
use sluice_gateway::TcpEncryption;
use sluice_protocol::packet::{CloseReason, ErrorCode, Ping, packet::Body};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    admin::connections,
    client::{Client, PATIENCE, connect, open_sealed, packet, text},
    rig::{Rig, config, datagram_key, eventually},
};

async fn login(rig: &Rig, user: &str) -> Client {
    let mut client = Client::connect_sealed(rig.tcp).await;
    client.login(user, "phone").await;
    client
}

/// All that still comes, until the end.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let all = socket.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("not closed")
        .unwrap();
    answer
}

fn opening(pin: ServerPin) -> (StreamConnector, Vec<u8>) {
    StreamConnector::begin(pin, rand::random()).unwrap()
}

fn sealed(stream: &mut SealedStream, id: u64, body: Body) -> Vec<u8> {
    let mut out = BytesMut::new();
    let payload = encode_packet(&packet(id, body), 1 << 20).unwrap();
    stream.sealer.append_payload(&payload, &mut out);
    out.to_vec()
}

#[tokio::test]
async fn plain_and_encrypted_clients_talk_on_one_port() {
    let rig = Rig::start().await;
    let (mut alice, mut bob) = (login(&rig, "alice").await, rig.login("bob").await);
    let mut carol = login(&rig, "carol").await;
    for n in 1..=60 {
        // Small ones are coalesced, large ones shared.
        let body = "x".repeat(n * 900);
        let id = n as u64 + 10;
        alice.send(id, Body::Send(text("bob", &body))).await;
        assert!(matches!(alice.answer(id).await, Body::SendAck(_)));
        assert_eq!(bob.push().await.number, n as u64);
        bob.ack_pushes(n as u64).await;
        bob.send(id, Body::Send(text("carol", &body))).await;
        assert_eq!(carol.push().await.number, n as u64);
        carol.ack_pushes(n as u64).await;
    }
    let rows = rig.services.routes("alice").await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn nothing_can_be_read_on_the_way() {
    let rig = Rig::start().await;
    let tap = Tap::start(rig.tcp).await;
    let mut bob = login(&rig, "bob").await;
    for (is_sealed, name) in [(true, "alice-on-noise"), (false, "carol-in-clear")] {
        let mut client = match is_sealed {
            true => Client::connect_sealed(tap.address).await,
            false => Client::connect(tap.address).await,
        };
        client.login(name, "phone").await;
        let secret = "nobody reads this but bob";
        client.send(2, Body::Send(text("bob", secret))).await;
        assert!(matches!(client.answer(2).await, Body::SendAck(_)));
        bob.push().await;
        bob.send(3, Body::Send(text(name, "an answer for one")))
            .await;
        client.push().await;
        for readable in [name, "phone", secret, "an answer for one"] {
            assert_ne!(tap.has_seen(readable), is_sealed, "{name}: {readable}");
        }
        tap.forget();
    }
}

#[tokio::test]
async fn bytes_that_were_changed_cut_or_sent_again_end_their_connection_only() {
    let rig = Rig::start().await;
    let mut bystander = login(&rig, "bystander").await;
    let ping = || Body::Ping(Ping {});
    for case in ["changed", "twice", "left out", "shorter", "plain", "length"] {
        let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
        let mut stream = open_sealed(&mut socket).await;
        let (first, second) = (
            sealed(&mut stream, 1, ping()),
            sealed(&mut stream, 2, ping()),
        );
        let bytes = match case {
            "changed" => {
                let mut bytes = first;
                bytes[7] ^= 1;
                bytes
            }
            "twice" => [&*first, &first].concat(),
            "left out" => second,
            "shorter" => {
                let mut bytes = first;
                bytes.remove(6);
                [bytes, second].concat()
            }
            "plain" => [&[0, 0, 0, 4][..], &[0; 4]].concat(),
            _ => [&[0, 0, 0, 99][..], &first[4..], &[0; 99]].concat(),
        };
        socket.write_all(&bytes).await.unwrap();
        // At most one answer to what came before, sealed, and no word on what was wrong.
        let answer = rest(&mut socket).await;
        let length = answer
            .first_chunk()
            .map_or(0, |it| 4 + u32::from_be_bytes(*it));
        assert_eq!(answer.len(), length as usize, "{case}: {answer:?}");
        // A length that none can have is told of, as over plain TCP.
        assert_eq!(length > 0, ["twice", "plain"].contains(&case), "{case}");
        bystander.send(9, ping()).await;
        assert!(matches!(bystander.answer(9).await, Body::Pong(_)));
    }
}

#[tokio::test]
async fn a_frame_over_the_cap_and_a_packet_too_early_are_refused_by_name() {
    let rig = Rig::start().await;
    let mut large = Client::connect_sealed(rig.tcp).await;
    large
        .send(1, Body::Send(text("bob", &"x".repeat(5_000))))
        .await;
    large.expect_error(ErrorCode::TooLarge).await;
    large.expect_end().await;
    let mut early = Client::connect_sealed(rig.tcp).await;
    early.send(1, Body::Send(text("bob", "hi"))).await;
    early.expect_error(ErrorCode::LoginRequired).await;
    early.expect_end().await;
}

#[tokio::test]
async fn an_opening_replayed_or_for_another_key_gives_nothing() {
    let rig = Rig::start().await;
    let (_, foreign) = opening(ServerKey::from_secret([8; 32]).pin());
    let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
    socket.write_all(&foreign).await.unwrap();
    assert!(rest(&mut socket).await.is_empty());

    // A login as it was captured, on another connection.
    let (connector, opening) = opening(datagram_key().pin());
    let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
    socket.write_all(&opening).await.unwrap();
    let mut answer = [0; StreamConnector::ANSWER_BYTES];
    socket.read_exact(&mut answer).await.unwrap();
    let mut stream = connector.finish(&answer).unwrap();
    let login = sealed(&mut stream, 1, Body::Connect(connect("alice", "phone")));
    let mut replay = TcpStream::connect(rig.tcp).await.unwrap();
    replay.write_all(&opening).await.unwrap();
    replay.write_all(&login).await.unwrap();
    let answered = rest(&mut replay).await;
    assert_eq!(answered.len(), StreamConnector::ANSWER_BYTES);
    assert_ne!(answered, answer);
    assert!(rig.services.routes("alice").await.is_empty());
    socket.write_all(&login).await.unwrap();
    eventually("alice is logged in", async || {
        !rig.services.routes("alice").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn openings_that_stay_open_end_and_harm_nobody() {
    let mut config = config();
    config.timeouts.login_ms = 1_500;
    let rig = Rig::start_with(config).await;
    let mut bystander = login(&rig, "bystander").await;
    let mut sockets = Vec::new();
    for n in 0..500 {
        let mut socket = TcpStream::connect(rig.tcp).await.unwrap();
        let (_, opening) = opening(datagram_key().pin());
        // Begun, or whole and without a login behind it.
        let bytes = if n % 5 == 0 {
            opening.len()
        } else {
            1 + n % 55
        };
        socket.write_all(&opening[..bytes]).await.unwrap();
        sockets.push(socket);
    }
    bystander.send(5, Body::Ping(Ping {})).await;
    assert!(matches!(bystander.answer(5).await, Body::Pong(_)));
    for socket in &mut sockets {
        assert!(rest(socket).await.len() <= 128);
    }
    bystander.send(6, Body::Ping(Ping {})).await;
    assert!(matches!(bystander.answer(6).await, Body::Pong(_)));
}

#[tokio::test]
async fn where_encryption_is_required_plain_logins_are_refused_by_name() {
    let mut config = config();
    config.tcp_encryption = TcpEncryption::Required;
    let rig = Rig::start_with(config).await;
    let mut plain = rig.connect().await;
    plain
        .send(7, Body::Connect(connect("alice", "phone")))
        .await;
    let (id, _) = plain.expect_error(ErrorCode::EncryptionRequired).await;
    assert_eq!(id, 7);
    plain.expect_end().await;
    assert!(rig.services.routes("alice").await.is_empty());
    login(&rig, "alice").await;
    let mut browser = Client::connect_ws(rig.ws).await;
    browser.login("alice", "browser").await;
}

#[tokio::test]
async fn where_encryption_is_off_an_opening_is_no_frame() {
    let mut config = config();
    config.tcp_encryption = TcpEncryption::Off;
    let rig = Rig::start_with(config).await;
    let mut client = rig.connect().await;
    let Client::Tcp(framed) = &mut client else {
        panic!("not TCP");
    };
    let (_, opening) = opening(datagram_key().pin());
    framed.get_mut().write_all(&opening).await.unwrap();
    client.expect_error(ErrorCode::BadFrame).await;
    client.expect_end().await;
}

#[tokio::test]
async fn last_words_are_sealed_too() {
    let mut config = config();
    config.timeouts.login_ms = 300;
    let rig = Rig::start_with(config).await;
    let mut silent = Client::connect_sealed(rig.tcp).await;
    silent.expect_go_away(CloseReason::LoginTimeout).await;
}

#[tokio::test]
async fn the_admin_list_tells_what_encryption_costs() {
    let rig = Rig::start().await;
    let _alice = login(&rig, "alice").await;
    let _bob = rig.login("bob").await;
    let page = connections(rig.admin, "?sort=memory").await;
    let row = |user: &str| {
        let rows = page["connections"].as_array().unwrap();
        rows.iter().find(|row| row["user"] == user).unwrap().clone()
    };
    let (alice, bob) = (row("alice"), row("bob"));
    assert_eq!(
        (alice["transport"].as_str(), bob["transport"].as_str()),
        (Some("tcp+noise"), Some("tcp"))
    );
    assert_eq!(bob["memory"]["sealing"], 0);
    assert!(alice["memory"]["sealing"].as_u64().unwrap() <= 128);
}

/// Passes streams on and keeps what it saw.
struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(upstream).await.unwrap();
                let ((from, to), (back_from, back_to)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from, back_to, Arc::clone(&kept)));
                tokio::spawn(pass(back_from, to, Arc::clone(&kept)));
            }
        });
        Self { address, seen }
    }

    fn has_seen(&self, text: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    seen: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        seen.lock().unwrap().extend_from_slice(&bytes[..read]);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
