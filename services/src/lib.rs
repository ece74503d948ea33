//! User, message and group services: bus consumers and HTTP APIs.
