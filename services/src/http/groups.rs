//! Groups: founded, looked at, changed. Changes are run by the owner of the
//! group's partition; the header `Idempotency-Key` (UUIDv7) makes a repeat
//! harmless.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_protocol::{
    ClientMsgId, ConversationId, MessageId, Refusal, UserId,
    envelope::{self, group_command::Command},
    packet::{ErrorCode, MemberRole},
};
use sluice_store::Conversation;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    bearer::Caller,
    body::{JsonBody, PathOf},
    error::{ApiError, ErrorBody},
    json::{Ack, Role, idempotency_key},
};
use crate::{clock, snowflake::SNOWFLAKE_EPOCH_MS};

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(group, rename))
        .routes(routes!(members, add))
        .routes(routes!(remove))
        .routes(routes!(leave))
        .routes(routes!(set_role))
}

/// A group to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    /// 1–128 bytes.
    name: String,
    /// Besides the caller, who becomes its owner; 500 with the caller at most.
    #[serde(default)]
    members: Vec<String>,
}

/// A group.
#[derive(Serialize, ToSchema)]
struct Group {
    conversation_id: String,
    name: String,
    /// End of its log.
    max_seq: u64,
    members: usize,
    /// The caller's.
    role: Role,
}

/// Who is in a group.
#[derive(Serialize, ToSchema)]
struct Members {
    members: Vec<Member>,
}

/// Somebody in a group.
#[derive(Serialize, ToSchema)]
struct Member {
    user_id: String,
    role: Role,
    /// Sees the log from here on.
    first_seq: u64,
}

/// Users to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMembers {
    users: Vec<String>,
}

/// A member's new role. A new owner takes the place of the old one, who
/// becomes an admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: Role,
}

/// A group's new name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewName {
    name: String,
}

