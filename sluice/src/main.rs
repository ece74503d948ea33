//! The one binary of Sluice.
fn main() {}
