//! Private servers: Redis and MariaDB, and what Sluice is compared with (mosquitto,
//! nats-server, ejabberd), on free ports of the loopback, with their data in a folder of
//! their own, for tests, for the cluster demo and for `sluice bench`.
//!
//! A server can be killed, restarted on the same port and data, paused and
//! resumed. It ends, and its folder goes, when it is dropped, and also when
//! this process dies in whatever way (`guard`).

mod ejabberd;
mod guard;
mod mariadb;
mod mosquitto;
mod nats;
mod package;
mod redis;
mod redis_cluster;
mod server;

pub use ejabberd::Ejabberd;
pub use guard::GuardedFolder;
pub use mariadb::MariaDb;
pub use mosquitto::Mosquitto;
pub use nats::Nats;
pub use package::package_version;
pub use redis::{Redis, RedisSettings};
pub use redis_cluster::RedisCluster;
pub use server::EngineError;
