//! A named answer to bad input: what code, and what a person should know.

use std::borrow::Cow;

use crate::{IdError, packet};

/// Why a request is refused. Goes to the client as an `Error` packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", self.label())]
pub struct Refusal {
    /// Machine-readable; a bounded label for metrics too ([`Refusal::label`]).
    pub code: packet::ErrorCode,
    /// For people: what was wrong and what to do. Never holds a secret.
    pub reason: Cow<'static, str>,
}

// === impl Refusal ===

impl Refusal {
    /// A refusal with a reason.
    pub fn new(code: packet::ErrorCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// A field out of its range.
    pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(packet::ErrorCode::BadRequest, reason)
    }

    /// The code in short form, as a metric label: `out_of_order`.
    pub fn label(&self) -> String {
        let name = self.code.as_str_name();
        name.strip_prefix("ERROR_CODE_")
            .unwrap_or(name)
            .to_ascii_lowercase()
    }

    /// As the body of an `Error` packet.
    pub fn to_packet(&self, server_time_ms: u64) -> packet::Error {
        packet::Error {
            code: self.code.into(),
            reason: self.reason.to_string(),
            client_msg_id: Default::default(),
            server_time_ms,
        }
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::bad_request(error.to_string())
    }
}
