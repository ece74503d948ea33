//! Packets, ids, error codes and the bus envelope of Sluice.
