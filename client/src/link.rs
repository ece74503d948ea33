//! One connection: packets over TCP or WebSocket.
