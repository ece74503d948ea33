//! Field numbers of packet.proto, of the bodies of `Packet` and its id; the tests hold
//! them against the generated types.

pub(super) const ID: u32 = 1;
pub(super) const CONNECT_ACK: u32 = 3;
pub(super) const PING: u32 = 4;
pub(super) const PONG: u32 = 5;
pub(super) const KICK: u32 = 9;
pub(super) const GO_AWAY: u32 = 10;
pub(super) const ERROR: u32 = 11;
pub(super) const BUSY: u32 = 12;
pub(super) const SEND: u32 = 16;
pub(super) const SEND_ACK: u32 = 17;
pub(super) const PUSH: u32 = 18;
pub(super) const GROUP_NOTICE: u32 = 19;
pub(super) const PUSH_ACK: u32 = 20;
pub(super) const OVERFLOW: u32 = 28;
pub(super) const RESYNC: u32 = 29;
pub(super) const SYNC_INBOX: u32 = 32;
pub(super) const INBOX_PAGE: u32 = 33;
pub(super) const SYNC_CONVERSATION: u32 = 34;
pub(super) const CONVERSATION_PAGE: u32 = 35;
pub(super) const SYNC_HEADS: u32 = 36;
pub(super) const HEADS_PAGE: u32 = 37;
pub(super) const REQUEST: u32 = 48;
pub(super) const RESPONSE: u32 = 49;
