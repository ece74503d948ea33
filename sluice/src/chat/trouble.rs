//! What went wrong, in words for people: the cause, and the cure where there is one.

use sluice_client::{ApiError, CloseReason, DisconnectReason};

use super::printable;

/// What a person should know of a call that failed.
pub(crate) fn reason(error: &ApiError) -> String {
    match error {
        ApiError::Refused {
            reason,
            code,
            retry_after_s,
            ..
        } => {
            let again = retry_after_s
                .map(|s| format!("; try again in {s} s"))
                .unwrap_or_default();
            let said = if reason.is_empty() { code } else { reason };
            format!("{}{again}", printable::line(said))
        }
        error => error.to_string(),
    }
}

/// Why a connection is gone, for people.
pub(crate) fn disconnected(why: &DisconnectReason) -> String {
    let why = match why {
        DisconnectReason::ConnectFailed(error) => format!("cannot connect: {error}"),
        DisconnectReason::Broken(error) => format!("it broke: {error}"),
        DisconnectReason::Closed(Some(CloseReason::GoingAway)) => {
            "the server is going away".to_owned()
        }
        DisconnectReason::Closed(Some(why)) => {
            format!("the server closed it: {}", close_name(*why))
        }
        DisconnectReason::Closed(None) => "the server closed it".to_owned(),
        DisconnectReason::Silent => "the server went silent".to_owned(),
        DisconnectReason::LoginTimeout => "the login was not answered".to_owned(),
        DisconnectReason::LoginRefused(refusal) => {
            format!("the login was refused: {}", refusal.reason)
        }
        DisconnectReason::NoToken(error) => format!("cannot log in: {error}"),
        DisconnectReason::BadPacket(error) => format!("the server sent nonsense: {error}"),
        DisconnectReason::Moved => "another transport takes over".to_owned(),
        DisconnectReason::NetworkChanged => "the network has changed".to_owned(),
        DisconnectReason::Cut | DisconnectReason::ByApplication => "as asked".to_owned(),
    };
    printable::line(&why).into_owned()
}

/// Says at once why there is no connection, where that is news. It is tried again: the
/// cause may go, or may have been forged.
pub(crate) fn told(before: Option<String>, why: String) -> Option<String> {
    if before.as_ref() != Some(&why) {
        eprintln!("not connected: {why}; trying again");
    }
    Some(why)
}

/// Why the server has ended the session, and what to do.
pub(crate) fn kicked(why: CloseReason) -> String {
    match why {
        CloseReason::Replaced => {
            "this device has logged in elsewhere; run one at a time, or name another --device"
                .to_owned()
        }
        CloseReason::LoggedOut => "you were logged out on all devices".to_owned(),
        CloseReason::Banned => "you are banned".to_owned(),
        CloseReason::TokenRevoked => "the password was changed; log in with the new one".to_owned(),
        why => format!("the server has ended the session: {}", close_name(why)),
    }
}

fn close_name(why: CloseReason) -> String {
    let name = why.as_str_name();
    name.strip_prefix("CLOSE_REASON_")
        .unwrap_or(name)
        .to_ascii_lowercase()
        .replace('_', " ")
}
