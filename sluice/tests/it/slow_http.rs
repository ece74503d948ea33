//! HTTP clients that take their time, or all the connections: each is let go
//! with its answer, and others are served meanwhile.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::server::Server;

const SETTINGS: &str = "http_body_timeout_ms = 400\n\
    [http]\nhead_timeout_ms = 400\naddress_limit_exempt = []\nconnections_per_address = 3\n";

/// What the server says to whoever says this, then a byte of more at a time.
fn trickle(address: &str, start: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let pace = Duration::from_millis(50);
    socket.set_read_timeout(Some(pace)).unwrap();
    socket.write_all(start.as_bytes()).unwrap();
    let started = Instant::now();
    let mut said = Vec::new();
    let mut piece = [0; 1024];
    loop {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "never let go: {start:?}"
        );
        match socket.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Fails when the server has closed; the next read says so.
                let _ = socket.write_all(b"a");
            }
            // A reset is an end as well.
            Err(_) => break,
        }
    }
    String::from_utf8(said).unwrap()
}

#[test]
fn who_trickles_a_head_or_a_body_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, SETTINGS);
    let http = &server.addresses.http;
    let head = trickle(http, "POST /users/login HTTP/1.1\r\nhost: x\r\nx-slow: ");
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408 "),
        "{head}"
    );
    let body = "POST /users/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 10000\r\n\r\n{\"user_id\":\"";
    let body = trickle(http, body);
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert!(body.contains("\"code\":\"bad_request\""), "{body}");
    assert!(server.terminate());
}

#[test]
fn the_admin_port_is_bounded_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, SETTINGS);
    let admin = &server.addresses.admin;
    let head = trickle(admin, "GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: ");
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408 "),
        "{head}"
    );
    let _silent = [(); 3].map(|()| TcpStream::connect(admin).unwrap());
    let ask = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let fourth = trickle(admin, ask);
    assert!(fourth.starts_with("HTTP/1.1 429 "), "{fourth}");
    assert!(server.terminate());
}

#[test]
fn one_address_has_so_many_connections_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), None, SETTINGS);
    let http = &server.addresses.http;
    let ask = "GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let silent = [(); 3].map(|()| TcpStream::connect(http).unwrap());
    let fourth = trickle(http, ask);
    assert!(fourth.starts_with("HTTP/1.1 429 "), "{fourth}");
    assert!(fourth.contains("retry-after: 1"), "{fourth}");
    // They are let go after a while, and so is their share.
    for mut socket in silent {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    let fifth = trickle(http, ask);
    assert!(fifth.starts_with("HTTP/1.1 200 "), "{fifth}");
}
