//! The HTTP API: one resource a file, described at `/openapi.json`.

mod admin;
mod bearer;
mod blocks;
mod body;
mod calls;
mod conversations;
mod error;
mod groups;
mod hash_slots;
mod json;
mod messages;
mod passwords;
mod peer;
mod rate_limit;
mod users;

use std::sync::Arc;

use axum::{Json, Router, extract::DefaultBodyLimit, http::StatusCode, routing::get};
use sluice_bus::Route;
use sluice_protocol::{UserId, packet::CloseReason};
use sluice_store::{StoreError, User};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, HeaderBuilder, Ref, Response, ResponseBuilder,
        schema::{ObjectBuilder, Type},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::calls::Calls;
pub use self::peer::Peer;
use self::{error::ApiError, passwords::Passwords, rate_limit::RateLimit};
use crate::{Roles, TokenSigner, node::Node, outbox::Outbox, seats::Seats};

/// Bytes of one request's body: a message of 60 KiB in base64, and its frame.
const BODY_MAX_BYTES: usize = 128 * 1024;

/// What all calls share.
pub(crate) struct Api {
    node: Arc<Node>,
    signer: Arc<TokenSigner>,
    passwords: Passwords,
    /// Passwords tried, by the user id that they are tried for.
    login_limit: RateLimit,
    /// People added to groups, by who adds them.
    addition_limit: RateLimit,
    /// For calls that only look.
    reads: Arc<Seats>,
    /// For those that change something.
    changes: Arc<Seats>,
    calls: Arc<Calls>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sluice",
        description = "Users, messages and groups of a Sluice node.",
        license(name = "MIT OR Apache-2.0")
    ),
    modifiers(&Bearer)
)]
struct Document;

/// Says how calls carry their token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document
            .components
            .get_or_insert_default()
            .add_security_scheme(
                "bearer",
                SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
            );
    }
}

// === impl Api ===

impl Api {
    /// # Errors
    /// Parameters of the password hash that are out of range.
    pub(crate) fn new(
        node: Arc<Node>,
        signer: Arc<TokenSigner>,
        calls: Arc<Calls>,
    ) -> Result<Self, String> {
        let config = &node.config;
        Ok(Self {
            passwords: Passwords::new(config)?,
            login_limit: RateLimit::new(
                config.logins_per_user_per_minute,
                rate_limit::MINUTE_MS,
                config.login_table_max_users,
            ),
            addition_limit: RateLimit::new(
                config.additions_per_user_per_hour,
                rate_limit::HOUR_MS,
                config.additions_table_max_users,
            ),
            reads: Seats::new(config.http_reads_per_user_max, config.http_reads_max),
            changes: Seats::new(config.http_changes_per_user_max, config.http_pending_max),
            node,
            signer,
            calls,
        })
    }

    async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let users = self.node.store.users(std::slice::from_ref(id)).await?;
        Ok(users.into_iter().next().flatten())
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, ApiError> {
        let routes = self
            .node
            .directory
            .lookup(std::slice::from_ref(user))
            .await?;
        Ok(routes.into_iter().next().unwrap_or_default())
    }

    /// Ends all sessions of a user; what voids their tokens comes before.
    async fn kick(&self, user: &UserId, why: CloseReason, message: &str) -> Result<(), ApiError> {
        let routes = self.routes(user).await?;
        let mut outbox = Outbox::default();
        outbox.kick(user, routes.iter(), why, message);
        self.node.downlink.emit(outbox).await;
        Ok(())
    }
}

/// Routes of the roles that run here.
pub(crate) fn router(api: Arc<Api>, roles: Roles) -> Router {
    let mut routes = OpenApiRouter::with_openapi(Document::openapi());
    if roles.user {
        routes = routes.merge(users::router()).merge(blocks::router());
        if !api.node.config.admin_token.as_str().is_empty() {
            routes = routes.merge(admin::router());
        }
    }
    if roles.message {
        routes = routes
            .merge(messages::router())
            .merge(conversations::router());
    }
    if roles.group {
        routes = routes.merge(groups::router());
    }
    let (router, mut document) = routes.split_for_parts();
    describe_seats(&mut document);
    let document = Arc::new(document);
    router
        .route(
            "/openapi.json",
            get(move || std::future::ready(Json(document.as_ref().clone()))),
        )
        .fallback(async || ApiError::http(StatusCode::NOT_FOUND, "not_found", "no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::http(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this route has no such method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(api)
}

/// Says of every call with a user's bearer what it gets when too many run.
fn describe_seats(document: &mut utoipa::openapi::OpenApi) {
    let full = |description: &str| -> Response {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds."));
        ResponseBuilder::new()
            .description(description)
            .header("Retry-After", header.build())
            .content(
                "application/json",
                ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name("ErrorBody")))
                    .build(),
            )
            .build()
    };
    let paths = document.paths.paths.iter_mut();
    for (_, path) in paths.filter(|(name, _)| !name.starts_with("/admin")) {
        let operations = [
            &mut path.get,
            &mut path.put,
            &mut path.post,
            &mut path.delete,
        ];
        for operation in operations.into_iter().flatten() {
            if operation.security.is_none() {
                continue;
            }
            let of_user = full("`too_many_pending`: too many calls of this user run.");
            let of_all = full("`unavailable`: too many calls run, or a part is away.");
            let responses = &mut operation.responses.responses;
            responses.insert("429".to_owned(), of_user.into());
            responses.insert("503".to_owned(), of_all.into());
        }
    }
}
