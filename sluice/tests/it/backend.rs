//! The README's backend, as the README starts it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use sluice_client::{CallError, Client, DeviceId, Endpoint, ErrorCode, Event, HttpApi, UserId};

use crate::server::{Addresses, SLUICE};

#[tokio::test]
async fn a_client_asks_the_example_backend() {
    let program = Path::new(SLUICE)
        .with_file_name("examples")
        .join("echo_backend");
    let mut child = Command::new(program)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let addresses: Addresses = serde_json::from_str(&line).unwrap();

    let api = HttpApi::new(&addresses.http).unwrap();
    let user = UserId::parse("alice").unwrap();
    api.register(&user, "a long password", None).await.unwrap();
    let token = api.login(&user, "a long password").await.unwrap().token;
    let (client, mut events) = Client::builder(user, DeviceId::parse("phone").unwrap())
        .server(Endpoint::tcp(addresses.tcp))
        .token(token)
        .start()
        .unwrap();
    // A question is asked of a connection; it doesn't wait for one.
    assert_eq!(
        events.next().await,
        Some(Event::Connected { resumed: false })
    );
    let ask = |service| client.request(service, "key", "hello", Duration::from_secs(10));
    let response = ask("echo").await.unwrap();
    assert_eq!(
        (response.status, response.payload.as_ref()),
        (0, &b"alice: hello"[..])
    );
    match ask("stock").await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, ErrorCode::UnknownService),
        other => panic!("{other:?}"),
    }
    client.disconnect(true).await;

    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(child.wait().unwrap().success());
}
