//! Every pointer and length that must not be is answered by a name.

#![allow(unsafe_code, reason = "it calls what C calls")]

use std::{ffi::CStr, ptr};

use sluice_ffi::*;

fn bytes(text: &[u8]) -> sluice_bytes {
    sluice_bytes {
        data: text.as_ptr(),
        len: text.len(),
    }
}

fn nothing() -> sluice_bytes {
    sluice_bytes {
        data: ptr::null(),
        len: 0,
    }
}

fn to(user: &[u8]) -> sluice_to {
    sluice_to {
        user: bytes(user),
        conversation: nothing(),
    }
}

fn config(pins: &str) -> sluice_config {
    let mut random = [7; 32];
    random[0] = 8;
    sluice_config {
        user: bytes(b"alice"),
        device: bytes(b"lamp"),
        token: bytes(b"a.b.c"),
        pins: bytes(pins.as_bytes()),
        state: nothing(),
        random,
        unix_ms: 0,
        platform: 6,
        datagram_max_bytes: 0,
    }
}

/// Base64 of a key that no server has.
const PINS: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn connected(config: &sluice_config) -> Result<*mut sluice_client, i32> {
    let mut client = ptr::null_mut();
    // SAFETY: what it points to lives.
    match unsafe { sluice_connect(config, 5, &raw mut client) } {
        0 => Ok(client),
        status => Err(status),
    }
}

fn is(status: i32, expected: sluice_status) {
    assert_eq!(status, expected as i32, "expected {expected:?}");
}

#[test]
fn a_configuration_is_checked() {
    let good = config(PINS);
    let refused = |config: sluice_config, expected| is(connected(&config).unwrap_err(), expected);
    refused(config("x"), sluice_status::BAD_PINS);
    let long = [b'a'; 65];
    let user = |name| sluice_config { user: name, ..good };
    refused(user(bytes(&long)), sluice_status::BAD_NAME);
    refused(user(nothing()), sluice_status::BAD_NAME);
    refused(user(bytes(b"\xff")), sluice_status::BAD_TEXT);
    let lie = |data, len| user(sluice_bytes { data, len });
    refused(lie(ptr::null(), 5), sluice_status::NULL_POINTER);
    refused(lie(long.as_ptr(), usize::MAX), sluice_status::TOO_LARGE);
    let random = [9; 32];
    refused(sluice_config { random, ..good }, sluice_status::BAD_RANDOM);
    let token = nothing();
    refused(sluice_config { token, ..good }, sluice_status::NO_TOKEN);
    let platform = 99;
    refused(
        sluice_config { platform, ..good },
        sluice_status::BAD_ARGUMENT,
    );
    let datagram_max_bytes = 1199;
    refused(
        sluice_config {
            datagram_max_bytes,
            ..good
        },
        sluice_status::BAD_ARGUMENT,
    );
    let state = bytes(b"no state");
    refused(sluice_config { state, ..good }, sluice_status::BAD_STATE);
    // SAFETY: null is allowed.
    unsafe {
        is(
            sluice_connect(ptr::null(), 0, ptr::null_mut()),
            sluice_status::NULL_POINTER,
        );
        is(
            sluice_connect(&raw const good, 0, ptr::null_mut()),
            sluice_status::NULL_POINTER,
        );
    }
}

#[test]
fn no_client_is_a_named_error() {
    let none = ptr::null_mut();
    let null = sluice_status::NULL_POINTER;
    // SAFETY: null is allowed for all of them.
    unsafe {
        is(sluice_receive(none, ptr::null(), 0, 0), null);
        is(sluice_transmit(none, ptr::null_mut(), 0, 0), null);
        is(sluice_on_timeout(none, 0), null);
        is(
            sluice_send(none, to(b"b"), 0, nothing(), 0, ptr::null_mut()),
            null,
        );
        is(sluice_send_ephemeral(none, to(b"b"), 0, nothing(), 0), null);
        is(sluice_typing(none, to(b"b"), 0), null);
        is(sluice_read(none, nothing(), 0, 0), null);
        let request = sluice_request(none, nothing(), nothing(), nothing(), 0, 0, ptr::null_mut());
        is(request, null);
        is(sluice_renew_token(none, nothing(), 0), null);
        is(sluice_next_event(none, ptr::null_mut(), 0), null);
        is(sluice_rebind(none, 0), null);
        is(sluice_close(none, 0, 0), null);
        is(
            sluice_state(none, ptr::null_mut(), 0, ptr::null_mut()),
            null,
        );
        assert_eq!(sluice_timeout(none), SLUICE_NEVER);
        assert_eq!(sluice_revision(none), 0);
        assert_eq!(sluice_silence(none, 0), 0);
        sluice_free(none);
    }
}

