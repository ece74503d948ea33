//! Holds the dependency table of ARCHITECTURE.md against cargo metadata.
