//! The Rust SDK: one session over any transport.
//!
//! ```no_run
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! use sluice_client::{Client, ContentType, DeviceId, Endpoint, Event, Target, UserId};
//!
//! let (client, mut events) = Client::builder(UserId::parse("alice")?, DeviceId::parse("phone")?)
//!     .server(Endpoint::tcp("127.0.0.1:8900".parse()?))
//!     .token("a JWT from POST /users/login")
//!     .start()?;
//! let bob = Target::User(UserId::parse("bob")?);
//! let receipt = client.send(bob, ContentType::Text, "hello").await?.acked().await?;
//! println!("stored as {} of {}", receipt.seq, receipt.conversation);
//! while let Some(event) = events.next().await {
//!     if let Event::Entry { entry, own } = event {
//!         println!("{own} {entry:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Sends**: each is stored once, in the order of the calls within its
//!   conversation, whatever the network does. It is kept in the [`LocalState`]
//!   until it is acked or refused, so a restarted client goes on sending.
//! - **Entries** come in order and once per *timeline*: the inbox (all private
//!   conversations, by user seq) and each group (by seq). One's own sends are
//!   entries too, at their place, once they are acked.
//! - **Across a restart** an application continues after the last event that it
//!   has *committed*. [`EventStream::next`] commits all events taken before; so an
//!   application that dies while it works on an event sees that one again (at
//!   least once). One that calls [`EventStream::commit`] as soon as it has an
//!   event never sees it again (at most once). One that stores what it receives
//!   in a database of its own, keyed by message id, has exactly once. Positions
//!   are written in batches shortly after; what wasn't written comes again.
//! - **A kick is final**: the client doesn't reconnect by itself.
//!
//! # Where it connects
//!
//! With [`Transport::Auto`] a client goes by UDP where that works, over TCP or WebSocket
//! elsewhere, and changes over by itself without a new login. Tell it of changes of the
//! network by [`Client::network_changed`]; it notices them late by itself.
//!
//! # Without a runtime
//!
//! Without the feature `runtime` (a default) there is [`DatagramClient`] alone: it opens no
//! socket and no file, reads no clock, and brings no tokio.
//!
//! # How it is built
//!
//! The session (`session/`) is a state machine without I/O or clock: packets and times go
//! in, packets, events and deadlines come out. One tokio task a client (`driver`) connects it to a
//! socket (`link`), the local state and the application's channels. Which socket: `choice` puts
//! the ways there in order, `race` tries them, `driver/moving` changes over.

#[cfg(feature = "runtime")]
mod api;
#[cfg(feature = "runtime")]
mod builder;
#[cfg(feature = "runtime")]
mod choice;
#[cfg(feature = "runtime")]
mod client;
#[cfg(feature = "runtime")]
mod clock;
#[cfg(feature = "runtime")]
mod command;
mod datagram_client;
mod datagrams;
#[cfg(feature = "runtime")]
mod driver;
#[cfg(feature = "runtime")]
mod endpoint;
mod entry;
mod error;
mod event;
#[cfg(feature = "runtime")]
mod link;
#[cfg(feature = "runtime")]
mod local_state;
mod packets;
#[cfg(feature = "runtime")]
mod race;
mod session;
mod state;
mod ticket;
#[cfg(feature = "runtime")]
mod token;

#[cfg(feature = "runtime")]
pub use api::{ApiError, HttpApi, Login};
#[cfg(feature = "runtime")]
pub use builder::Builder;
#[cfg(feature = "runtime")]
pub use client::{Client, EventStream, PendingSend};
pub use datagram_client::{DatagramClient, DatagramEvent, DatagramSettings};
#[cfg(feature = "runtime")]
pub use endpoint::{Endpoint, Transport};
pub use entry::{Content, Entry};
pub use error::{CallError, SendError, StateError};
#[cfg(feature = "runtime")]
pub use error::{LinkError, StartError};
pub use event::{DisconnectReason, Ended, Event, SendReceipt};
#[cfg(feature = "runtime")]
pub use local_state::LocalState;
pub use session::{
    ConversationList, ConversationSummary, HistoryPage, Response, SessionConfig, Target,
};
pub use sluice_codec::datagram::{Config as DatagramConfig, ServerPins};
pub use sluice_protocol::{
    ClientMsgId, ConversationId, ConversationKind, DeviceId, MessageId, Refusal, Seq, UserId,
    UserSeq,
    packet::{CloseReason, ContentType, ErrorCode, MemberChangeKind, MemberRole, Platform},
};
#[cfg(feature = "runtime")]
pub use token::{TokenError, TokenSource};
