//! Criterion benches of the hot pieces.
