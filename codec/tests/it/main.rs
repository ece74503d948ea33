//! The codec as its callers use it.

mod tcp;
