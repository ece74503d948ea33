//! Keys of one stream, all in its slot (SPEC.md, "The binding to Redis").

use super::link::RedisLink;
use crate::Stream;

/// Keys of one stream.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// As in errors and logs, without the prefix.
    pub(super) plain: String,
    pub(super) stream: String,
    /// Who owns it.
    pub(super) lease: String,
    /// Whom it was deleted from, for a minute.
    pub(super) closed: String,
    /// Entries that were set aside.
    pub(super) dead: String,
    pub(super) is_down: bool,
}

// === impl Names ===

impl Names {
    pub(super) fn of(link: &RedisLink, stream: &Stream) -> Self {
        let plain = stream.to_string();
        Self {
            stream: link.key(&plain),
            lease: link.key(format_args!("lease:{plain}")),
            closed: link.key(format_args!("closed:{plain}")),
            dead: link.key(format_args!("dead:{plain}")),
            is_down: !stream.blocks_producer(),
            plain,
        }
    }

    /// For scripts: 1 if the stream lives only as long as its owner.
    pub(super) fn down_flag(&self) -> u8 {
        u8::from(self.is_down)
    }

    /// Shows how full the stream is. `down` streams, whose names are without
    /// end, share one label.
    pub(super) fn gauge(&self, entries: i64, pending: i64) {
        let stream = if self.is_down { "down" } else { &self.plain };
        let set = |name, value: i64| {
            metrics::gauge!(name, "stream" => stream.to_owned()).set(value as f64);
        };
        set("sluice_bus_stream_entries", entries);
        set("sluice_bus_stream_pending_entries", pending);
    }
}
