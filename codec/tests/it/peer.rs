//! A client that others wrote (tungstenite) against this codec as the server.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use sluice_codec::{
    Decoder, Frame, Framing, Input,
    websocket::{append_close, append_pong},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::HeaderValue,
        protocol::frame::{
            CloseFrame, Frame as RawFrame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

/// A conversation that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Echoes packets, answers pings and the close, as the gateway would. Returns
/// the close code with which it ended.
async fn serve(mut stream: DuplexStream, scratch_bytes: usize) -> Option<u16> {
    let mut decoder = Decoder::websocket(64 * 1024);
    let mut scratch = vec![0; scratch_bytes];
    loop {
        let arrived = stream.read(&mut scratch).await.unwrap();
        if arrived == 0 {
            return None;
        }
        let mut input = Input::new(&mut scratch[..arrived]);
        let mut out = BytesMut::new();
        let mut ended = None;
        loop {
            match decoder.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Frame::Handshake(answer))) => out.extend_from_slice(&answer),
                Ok(Some(Frame::Packet(payload))) => {
                    out.extend_from_slice(&Framing::WebSocket.header(payload.len()));
                    out.extend_from_slice(payload);
                }
                Ok(Some(Frame::Ping(payload))) => append_pong(payload, &mut out),
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(Frame::Close(code))) => {
                    ended = Some(code.unwrap_or(1000));
                    append_close(code.unwrap_or(1000), "", &mut out);
                }
                Err(error) => {
                    ended = Some(error.websocket_close_code());
                    match error.http_answer() {
                        Some(answer) => out.extend_from_slice(&answer),
                        None => append_close(error.websocket_close_code(), "", &mut out),
                    }
                }
            }
        }
        stream.write_all(&out).await.unwrap();
        if ended.is_some() {
            return ended;
        }
    }
}

type Client = WebSocketStream<DuplexStream>;

fn request() -> tungstenite::handshake::client::Request {
    let mut request = "ws://sluice.test/ws".into_client_request().unwrap();
    let protocols = HeaderValue::from_static("other.v1, sluice.v1");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocols);
    request
}

/// Runs a client against the server, which reads so many bytes at once.
async fn with_server<F: Future<Output = ()>>(
    scratch_bytes: usize,
    client: impl FnOnce(Client) -> F,
) -> Option<u16> {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let talking = async move {
        let (socket, answer) = client_async(request(), near).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "sluice.v1");
        client(socket).await;
    };
    let both = async { tokio::join!(serve(far, scratch_bytes), talking) };
    let (ended, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    ended
}

async fn echo(mut socket: Client) {
    for bytes in [1, 125, 126, 127, 4096, 65_535, 65_536] {
        let payload = Bytes::from((0..bytes).map(|at| at as u8).collect::<Vec<_>>());
        socket.send(Message::Binary(payload.clone())).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::Binary(payload)
        );
    }
    socket
        .send(Message::Ping(Bytes::from_static(b"there?")))
        .await
        .unwrap();
    let pong = socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
    let farewell = CloseFrame {
        code: CloseCode::Library(4001),
        reason: "done".into(),
    };
    socket.close(Some(farewell)).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert!(
        matches!(answer, Message::Close(Some(frame)) if frame.code == CloseCode::Library(4001))
    );
}

#[tokio::test]
async fn every_size_comes_back_and_the_close_is_answered() {
    for scratch_bytes in [7, 1000, 128 * 1024] {
        assert_eq!(with_server(scratch_bytes, echo).await, Some(4001));
    }
}

#[tokio::test]
async fn fragments_come_back_as_one_message() {
    let ended = with_server(64 * 1024, |mut socket| async move {
        let fragment = |opcode, fin, payload: &'static [u8]| {
            Message::Frame(RawFrame::message(payload, OpCode::Data(opcode), fin))
        };
        socket
            .send(fragment(Data::Binary, false, b"three "))
            .await
            .unwrap();
        socket.send(Message::Ping(Bytes::new())).await.unwrap();
        socket
            .send(fragment(Data::Continue, false, b"in "))
            .await
            .unwrap();
        socket
            .send(fragment(Data::Continue, true, b"one"))
            .await
            .unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::Pong(Bytes::new())
        );
        let message = socket.next().await.unwrap().unwrap();
        assert_eq!(
            message,
            Message::Binary(Bytes::from_static(b"three in one"))
        );
    });
    assert_eq!(ended.await, None);
}

async fn closed_with(mut socket: Client, message: Message) -> CloseCode {
    socket.send(message).await.unwrap();
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => frame.code,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn text_and_oversize_are_closed_with_their_codes() {
    let text = with_server(4096, |socket| async move {
        assert_eq!(
            closed_with(socket, Message::text("{}")).await,
            CloseCode::Unsupported
        );
    });
    assert_eq!(text.await, Some(1003));
    let large = with_server(4096, |socket| async move {
        let message = Message::Binary(vec![0; 64 * 1024 + 1].into());
        assert_eq!(closed_with(socket, message).await, CloseCode::Size);
    });
    assert_eq!(large.await, Some(1009));
}

#[tokio::test]
async fn a_client_without_the_subprotocol_reads_why() {
    let (near, far) = tokio::io::duplex(4096);
    let both = async { tokio::join!(serve(far, 4096), client_async("ws://sluice.test/", near)) };
    let (_, refused) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    match refused.unwrap_err() {
        tungstenite::Error::Http(answer) => {
            assert_eq!(answer.status(), 400);
            let text = answer.body().as_deref().unwrap_or_default();
            assert!(String::from_utf8_lossy(text).contains("Sec-WebSocket-Protocol: sluice.v1"));
        }
        other => unreachable!("{other:?}"),
    }
}
