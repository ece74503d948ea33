//! Packets ⇄ payloads, and the tokio wrapper.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use proptest::prelude::*;
use sluice_codec::{
    EncodeError, FrameError, Framing, PacketCodec, PacketCodecError, decode_packet,
    decode_packet_bytes, encode_packet,
};
use sluice_protocol::packet::{
    CloseReason, ErrorCode, Packet, Ping, Request, Response, packet::Body,
};
use tokio_util::codec::{Decoder as _, Encoder as _, Framed};

fn request(id: u64, payload: Vec<u8>) -> Packet {
    let request = Request {
        service: "echo".into(),
        key: Bytes::from_static(b"k"),
        payload: payload.into(),
        timeout_ms: 0,
    };
    Packet {
        id,
        body: Some(Body::Request(request)),
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    assert_eq!(decode_packet(b""), Err(FrameError::Empty));
    assert_eq!(decode_packet_bytes(Bytes::new()), Err(FrameError::Empty));
    let garbage = decode_packet(&[0xff; 9]).unwrap_err();
    assert_eq!(garbage.label(), "bad_packet");
    assert_eq!(garbage.close_reason(), CloseReason::BadPacket);
    assert_eq!(garbage.refusal().code, ErrorCode::BadPacket);
    // Only an id; and a body with the unknown field number 1000.
    let unknown = Err(FrameError::UnknownPacket { id: 7 });
    assert_eq!(decode_packet(&[0x08, 7]), unknown);
    assert_eq!(decode_packet(&[0x08, 7, 0xc2, 0x3e, 0]), unknown);
}

#[test]
fn unknown_fields_of_a_known_packet_are_passed_over() {
    let ping = Packet {
        id: 1,
        body: Some(Body::Ping(Ping {})),
    };
    // A Ping with a field that a later version might add.
    assert_eq!(decode_packet(&[0x08, 1, 0x22, 2, 0x48, 5]), Ok(ping));
}

#[test]
fn bytes_fields_share_the_frame() {
    let payload = encode_packet(&request(1, vec![3; 500]), 4096).unwrap();
    let whole = payload.as_ptr_range();
    match decode_packet_bytes(payload).unwrap().body {
        Some(Body::Request(request)) => assert!(whole.contains(&request.payload.as_ptr())),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn packets_that_the_peer_would_refuse_are_not_sent() {
    let mut out = BytesMut::new();
    let large = request(1, vec![0; 100]);
    let error = Framing::Tcp.append_packet(&large, 50, &mut out);
    assert!(matches!(
        error,
        Err(EncodeError::TooLarge { max_bytes: 50, .. })
    ));
    let bodiless = Packet { id: 1, body: None };
    assert_eq!(encode_packet(&bodiless, 50), Err(EncodeError::NoBody));
    assert!(out.is_empty());
}

#[test]
fn the_codec_passes_over_unknown_packets_and_ends_at_bad_frames() {
    let mut codec = PacketCodec::new(4096, 4096);
    let mut bytes = BytesMut::from(&b"\0\0\0\x02\x08\x07"[..]);
    let ping = Packet {
        id: 9,
        body: Some(Body::Ping(Ping {})),
    };
    codec.encode(&ping, &mut bytes).unwrap();
    bytes.extend_from_slice(b"\0\0\x10\x01");
    assert_eq!(codec.decode(&mut bytes).unwrap(), Some(ping));
    assert!(matches!(
        codec.decode(&mut bytes),
        Err(PacketCodecError::Frame(FrameError::TooLarge {
            bytes: 4097,
            ..
        }))
    ));
}

#[tokio::test]
async fn packets_cross_a_narrow_pipe() {
    let (near, far) = tokio::io::duplex(7);
    let mut near = Framed::new(near, PacketCodec::new(4096, 4096));
    let mut far = Framed::new(far, PacketCodec::new(4096, 4096));
    let packets: Vec<_> = (1..50).map(|id| request(id, vec![id as u8; 40])).collect();
    let sent = packets.clone();
    let sending = async move {
        for packet in &sent {
            near.send(packet).await.unwrap();
        }
    };
    let receiving = async move {
        let mut received = Vec::new();
        while let Some(packet) = far.next().await {
            received.push(packet.unwrap());
        }
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_eq!(received, packets);
}

proptest! {
    #[test]
    fn decoding_never_panics(payload: Vec<u8>) {
        let copied = decode_packet(&payload);
        prop_assert_eq!(decode_packet_bytes(payload.into()), copied);
    }

    #[test]
    fn packets_round_trip(id: u64, status: u32, payload: Vec<u8>) {
        let response = Response { status, payload: payload.into() };
        let packet = Packet { id, body: Some(Body::Response(response)) };
        let encoded = encode_packet(&packet, 1 << 20).unwrap();
        prop_assert_eq!(&decode_packet(&encoded).unwrap(), &packet);
        for framing in [Framing::Tcp, Framing::WebSocket] {
            let mut out = BytesMut::new();
            framing.append_packet(&packet, 1 << 20, &mut out).unwrap();
            prop_assert_eq!(&out[..], &[&framing.header(encoded.len())[..], &encoded].concat()[..]);
            prop_assert_eq!(out.len(), framing.frame_bytes(encoded.len()));
        }
    }
}
