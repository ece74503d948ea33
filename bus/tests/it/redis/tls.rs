//! An encrypted Redis, whose certificate a CA of our own signed.
//!
//! Which CAs count is in the environment of a process, so the test runs itself
//! again in one.

use std::{path::Path, process::Command};

use sluice_bus::{Directory, RedisMode};
use sluice_engines::{Redis, RedisSettings};

use super::{
    corner_of,
    directory::{GATEWAY, TTL, open},
};

/// Set in the inner processes.
const URL: &str = "SLUICE_TEST_REDISS_URL";
const SELF: &str = "redis::tls::a_certificate_is_checked_by_the_cas_of_the_environment";

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_certificate_is_checked_by_the_cas_of_the_environment() {
    if let Ok(url) = std::env::var(URL) {
        return speak(url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "stranger"] {
        let made = format!("-days 2 -subj /CN=test-ca -keyout {ca}.key -out {ca}.pem");
        openssl(folder, &format!("req -x509 {new} {made}"));
    }
    openssl(
        folder,
        &format!("req {new} -subj /CN=redis -keyout server.key -out server.csr"),
    );
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
    let file = |name: &str| folder.join(name).display().to_string();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let arguments = [
        ("--tls-port", port.clone()),
        ("--tls-cert-file", file("server.pem")),
        ("--tls-key-file", file("server.key")),
        ("--tls-ca-cert-file", file("ca.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    let settings = RedisSettings {
        arguments: (arguments.into_iter())
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect(),
        ..RedisSettings::default()
    };
    let _server = Redis::with(settings).await.unwrap();
    for (ca, good) in [("ca.pem", true), ("stranger.pem", false)] {
        let mut inside = tokio::process::Command::new(std::env::current_exe().unwrap());
        inside
            .args(["--exact", SELF])
            .env("SSL_CERT_FILE", file(ca))
            .env(URL, format!("rediss://127.0.0.1:{port}"));
        let output = inside.output().await.unwrap();
        assert_eq!(output.status.success(), good, "{ca}: {output:?}");
        let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
        assert!(ran, "{output:?}");
    }
}

async fn speak(url: String) {
    let directory = open(&corner_of(vec![url], RedisMode::Single));
    directory.lease(GATEWAY, TTL).await.unwrap();
    assert_eq!(directory.gateways().await.unwrap().len(), 1);
}
