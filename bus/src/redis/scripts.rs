//! The scripts of the streams. What must not come apart is one script.

use super::link::Lua;

/// One of each, hashed once.
pub(super) struct Scripts {
    pub(super) append: Lua,
    pub(super) own: Lua,
    pub(super) renew: Lua,
    pub(super) release: Lua,
    pub(super) read_owned: Lua,
    pub(super) read_shared: Lua,
    pub(super) ack_owned: Lua,
    pub(super) ack_shared: Lua,
    pub(super) join: Lua,
    pub(super) keep: Lua,
    pub(super) leave: Lua,
    pub(super) delete: Lua,
    pub(super) lag: Lua,
    pub(super) replay: Lua,
}

/// The text of a script in `stream_lua`, behind what it shares with others.
macro_rules! lua {
    ($($file:literal),+) => {
        Lua::new(concat!($(include_str!(concat!("stream_lua/", $file))),+))
    };
}

// === impl Scripts ===

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            append: lua!("append.lua"),
            own: lua!("own.lua"),
            renew: lua!("renew.lua"),
            release: lua!("release.lua"),
            read_owned: lua!("page.lua", "read_owned.lua"),
            read_shared: lua!("page.lua", "read_shared.lua"),
            ack_owned: lua!("ack_owned.lua"),
            ack_shared: lua!("ack_shared.lua"),
            join: lua!("join.lua"),
            keep: lua!("keep.lua"),
            leave: lua!("leave.lua"),
            delete: lua!("delete.lua"),
            lag: lua!("lag.lua"),
            replay: lua!("replay.lua"),
        }
    }
}