/// Founds a group with the caller as its owner.
#[utoipa::path(post, path = "/groups", tag = "groups", request_body = NewGroup,
    security(("bearer" = [])),
    responses((status = CREATED, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn create(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewGroup>,
) -> Result<(StatusCode, Json<Ack>), ApiError> {
    let key = idempotency_key(&headers)?;
    check_additions(&api, &user.id, new.members.len())?;
    let group = ConversationId::group(number_of(&user.id, key));
    let command = Command::Create(envelope::CreateGroup {
        name: new.name,
        members: new.members,
    });
    let ack = run(&api, &user.id, &group, key, command).await?;
    Ok((StatusCode::CREATED, ack))
}

/// A group that the caller is in.
#[utoipa::path(get, path = "/groups/{group_id}", tag = "groups",
    params(("group_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Group), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn group(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
) -> Result<Json<Group>, ApiError> {
    let (group, role) = load(&api, &user.id, &id).await?;
    Ok(Json(Group {
        conversation_id: id,
        name: group.name,
        max_seq: group.max_seq.0,
        members: group.members.len(),
        role: role.into(),
    }))
}

/// Renames a group; for its owner and admins.
#[utoipa::path(put, path = "/groups/{group_id}", tag = "groups", request_body = NewName,
    params(("group_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn rename(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewName>,
) -> Result<Json<Ack>, ApiError> {
    let command = Command::Rename(envelope::RenameGroup { name: new.name });
    change(&api, &user.id, &id, &headers, command).await
}

/// Who is in a group; for its members.
#[utoipa::path(get, path = "/groups/{group_id}/members", tag = "groups",
    params(("group_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Members), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
async fn members(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
) -> Result<Json<Members>, ApiError> {
    let (group, _) = load(&api, &user.id, &id).await?;
    let members = group.members.into_iter().map(|member| Member {
        user_id: member.user.to_string(),
        role: member.role.into(),
        first_seq: member.first_seq.0,
    });
    Ok(Json(Members {
        members: members.collect(),
    }))
}

/// Adds members; for the owner and admins.
#[utoipa::path(post, path = "/groups/{group_id}/members", tag = "groups",
    request_body = NewMembers,
    params(("group_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn add(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewMembers>,
) -> Result<Json<Ack>, ApiError> {
    check_additions(&api, &user.id, new.users.len())?;
    let command = Command::Add(envelope::AddMembers { users: new.users });
    change(&api, &user.id, &id, &headers, command).await
}

/// Removes a member; for the owner and, unless it is an admin, for admins.
#[utoipa::path(delete, path = "/groups/{group_id}/members/{user_id}", tag = "groups",
    params(("group_id" = String, Path), ("user_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn remove(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf((id, member)): PathOf<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Ack>, ApiError> {
    let command = Command::Remove(envelope::RemoveMember { user_id: member });
    change(&api, &user.id, &id, &headers, command).await
}

/// Leaves a group. An owner's place goes to the admin, else the member, of
/// longest standing.
#[utoipa::path(post, path = "/groups/{group_id}/leave", tag = "groups",
    params(("group_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn leave(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
) -> Result<Json<Ack>, ApiError> {
    let command = Command::Leave(envelope::LeaveGroup {});
    change(&api, &user.id, &id, &headers, command).await
}

/// Sets a member's role; for the owner.
#[utoipa::path(put, path = "/groups/{group_id}/members/{user_id}/role", tag = "groups",
    request_body = NewRole,
    params(("group_id" = String, Path), ("user_id" = String, Path)), security(("bearer" = [])),
    responses((status = OK, body = Ack), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
async fn set_role(
    State(api): State<Arc<Api>>,
    Caller(user, _seat): Caller,
    PathOf((id, member)): PathOf<(String, String)>,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewRole>,
) -> Result<Json<Ack>, ApiError> {
    let command = Command::SetRole(envelope::SetRole {
        user_id: member,
        role: MemberRole::from(new.role).into(),
    });
    change(&api, &user.id, &id, &headers, command).await
}

/// Counts who is to be added, whether or not they will be: else one account puts
/// everybody into as many groups as one may be in.
fn check_additions(api: &Api, user: &UserId, people: usize) -> Result<(), ApiError> {
    (api.addition_limit)
        .take(user, people, clock::now_ms())
        .map_err(|wait_s| {
            ApiError::new(
                ErrorCode::RateLimited,
                "you have added too many people to groups in this hour",
            )
            .retry_after(wait_s)
        })
}

async fn change(
    api: &Api,
    user: &UserId,
    id: &str,
    headers: &HeaderMap,
    command: Command,
) -> Result<Json<Ack>, ApiError> {
    let group = group_of(id)?;
    run(api, user, &group, idempotency_key(headers)?, command).await
}

async fn run(
    api: &Api,
    user: &UserId,
    group: &ConversationId,
    key: ClientMsgId,
    command: Command,
) -> Result<Json<Ack>, ApiError> {
    let command = envelope::GroupCommand {
        conversation_id: group.to_string(),
        command_id: Bytes::copy_from_slice(key.as_bytes()),
        command: Some(command),
    };
    let ack = api.calls.command(user, group, command).await?;
    Ok(Json(ack.into()))
}

fn group_of(id: &str) -> Result<ConversationId, ApiError> {
    let group = ConversationId::parse(id)?;
    match group.is_group() {
        true => Ok(group),
        false => Err(Refusal::bad_request("this id is no group's").into()),
    }
}

/// The group and the caller's role; refused to those who are not in it.
async fn load(api: &Api, user: &UserId, id: &str) -> Result<(Conversation, MemberRole), ApiError> {
    let id = group_of(id)?;
    let groups = api
        .node
        .store
        .conversation_members(std::slice::from_ref(&id))
        .await?;
    let group =
        groups.into_iter().next().flatten().ok_or_else(|| {
            ApiError::new(ErrorCode::UnknownConversation, "there is no such group")
        })?;
    let role = group
        .members
        .iter()
        .find(|member| member.user == *user)
        .map(|member| member.role)
        .ok_or_else(|| ApiError::new(ErrorCode::NotAMember, "you are not in this group"))?;
    Ok((group, role))
}

/// A group's number: laid out as a snowflake, but made of who founds it and of
/// the call's id, so that a repeat founds no second one.
fn number_of(user: &UserId, key: ClientMsgId) -> MessageId {
    let digest = Sha256::new()
        .chain_update(key.as_bytes())
        .chain_update(user.as_str())
        .finalize();
    let [a, b, c, ..] = <[u8; 32]>::from(digest);
    let ms = key.unix_ms().saturating_sub(SNOWFLAKE_EPOCH_MS) & ((1 << 41) - 1);
    let random = u64::from_be_bytes([0, 0, 0, 0, 0, a, b, c]) & ((1 << 22) - 1);
    MessageId((ms << 22) | random)
}
