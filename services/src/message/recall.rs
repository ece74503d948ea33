//! Who may recall which message, and until when.

use sluice_protocol::{
    Refusal, UserId,
    packet::{ErrorCode, MemberRole},
};
use sluice_store::{Content, StoredEntry};

use super::group::Membership;

/// Checks a recall of `target` by `user`. `membership` is the user's in a
/// group, `None` in a private conversation; `seen_before` says that the target
/// lies in a window of an earlier membership.
///
/// Who recalls what is recalled already is let through: it may be a retry
/// whose first answer was lost, and the store tells which.
pub(super) fn check(
    user: &UserId,
    target: Option<&StoredEntry>,
    membership: Option<Membership>,
    seen_before: bool,
    window_ms: u64,
    now_ms: u64,
) -> Result<(), Refusal> {
    let unknown = || Refusal::new(ErrorCode::UnknownMessage, "there is no such message");
    let target = target.ok_or_else(unknown)?;
    if !matches!(target.content, Content::Message { .. }) {
        return Err(Refusal::new(
            ErrorCode::UnknownMessage,
            "only messages can be recalled",
        ));
    }
    // What came before one joined is not there for one, nor what was said while one was away.
    if membership.is_some_and(|member| target.seq < member.first_seq) && !seen_before {
        return Err(unknown());
    }
    let is_admin = membership
        .is_some_and(|member| matches!(member.role, MemberRole::Admin | MemberRole::Owner));
    if is_admin {
        return Ok(());
    }
    if target.sender != *user {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "only the sender or an admin of the group may recall a message",
        ));
    }
    let too_late = target.server_time_ms.saturating_add(window_ms) < now_ms;
    if too_late && !target.recalled {
        return Err(Refusal::new(
            ErrorCode::TooLate,
            "the time for recalling this message is over",
        ));
    }
    Ok(())
}
