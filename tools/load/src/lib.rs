//! Load driver: many connections from one process.