#[test]
fn arguments_are_checked() {
    let client = connected(&config(PINS)).unwrap();
    let mut buffer = [0u8; SLUICE_DATAGRAM_MAX_BYTES];
    let (at, cap) = (buffer.as_mut_ptr(), buffer.len());
    let big = vec![0; SLUICE_BODY_MAX_BYTES + 1];
    // SAFETY: the client lives until it is freed, and all other pointers are null, live, or named
    // with a length that is refused before they are followed.
    unsafe {
        let send = |to, kind, body| sluice_send(client, to, kind, body, 9, ptr::null_mut());
        is(
            send(to(b"alice"), 0, bytes(b"hi")),
            sluice_status::TO_ONESELF,
        );
        is(send(to(b"bob"), 0, bytes(&big)), sluice_status::TOO_LARGE);
        is(
            send(to(b"bob"), 99, bytes(b"hi")),
            sluice_status::BAD_ARGUMENT,
        );
        is(send(to(b""), 0, bytes(b"hi")), sluice_status::BAD_ARGUMENT);
        is(send(to(b"b\0b"), 0, bytes(b"hi")), sluice_status::BAD_NAME);
        let both = sluice_to {
            user: bytes(b"bob"),
            conversation: bytes(b"bob"),
        };
        is(send(both, 0, bytes(b"hi")), sluice_status::BAD_ARGUMENT);
        is(send(to(b"bob"), 0, bytes(b"hi")), sluice_status::OK);
        let mut request = 0;
        let ask = |key, out| sluice_request(client, bytes(b"s"), key, nothing(), 9, 9, out);
        is(ask(nothing(), ptr::null_mut()), sluice_status::NULL_POINTER);
        is(ask(bytes(&big), &raw mut request), sluice_status::TOO_LARGE);
        is(
            ask(nothing(), &raw mut request),
            sluice_status::NOT_CONNECTED,
        );
        is(
            sluice_receive(client, ptr::null(), 5, 9),
            sluice_status::NULL_POINTER,
        );
        is(
            sluice_receive(client, at, 2049, 9),
            sluice_status::TOO_LARGE,
        );
        is(sluice_receive(client, at, cap, 9), sluice_status::OK);
        is(
            sluice_transmit(client, at, cap - 1, 9),
            sluice_status::SMALL_BUFFER,
        );
        is(
            sluice_transmit(client, ptr::null_mut(), cap, 9),
            sluice_status::NULL_POINTER,
        );
        assert_eq!(sluice_transmit(client, at, cap, 9), 1200, "the first hello");
        assert!(sluice_timeout(client) > 9);
        is(
            sluice_next_event(client, ptr::null_mut(), 9),
            sluice_status::NULL_POINTER,
        );
        let mut len = 0;
        let state = |buffer, cap, len| sluice_state(client, buffer, cap, len);
        is(
            state(ptr::null_mut(), 0, ptr::null_mut()),
            sluice_status::NULL_POINTER,
        );
        is(
            state(ptr::null_mut(), 0, &raw mut len),
            sluice_status::SMALL_BUFFER,
        );
        assert!(len > 0 && len <= cap, "the unacked send is kept");
        is(state(at, len, &raw mut len), sluice_status::OK);
        is(sluice_close(client, 0, 9), sluice_status::OK);
        is(send(to(b"bob"), 0, bytes(b"hi")), sluice_status::ENDED);
        sluice_free(client);

        let kept = sluice_config {
            state: bytes(&buffer[..len]),
            ..config(PINS)
        };
        sluice_free(connected(&kept).unwrap());
        let user = bytes(b"eve");
        let stolen = sluice_config { user, ..kept };
        is(connected(&stolen).unwrap_err(), sluice_status::BAD_STATE);
    }
}

#[test]
fn every_status_has_a_text() {
    let text = |status| {
        // SAFETY: it ends with a NUL and lives forever.
        unsafe { CStr::from_ptr(sluice_error_text(status)) }
            .to_str()
            .unwrap()
    };
    let unknown = text(1);
    assert_eq!(text(i32::MIN), unknown);
    assert_eq!(text(sluice_status::INTERNAL as i32 - 1), unknown);
    for status in sluice_status::INTERNAL as i32..=0 {
        assert_ne!(text(status), unknown, "{status}");
    }
    assert_eq!(text(sluice_status::ENDED as i32), "the client has ended");
}
