//! Port Store and its embedded SQLite implementation.
