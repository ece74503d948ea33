//! The wheel as its users see it: its promises one by one, and against a sorted map.

mod model;
mod promises;
