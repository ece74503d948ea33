//! A fault relay: delay, stall, reset and blackout for streams.
