//! The datagram session: what SPEC.md shows is what the codec writes, and opens
//! by what SPEC.md says and nothing else.

use std::{env, fmt::Write as _, net::SocketAddr};

use blake2::{Blake2sMac256, digest::Mac};
use bytes::BytesMut;
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use sluice_codec::datagram::{
    Accepted, Acceptor, Answer, Arrival, Connector, Established, HELLO_BYTES, ServerKey,
    ServerKeys, SessionKeys, TAG_BYTES,
};
use sluice_codec::{Decoder, Frame, Input, sealed_tcp::StreamConnector};
use snow::{
    Builder,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};

use crate::{Block, blocks, spec};

const UNIX_MS: u64 = 1_790_000_000_000;

/// 32 bytes that count up from this one.
fn counting(from: u8) -> [u8; 32] {
    std::array::from_fn(|at| from + at as u8)
}

/// The packets of SPEC.md by the codec, in the order of the chapter. Of padded
/// ones what is before the padding.
struct Example {
    packets: Vec<(&'static str, Vec<u8>)>,
}

fn server() -> (ServerKeys, Acceptor, SocketAddr) {
    let key = ServerKey::from_secret(counting(0));
    let keys = ServerKeys::new(vec![key], "").expect("one key");
    let acceptor = Acceptor::new(keys.clone(), 2);
    (keys, acceptor, ([192, 0, 2, 1], 40_000).into())
}

fn unpadded(connector: &mut Connector, said: usize) -> (Vec<u8>, Vec<u8>) {
    let mut packet = vec![0xff; HELLO_BYTES];
    let sent = connector.transmit(0, &mut packet);
    assert_eq!(sent, Ok(Some(HELLO_BYTES)));
    assert!(packet[said..].iter().all(|byte| *byte == 0));
    (packet[..said].to_vec(), packet)
}

fn answer(acceptor: &Acceptor, packet: &[u8], peer: SocketAddr) -> Answer {
    match acceptor.receive(packet, peer, UNIX_MS) {
        Arrival::Answer(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

fn seal(keys: &mut SessionKeys, number: u64, acked: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; keys.header_bytes(number, acked).expect("few under way")];
    packet.extend(payload);
    packet.extend([0; TAG_BYTES]);
    keys.seal(0, number, acked, &mut packet)
        .expect("numbers rise");
    packet
}

impl Example {
    fn make() -> Self {
        let (keys, acceptor, peer) = server();
        let pin = keys.pins().next().expect("one pin");
        let connector =
            |ticket| Connector::new(0, pin.into(), ticket, *b"attempt!", counting(0x20));
        let mut client = connector(None);
        let (hello, padded) = unpadded(&mut client, 10);
        let cookie = answer(&acceptor, &padded, peer);
        assert!(client.receive(0, &cookie).expect("a pinned key").is_none());
        let (knock, padded) = unpadded(&mut client, 79);
        let Arrival::Knock(arrived) = acceptor.receive(&padded, peer, UNIX_MS) else {
            panic!("the cookie holds");
        };
        let accepted = acceptor
            .accept(&arrived, 0, counting(0x40))
            .expect("its key");
        let Accepted {
            keys: mut server,
            answer: welcome,
        } = accepted;
        let established = client
            .receive(0, &welcome)
            .expect("no refusal")
            .expect("a session");
        let Established {
            keys: mut client,
            ticket,
            ..
        } = established;
        let (knock_with_ticket, _) = unpadded(&mut connector(Some(ticket)), 99);
        let login = seal(&mut client, 0, None, b"login");
        let reply = seal(&mut server, 0, None, b"welcome");
        client.rotate();
        let rotated = seal(&mut client, 300, Some(100), b"more");
        let mut other = padded.clone();
        other[1] = 2;
        let reset = acceptor
            .reset(client.connection_id(), login.len())
            .expect("shorter");
        let (_, _, [to_server, to_client]) = noise(&knock, &welcome[10..]);
        let packets = vec![
            ("to_server_key", to_server.to_vec()),
            ("to_client_key", to_client.to_vec()),
            ("hello", hello),
            ("cookie", cookie.to_vec()),
            ("knock", knock),
            ("welcome", welcome.to_vec()),
            ("knock_with_ticket", knock_with_ticket),
            ("versions", answer(&acceptor, &other, peer).to_vec()),
            ("busy", acceptor.busy(&arrived, 1500).to_vec()),
            ("to_server", login),
            ("to_client", reply),
            ("next_key", rotated),
            ("reset", reset.to_vec()),
        ];
        Self { packets }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{}", line.join(" "));
    }
    text
}

/// Noise as SPEC.md has it, without the codec: the client's part.
struct Noise([u8; 32]);

impl Random for Noise {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl CryptoResolver for Noise {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Self(self.0)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The first Noise message, and what the second one, `welcome`, tells: its payload
/// and the two keys.
fn noise(knock: &[u8], welcome: &[u8]) -> (Vec<u8>, Vec<u8>, [[u8; 32]; 2]) {
    let pin = server().0.pins().next().expect("one pin");
    let prologue = [b"sluice datagram", &knock[..10]].concat();
    let params = "Noise_NK_25519_ChaChaPoly_BLAKE2s"
        .parse()
        .expect("a name of Noise");
    let builder = Builder::with_resolver(params, Box::new(Noise(counting(0x20))));
    let builder = builder.prologue(&prologue).expect("once");
    let builder = builder.remote_public_key(pin.as_bytes()).expect("once");
    let mut state = builder.build_initiator().expect("all is there");
    let mut first = vec![0; 48];
    assert_eq!(state.write_message(&[], &mut first), Ok(48));
    let mut payload = vec![0; welcome.len()];
    let bytes = state.read_message(welcome, &mut payload).expect("it opens");
    payload.truncate(bytes);
    let (to_server, to_client) = state.dangerously_get_raw_split();
    (first, payload, [to_server, to_client])
}

/// Opens a datagram by 16.3; `header_bytes` and `number` are told by the text.
fn open(key: &[u8; 32], number: u64, header_bytes: usize, datagram: &[u8]) -> Vec<u8> {
    let (header, sealed) = datagram.split_at(header_bytes);
    let (sealed, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
    let mut payload = sealed.to_vec();
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    let tag: [u8; TAG_BYTES] = tag.try_into().expect("16 bytes");
    ChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(&nonce.into(), header, &mut payload, &tag.into())
        .expect("it opens");
    payload
}

fn next_key(key: &[u8; 32]) -> [u8; 32] {
    let mac = <Blake2sMac256 as Mac>::new(key.into());
    mac.chain_update(b"sluice datagram next key")
        .finalize()
        .into_bytes()
        .into()
}

fn find(blocks: &[Block], name: &str) -> Vec<u8> {
    let block = blocks.iter().find(|block| block.is("udp", name));
    block
        .unwrap_or_else(|| panic!("an example of {name}"))
        .bytes()
}

#[test]
fn datagrams_are_those_of_the_codec() {
    let text = spec();
    let blocks = blocks(&text, "hex");
    let example = Example::make();
    if env::var_os("UPDATE_SPEC").is_some() {
        for (name, packet) in &example.packets {
            println!("```hex udp={name}\n{}```\n", hex(packet));
        }
        return;
    }
    for (name, packet) in &example.packets {
        assert_eq!(
            hex(&find(&blocks, name)),
            hex(packet),
            "{name}; UPDATE_SPEC=1 prints all"
        );
    }
}

#[test]
fn datagrams_open_by_what_the_spec_says() {
    let text = spec();
    let blocks = blocks(&text, "hex");
    let find = |name| find(&blocks, name);
    let (knock, welcome, cookie) = (find("knock"), find("welcome"), find("cookie"));
    let (first, payload, [to_server, to_client]) = noise(&knock, &welcome[10..]);
    assert_eq!(
        [&cookie[27..31], &[0], &cookie[10..26], &first].concat(),
        knock[10..]
    );
    assert_eq!(
        [to_server.to_vec(), to_client.to_vec()],
        [find("to_server_key"), find("to_client_key")]
    );
    let (id, rest) = payload.split_at(8);
    let (token, ticket) = rest.split_at(16);
    assert_eq!(
        [&cookie[27..31], &[1], ticket, &first].concat(),
        find("knock_with_ticket")[10..]
    );
    assert_eq!(find("reset")[1..], *token);
    assert_eq!(find("to_server")[1..9], *id);
    assert_eq!(open(&to_server, 0, 10, &find("to_server")), b"login");
    assert_eq!(open(&to_client, 0, 2, &find("to_client")), b"welcome");
    assert_eq!(
        open(&next_key(&to_server), 300, 10 + 1, &find("next_key")),
        b"more"
    );
}

#[test]
fn encrypted_streams_are_those_of_the_codec() {
    let pin = server().0.pins().next().expect("one pin");
    let (connector, opening) = StreamConnector::begin(pin, counting(0x20)).expect("a pin");
    let mut decoder = Decoder::tcp_or_sealed(4096, server().0, counting(0x40));
    let answer = match decoder.decode(&mut Input::new(&mut opening.clone())) {
        Ok(Some(Frame::Handshake(answer))) => answer,
        other => panic!("no answer: {other:?}"),
    };
    let length = answer.clone().try_into().expect("of this length");
    let mut stream = connector.finish(&length).expect("its answer");
    let mut frame = BytesMut::new();
    stream.sealer.append_payload(b"login", &mut frame);
    let packets = [
        ("opening", opening),
        ("answer", answer),
        ("frame", frame.to_vec()),
    ];
    let text = spec();
    let blocks = blocks(&text, "hex");
    for (name, packet) in packets {
        if env::var_os("UPDATE_SPEC").is_some() {
            println!("```hex sealed={name}\n{}```\n", hex(&packet));
            continue;
        }
        let block = blocks.iter().find(|block| block.is("sealed", name));
        let block = block.unwrap_or_else(|| panic!("an example of {name}"));
        assert_eq!(
            hex(&block.bytes()),
            hex(&packet),
            "{name}; UPDATE_SPEC=1 prints all"
        );
    }
}
