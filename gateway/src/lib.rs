//! Event loops, channels, pipeline and lanes: the only room that accepts client sockets.
