//! Ports Bus and Directory, with their in-process implementations.
