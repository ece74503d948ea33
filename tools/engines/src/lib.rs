//! Private Redis and MariaDB servers: on free ports of the loopback, with their
//! data in a folder of their own, for tests and for the cluster demo.
//!
//! A server can be killed, restarted on the same port and data, paused and
//! resumed. It ends, and its folder goes, when it is dropped, and also when
//! this process dies in whatever way (`guard`).

mod guard;
mod mariadb;
mod redis;
mod redis_cluster;
mod server;

pub use guard::GuardedFolder;
pub use mariadb::MariaDb;
pub use redis::{Redis, RedisSettings};
pub use redis_cluster::RedisCluster;
pub use server::EngineError;
