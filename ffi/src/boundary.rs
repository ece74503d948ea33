//! The functions that C calls, and all unsafe code of this library: one file, however long, so
//! that there is one place to look at.
//!
//! Why it is sound, given what the header asks of a caller:
//!
//! - **Handles.** A `sluice_client*` is null or comes from [`sluice_connect`] (`Box::into_raw`) and
//!   was not freed; it is used by one thread at a time, and no function calls back. So the
//!   one `&mut` that a call makes of it is alone ([`entered`]).
//! - **Bytes that come in** are looked at after their length was held against the bound of
//!   their use and their pointer against null ([`seen`]); then the caller's word counts that so
//!   many bytes are there. They are read during the call alone, and copied if kept.
//! - **Places that are written** are checked for null, and written as a whole (`ptr::write`, `ptr::copy`),
//!   so that they may be uninitialised. No reference to the caller's memory is made of them.
//! - **Names**: `no_mangle` symbols begin with `sluice_`, which nothing else in a program does.
//! - **Panics** end here ([`caught`]): none crosses into C, and a client that met one is not
//!   entered again.

#![allow(
    unsafe_code,
    reason = "C knows no references; the module says why it is sound"
)]

use std::{
    ffi::c_char,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crate::{
    client::{Settings, To, sluice_client},
    error_text::error_text,
    types::{
        SLUICE_ABI_VERSION, SLUICE_BODY_MAX_BYTES, SLUICE_NEVER, SLUICE_RECEIVE_MAX_BYTES,
        sluice_bytes, sluice_config, sluice_event, sluice_id, sluice_status as Status, sluice_to,
    },
};

/// Ids and service names; longer ones are refused by what they are parsed as.
const NAME_MAX_BYTES: usize = 256;
const TOKEN_MAX_BYTES: usize = 2048;
const PINS_MAX_BYTES: usize = 1024;
/// Above a thousand unacked sends of the largest size.
const STATE_MAX_BYTES: usize = 128 * 1024 * 1024;

/// `SLUICE_ABI_VERSION` of the library, to be held against that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn sluice_abi_version() -> u32 {
    SLUICE_ABI_VERSION
}

/// A client that begins to connect, in `*client`. To be freed by `sluice_free`.
///
/// # Safety
/// `config` and what its bytes name is readable, `client` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_connect(
    config: *const sluice_config,
    now_us: u64,
    client: *mut *mut sluice_client,
) -> i32 {
    caught(|| {
        if config.is_null() || client.is_null() {
            return Err(Status::NULL_POINTER);
        }
        // SAFETY: not null, and readable by the contract.
        let config = unsafe { config.read() };
        // SAFETY: readable by the contract.
        let made = unsafe {
            let settings = Settings {
                user: seen(config.user, NAME_MAX_BYTES)?,
                device: seen(config.device, NAME_MAX_BYTES)?,
                token: seen(config.token, TOKEN_MAX_BYTES)?,
                pins: seen(config.pins, PINS_MAX_BYTES)?,
                state: seen(config.state, STATE_MAX_BYTES)?,
                random: config.random,
                unix_ms: config.unix_ms,
                platform: config.platform,
                datagram_max_bytes: config.datagram_max_bytes,
            };
            sluice_client::connect(settings, now_us)?
        };
        // SAFETY: not null, and writable by the contract.
        unsafe { client.write(Box::into_raw(Box::new(made))) };
        Ok(0)
    })
}

/// Takes a datagram from the server's address; anything else is passed over.
///
/// # Safety
/// `client` is a client; `len` bytes at `datagram` are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_receive(
    client: *mut sluice_client,
    datagram: *const u8,
    len: usize,
    now_us: u64,
) -> i32 {
    let datagram = sluice_bytes {
        data: datagram,
        len,
    };
    // SAFETY: both by the contract.
    unsafe {
        entered(client, |client| {
            client.receive(now_us, seen(datagram, SLUICE_RECEIVE_MAX_BYTES)?);
            Ok(0)
        })
    }
}

/// Writes the next datagram for the server to `buffer`, which holds `cap` bytes, at least
/// `SLUICE_DATAGRAM_MAX_BYTES`. Returns its length, 0 if none is due, or a status. To be called
/// until it returns 0, after every call that takes the time.
///
/// # Safety
/// `client` is a client; `cap` bytes at `buffer` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_transmit(
    client: *mut sluice_client,
    buffer: *mut u8,
    cap: usize,
    now_us: u64,
) -> i32 {
    // SAFETY: the client by the contract.
    unsafe {
        entered(client, |client| {
            if buffer.is_null() {
                return Err(Status::NULL_POINTER);
            }
            let datagram = client.transmit(now_us, cap)?;
            // SAFETY: `transmit` gives at most `cap` bytes, which are writable by the contract; they
            // are not the client's, whose memory the caller never gets to write.
            ptr::copy_nonoverlapping(datagram.as_ptr(), buffer, datagram.len());
            i32::try_from(datagram.len()).map_err(|_| Status::INTERNAL)
        })
    }
}

