//! Packets, ids, error codes and the bus envelope of Sluice.
//!
//! The contract for people who write a client or a backend in another language
//! is `SPEC.md` beside this crate; the `.proto` files in `proto/` are its
//! letter. Generated types are the *wire* types: they stop at the edge. Rooms
//! parse them into the newtypes and checked structs of this crate
//! ([`SendRequest`], [`UserId`], …) and work on those.

mod conversation_id;
mod ids;
pub mod limits;
mod push;
mod refusal;
mod send_request;
mod up_packet;

pub use conversation_id::{ConversationId, ConversationKind, partition_of};
pub use ids::{
    ClientMsgId, ConnectionId, DeviceId, IdError, Incarnation, LayoutEpoch, MessageId, Partition,
    PartitionEpoch, Seq, UserId, UserSeq, WorkerId,
};
pub use push::PushPrefix;
pub use refusal::Refusal;
pub use send_request::{SendClass, SendRequest, fresh_client_msg_id};
pub use up_packet::{OriginFields, encode_up_packet};

/// The version a client names in `Connect.protocol_version`.
pub const PROTOCOL_VERSION: u32 = 1;

/// WebSocket subprotocol that both sides must name in the handshake.
pub const WEBSOCKET_SUBPROTOCOL: &str = "sluice.v1";

#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/sluice.v1.rs"));
    }
    pub mod bus {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/sluice.bus.v1.rs"));
        }
    }
}

/// Packets between client and gateway (`proto/sluice/v1/packet.proto`).
pub use generated::v1 as packet;

/// Entries on the bus (`proto/sluice/v1/bus.proto`).
pub use generated::bus::v1 as envelope;
