//! The HTTP helper against a server that answers by the book.

use sluice_client::{ApiError, HttpApi, UserId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Answers one request with these, and returns what was asked.
async fn exchange(status: &str, body: &str) -> (HttpApi, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = HttpApi::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let answer = answer(status, body);
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = request_of(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    });
    (api, asked)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 7\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn request_of(stream: &mut TcpStream) -> String {
    let mut asked = Vec::new();
    while !is_whole(&asked) {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "{asked:?}");
        asked.extend_from_slice(&bytes[..read]);
    }
    String::from_utf8(asked).unwrap()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines();
    let length = lines.find_map(|it| it.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |it| it.parse().unwrap())
}

#[tokio::test]
async fn a_login_is_asked_for_and_read() {
    let (api, asked) = exchange("200 OK", r#"{"user_id":"a","token":"t","expires_ms":5}"#).await;
    let login = api.login(&UserId::parse("a").unwrap(), "secret").await;
    let login = login.unwrap();
    assert_eq!((login.token.as_str(), login.expires_ms), ("t", 5));
    assert!(!format!("{login:?}").contains("\"t\""));
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /users/login HTTP/1.1"), "{asked}");
    let body = r#"{"user_id":"a","password":"secret"}"#;
    assert!(asked.ends_with(body), "{asked}");
}

#[tokio::test]
async fn names_become_one_segment_and_refusals_are_named() {
    let refused = r#"{"code":"forbidden","reason":"no"}"#;
    let (api, asked) = exchange("403 Forbidden", refused).await;
    let (user, other) = (
        UserId::parse("a/b?c").unwrap(),
        UserId::parse("爱").unwrap(),
    );
    match api.block("jwt", &user, &other).await {
        Err(ApiError::Refused {
            status: 403,
            code,
            retry_after_s: Some(7),
            ..
        }) => assert_eq!(code, "forbidden"),
        answer => panic!("{answer:?}"),
    }
    let asked = asked.await.unwrap();
    let path = "PUT /users/a%2Fb%3Fc/blocks/%E7%88%B1 HTTP/1.1";
    assert!(asked.starts_with(path), "{asked}");
    assert!(asked.contains("authorization: Bearer jwt"), "{asked}");
    assert!(HttpApi::new("not an address").is_err());
}

/// The key that a request carries.
fn key_of(request: &str) -> String {
    let mut lines = request.lines();
    let key = lines.find_map(|it| it.strip_prefix("idempotency-key: "));
    key.expect("a key").to_owned()
}

#[tokio::test]
async fn a_group_call_is_repeated_under_its_key_and_the_next_has_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = HttpApi::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let busy = r#"{"code":"unavailable","reason":"not now"}"#;
    let made = r#"{"conversation_id":"g:7"}"#;
    let answers = [
        ("503 Service Unavailable", busy),
        ("503 Service Unavailable", busy),
        ("200 OK", made),
        ("200 OK", made),
    ];
    let asked = tokio::spawn(async move {
        let mut keys = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = request_of(&mut stream).await;
            assert!(request.starts_with("POST /groups HTTP/1.1"), "{request}");
            keys.push(key_of(&request));
            stream
                .write_all(answer(status, body).as_bytes())
                .await
                .unwrap();
        }
        keys
    });
    let members = [UserId::parse("bob").unwrap()];
    for _ in 0..2 {
        let group = api.create_group("jwt", "friends", &members).await.unwrap();
        assert_eq!(group.as_str(), "g:7");
    }
    let keys = asked.await.unwrap();
    // The server takes a UUIDv7 alone.
    assert_eq!((keys[0].len(), &keys[0][14..15]), (36, "7"), "{keys:?}");
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], keys[2]);
    assert_ne!(keys[2], keys[3]);
}
