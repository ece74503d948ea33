//! Encrypted connections, to a server whose certificate a CA of our own signed.

use std::{path::Path, process::Command};

use sluice_engines::MariaDb;
use sluice_store::{MysqlConfig, MysqlStore, Store, StoreError};
use sqlx::{Connection, MySqlConnection, Row};

use crate::kit::new_user;

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A CA, as `NAME.pem` and `NAME.key`.
fn make_ca(folder: &Path, name: &str) {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let about = [
        "-days",
        "2",
        "-subj",
        "/CN=test-ca",
        "-keyout",
        &key,
        "-out",
        &pem,
    ];
    openssl(folder, &[&new[..], &about].concat());
}

/// A certificate for an address, signed by `ca`, as `server.pem` and `server.key`.
fn make_certificate(folder: &Path, address: &str) {
    let new = [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let about = [
        "-subj",
        "/CN=db",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    openssl(folder, &[&new[..], &about].concat());
    std::fs::write(
        folder.join("names"),
        format!("subjectAltName=IP:{address}\n"),
    )
    .unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
    ];
    let about = [
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ];
    openssl(folder, &[&sign[..], &about].concat());
}

#[tokio::test]
async fn a_server_is_believed_when_its_certificate_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_ca(folder, "ca");
    make_ca(folder, "stranger");
    make_certificate(folder, "127.0.0.1");
    let path = |name: &str| folder.join(name).display().to_string();
    let server = MariaDb::start_with(&[
        "--skip-log-bin",
        &format!("--ssl-cert={}", path("server.pem")),
        &format!("--ssl-key={}", path("server.key")),
        "--require-secure-transport=ON",
    ])
    .await
    .unwrap();
    let impatient = |parameters: &str| MysqlConfig {
        acquire_timeout_ms: 1_000,
        ..MysqlConfig::single(server.url("sluice") + parameters)
    };
    let ca = path("ca.pem");
    for mode in ["VERIFY_IDENTITY", "VERIFY_CA", "REQUIRED"] {
        let config = impatient(&format!("?ssl-mode={mode}&ssl-ca={ca}"));
        let store = MysqlStore::connect(&config).await.unwrap();
        store.create_user(new_user(mode)).await.unwrap();
        let mut sql = MySqlConnection::connect(&config.servers[0].url)
            .await
            .unwrap();
        let row = sqlx::query("SHOW STATUS LIKE 'Ssl_version'");
        let row = row.fetch_one(&mut sql).await.unwrap();
        assert!(row.get::<String, _>(1).starts_with("TLSv1"));
    }
    let stranger = format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", path("stranger.pem"));
    for parameters in [
        "",
        "?ssl-mode=DISABLED",
        "?ssl-mode=VERIFY_IDENTITY",
        &stranger,
    ] {
        let refused = MysqlStore::connect(&impatient(parameters)).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{parameters}"
        );
    }
    // It is signed, but for another address.
    let url = server.url("sluice").replace("127.0.0.1", "localhost");
    let strange = MysqlConfig {
        acquire_timeout_ms: 1_000,
        ..MysqlConfig::single(url + &format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"))
    };
    assert!(MysqlStore::connect(&strange).await.is_err());
}