/// When `sluice_on_timeout` must be called if nothing comes before, by the clock of `now_us`;
/// `SLUICE_NEVER` when all is over.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_timeout(client: *mut sluice_client) -> u64 {
    let mut timeout = SLUICE_NEVER;
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            timeout = client.timeout();
            Ok(0)
        });
    }
    timeout
}

/// Time has passed. An early call does nothing.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_on_timeout(client: *mut sluice_client, now_us: u64) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.on_timeout(now_us);
            Ok(0)
        })
    }
}

/// Takes a message to be stored, once and in the order of these calls, whatever the network
/// does. Its name is written to `id` unless that is null; SENT or REFUSED carries it.
///
/// # Safety
/// `client` is a client; what `to` and `body` name is readable; `id` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_send(
    client: *mut sluice_client,
    to: sluice_to,
    content_type: u32,
    body: sluice_bytes,
    now_us: u64,
    id: *mut sluice_id,
) -> i32 {
    // SAFETY: all by the contract; `id` is written when it is not null.
    unsafe {
        entered(client, |client| {
            let body = seen(body, SLUICE_BODY_MAX_BYTES)?;
            let sent = client.send(now_us, seen_target(to)?, content_type, body)?;
            if !id.is_null() {
                id.write(sent);
            }
            Ok(0)
        })
    }
}

/// Tells whoever is online now: no order, no second try, lost when not connected.
///
/// # Safety
/// `client` is a client; what `to` and `body` name is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_send_ephemeral(
    client: *mut sluice_client,
    to: sluice_to,
    content_type: u32,
    body: sluice_bytes,
    now_us: u64,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            let body = seen(body, SLUICE_BODY_MAX_BYTES)?;
            client.send_ephemeral(now_us, seen_target(to)?, content_type, body)?;
            Ok(0)
        })
    }
}

/// Says that this user is writing. Lost when not connected; only the newest counts.
///
/// # Safety
/// `client` is a client; what `to` names is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_typing(
    client: *mut sluice_client,
    to: sluice_to,
    now_us: u64,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.typing(now_us, seen_target(to)?)?;
            Ok(0)
        })
    }
}

/// Says that this user has read a conversation up to `seq`; kept until it could be sent.
///
/// # Safety
/// `client` is a client; what `conversation` names is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_read(
    client: *mut sluice_client,
    conversation: sluice_bytes,
    seq: u64,
    now_us: u64,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.read(now_us, seen(conversation, NAME_MAX_BYTES)?, seq)?;
            Ok(0)
        })
    }
}

/// Asks a backend service; those of one key are handled in order. Its number is written to
/// `request`; ANSWERED or UNANSWERED carries it. Service, key and payload together have at
/// most `SLUICE_BODY_MAX_BYTES`.
///
/// # Safety
/// `client` is a client; what the bytes name is readable; `request` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_request(
    client: *mut sluice_client,
    service: sluice_bytes,
    key: sluice_bytes,
    payload: sluice_bytes,
    timeout_ms: u32,
    now_us: u64,
    request: *mut u64,
) -> i32 {
    // SAFETY: all by the contract; `request` is written when it is not null.
    unsafe {
        entered(client, |client| {
            if request.is_null() {
                return Err(Status::NULL_POINTER);
            }
            let service = seen(service, NAME_MAX_BYTES)?;
            let key = seen(key, SLUICE_BODY_MAX_BYTES)?;
            let payload = seen(payload, SLUICE_BODY_MAX_BYTES)?;
            request.write(client.request(now_us, service, key, payload, timeout_ms)?);
            Ok(0)
        })
    }
}

/// A fresh login token, for this connection and later logins.
///
/// # Safety
/// `client` is a client; what `token` names is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_renew_token(
    client: *mut sluice_client,
    token: sluice_bytes,
    now_us: u64,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.renew_token(now_us, seen(token, TOKEN_MAX_BYTES)?)?;
            Ok(0)
        })
    }
}

/// Writes the next event. Returns 1, 0 if there is none, or a status. What the event points to
/// lives until the next call with this client. Taking an event says that the application is
/// done with the one before: a later life (`sluice_state`) won't be told that again.
///
/// # Safety
/// `client` is a client; `event` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_next_event(
    client: *mut sluice_client,
    event: *mut sluice_event,
    now_us: u64,
) -> i32 {
    // SAFETY: by the contract; `event` is written when it is not null.
    unsafe {
        entered(client, |client| {
            if event.is_null() {
                return Err(Status::NULL_POINTER);
            }
            let Some(told) = client.next_event(now_us) else {
                return Ok(0);
            };
            event.write(told);
            Ok(1)
        })
    }
}

