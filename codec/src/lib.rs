//! Sans-IO codecs: bytes to packets and back, for TCP and WebSocket.
