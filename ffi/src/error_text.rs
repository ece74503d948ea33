//! What each status means, in words.

use std::ffi::CStr;

/// In English, by the numbers of [`crate::types::sluice_status`].
pub(crate) fn error_text(status: i32) -> &'static CStr {
    const TEXTS: [&CStr; 18] = [
        c"done",
        c"a pointer is null",
        c"a length is over its bound",
        c"the buffer is too small",
        c"an id is malformed",
        c"the pins are no keys",
        c"the state is damaged, or another user's or device's",
        c"a text is no UTF-8",
        c"the random bytes are all the same",
        c"neither a token nor a state",
        c"an argument is out of its range",
        c"too many sends wait for their ack",
        c"the connection has stalled",
        c"too many requests wait for their answer",
        c"not connected",
        c"one cannot write to oneself",
        c"the client has ended",
        c"a fault of the library",
    ];
    let place = usize::try_from(i64::from(status).abs()).unwrap_or(usize::MAX);
    match TEXTS.get(place) {
        Some(text) if status <= 0 => text,
        _ => c"no status of this library",
    }
}
