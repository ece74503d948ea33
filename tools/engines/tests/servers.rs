//! The servers start, forget or remember, and leave nothing behind.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use sluice_engines::{Ejabberd, MariaDb, Mosquitto, Nats, Redis, RedisCluster, package_version};
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

/// `false`, and says so, where a program isn't installed.
fn is_installed(package: &str) -> bool {
    let is = package_version(package).is_some();
    if !is {
        eprintln!("skipped: the Debian package {package} isn't installed (tools/test does that)");
    }
    is
}

#[tokio::test]
async fn mosquitto_starts_and_ends() {
    if !is_installed(Mosquitto::PACKAGE) {
        return;
    }
    let server = Mosquitto::start().await.unwrap();
    ends(server.address(), server).await;
}

#[tokio::test]
async fn nats_starts_with_a_stream_and_ends() {
    if !is_installed(Nats::PACKAGE) {
        return;
    }
    let server = Nats::start_with_stream().await.unwrap();
    ends(server.address(), server).await;
}

#[tokio::test]
async fn ejabberd_starts_with_its_users_and_ends() {
    if !is_installed(Ejabberd::PACKAGE) || !is_installed(Ejabberd::ARCHIVE_PACKAGE) {
        return;
    }
    let server = Ejabberd::start(&[("alice", "secret")]).await.unwrap();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let hello = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams'><auth \
        xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>";
    socket.write_all(hello.as_bytes()).await.unwrap();
    let mut said = String::new();
    while !said.contains("<success ") {
        let mut answer = [0; 4096];
        let length = socket.read(&mut answer).await.unwrap();
        said.push_str(str::from_utf8(&answer[..length]).unwrap());
        assert!(length > 0 && !said.contains("<failure "), "{said}");
    }
    ends(server.address(), server).await;
}

/// Nobody listens any more once it is dropped.
async fn ends<T>(address: SocketAddr, server: T) {
    assert!(TcpStream::connect(address).await.is_ok());
    drop(server);
    assert!(TcpStream::connect(address).await.is_err());
}
