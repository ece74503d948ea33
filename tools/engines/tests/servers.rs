//! The servers start, forget or remember, and leave nothing behind.

#![allow(clippy::unwrap_used)]

use sluice_engines::{MariaDb, Redis, RedisCluster};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn ask(redis: &Redis, command: &str) -> String {
    let mut socket = TcpStream::connect(redis.address()).await.unwrap();
    socket.write_all(command.as_bytes()).await.unwrap();
    socket.write_all(b"\r\n").await.unwrap();
    let mut answer = [0; 256];
    let length = socket.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_durable_redis_remembers_what_a_plain_one_forgets() {
    for (mut redis, after) in [
        (Redis::start().await.unwrap(), "$-1\r\n"),
        (Redis::durable().await.unwrap(), "$1\r\n7\r\n"),
    ] {
        assert_eq!(ask(&redis, "SET a 7").await, "+OK\r\n");
        let before = redis.pid();
        redis.kill().unwrap();
        redis.restart().await.unwrap();
        assert_ne!(redis.pid(), before);
        assert_eq!(ask(&redis, "GET a").await, after);
    }
}

#[tokio::test]
async fn three_masters_make_a_cluster() {
    let cluster = RedisCluster::start().await.unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let answer = ask(&cluster.masters[0], "CLUSTER KEYSLOT a").await;
    assert_eq!(answer, ":15495\r\n");
}

#[tokio::test]
async fn mariadb_survives_a_kill_and_leaves_no_folder() {
    let mut server = MariaDb::start().await.unwrap();
    server.create_database("first").await.unwrap();
    server.kill().unwrap();
    server.restart().await.unwrap();
    let again = server.create_database("first").await.unwrap_err();
    assert!(again.to_string().contains("exists"), "{again}");
    let folder = server.folder().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}