/// The network has changed, or the socket is another one: the session goes on from there.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_rebind(client: *mut sluice_client, now_us: u64) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.rebind(now_us);
            Ok(0)
        })
    }
}

/// For how many microseconds nothing has come from a server that owed something. After two or
/// three seconds another socket may help, and `sluice_rebind`.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_silence(client: *mut sluice_client, now_us: u64) -> u64 {
    let mut silence = 0;
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            silence = client.silence(now_us);
            Ok(0)
        });
    }
    silence
}

/// Leaves for good; what there is to say to the server goes out by `sluice_transmit`. Unacked
/// sends stay in the state. `logout` other than 0 also forgets the resume token.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_close(client: *mut sluice_client, logout: i32, now_us: u64) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            client.close(now_us, logout != 0);
            Ok(0)
        })
    }
}

/// Writes what a later life goes on from to `buffer`, and its length to `len`; if that is over
/// `cap`, only the length (`SMALL_BUFFER`). It holds secrets, and is good for one later life.
///
/// # Safety
/// `client` is a client; `cap` bytes at `buffer` are writable, `len` too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_state(
    client: *mut sluice_client,
    buffer: *mut u8,
    cap: usize,
    len: *mut usize,
) -> i32 {
    // SAFETY: by the contract; both are checked for null, and `cap` is kept to.
    unsafe {
        entered(client, |client| {
            if len.is_null() || (buffer.is_null() && cap > 0) {
                return Err(Status::NULL_POINTER);
            }
            let state = client.state();
            len.write(state.len());
            if state.len() > cap {
                return Err(Status::SMALL_BUFFER);
            }
            if !state.is_empty() {
                ptr::copy_nonoverlapping(state.as_ptr(), buffer, state.len());
            }
            Ok(0)
        })
    }
}

/// Grows whenever `sluice_state` would give something else; 0 for no client.
///
/// # Safety
/// `client` is a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_revision(client: *mut sluice_client) -> u64 {
    let mut revision = 0;
    // SAFETY: by the contract.
    unsafe {
        entered(client, |client| {
            revision = client.revision();
            Ok(0)
        });
    }
    revision
}

/// Frees a client; null is passed over. Without `sluice_close` the server hears nothing.
///
/// # Safety
/// `client` is null or a client, which is none afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sluice_free(client: *mut sluice_client) {
    if client.is_null() {
        return;
    }
    caught(|| {
        // SAFETY: from `Box::into_raw`, and not freed before, by the contract.
        drop(unsafe { Box::from_raw(client) });
        Ok(0)
    });
}

/// What a negative status means, in English. Lives forever.
#[unsafe(no_mangle)]
pub extern "C" fn sluice_error_text(status: i32) -> *const c_char {
    error_text(status).as_ptr()
}

/// Runs `action`; a panic becomes a status.
fn caught(action: impl FnOnce() -> Result<i32, Status>) -> i32 {
    // What a panic leaves half changed is a client, which is marked, or is dropped here.
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(Ok(value)) => value,
        Ok(Err(status)) => status as i32,
        Err(_) => Status::INTERNAL as i32,
    }
}

/// Runs `action` with the client, if there is one that is whole.
///
/// # Safety
/// `client` is null or a client that nobody else uses now.
unsafe fn entered(
    client: *mut sluice_client,
    action: impl FnOnce(&mut sluice_client) -> Result<i32, Status>,
) -> i32 {
    // SAFETY: null, or alone by the contract.
    let Some(client) = (unsafe { client.as_mut() }) else {
        return Status::NULL_POINTER as i32;
    };
    if client.is_broken {
        return Status::INTERNAL as i32;
    }
    // Stands only if a panic leaves `action`.
    client.is_broken = true;
    caught(|| {
        let value = action(client);
        client.is_broken = false;
        value
    })
}

/// The caller's bytes, for the length of a call.
///
/// # Safety
/// If they are within the bound, they are readable for `'a`.
unsafe fn seen<'a>(bytes: sluice_bytes, max_bytes: usize) -> Result<&'a [u8], Status> {
    if bytes.len > max_bytes {
        return Err(Status::TOO_LARGE);
    }
    if bytes.len == 0 {
        return Ok(&[]);
    }
    if bytes.data.is_null() {
        return Err(Status::NULL_POINTER);
    }
    // SAFETY: not null, readable by the contract, aligned as bytes are, and no bound is over
    // `isize::MAX`.
    Ok(unsafe { std::slice::from_raw_parts(bytes.data, bytes.len) })
}

/// # Safety
/// As of [`seen`], for both.
unsafe fn seen_target<'a>(to: sluice_to) -> Result<To<'a>, Status> {
    // SAFETY: by the contract.
    unsafe {
        Ok(To {
            user: seen(to.user, NAME_MAX_BYTES)?,
            conversation: seen(to.conversation, NAME_MAX_BYTES)?,
        })
    }
}
