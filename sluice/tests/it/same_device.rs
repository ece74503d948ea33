//! One device id, many logins at the same time: one stays, and it is the one
//! that is reached.

use std::time::Duration;

use sluice_client::{
    Client, ContentType, DeviceId, Event, EventStream, HttpApi, LocalState, Target, UserId,
};

use crate::server::Server;

const ROUNDS: usize = 5;
const LOGINS: usize = 12;

fn start(user: &UserId, device: &str, token: &str, server: &Server) -> (Client, EventStream) {
    Client::builder(user.clone(), DeviceId::parse(device).unwrap())
        .server(server.endpoint())
        .token(token)
        .state(LocalState::memory())
        .start()
        .unwrap()
}

/// Waits for the end, if it comes, and counts entries.
async fn watch(mut events: EventStream, entries: usize) -> usize {
    let mut seen = 0;
    while seen < entries
        && let Some(event) = events.next().await
    {
        seen += usize::from(matches!(event, Event::Entry { .. }));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_logins_of_a_device_one_stays_and_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let mut people = Vec::new();
    for name in ["alice", "bob"] {
        let user = UserId::parse(name).unwrap();
        api.register(&user, "a long password", None).await.unwrap();
        let token = api.login(&user, "a long password").await.unwrap().token;
        people.push((user, token));
    }
    let [(alice, of_alice), (bob, of_bob)] = &people[..] else {
        unreachable!()
    };
    let (sender, _events) = start(bob, "phone", of_bob, &server);
    for round in 1..=ROUNDS {
        let started: Vec<_> = (0..LOGINS)
            .map(|_| start(alice, "phone", of_alice, &server))
            .collect();
        let (clients, streams): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let watching: Vec<_> = streams
            .into_iter()
            .map(|events| tokio::spawn(watch(events, round)))
            .collect();
        let settled = async {
            while clients.iter().filter(|it| it.ended().is_none()).count() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(20), settled).await;
        settled.expect("all but one are replaced");
        let text = format!("round {round}");
        let sent = sender.send(Target::User(alice.clone()), ContentType::Text, text);
        sent.await.unwrap().acked().await.unwrap();
        let stays = clients.iter().position(|it| it.ended().is_none());
        let stays = stays.expect("one stays");
        for (place, watched) in watching.into_iter().enumerate() {
            if place == stays {
                let seen = tokio::time::timeout(Duration::from_secs(5), watched).await;
                assert_eq!(seen.expect("it is reached").unwrap(), round);
            } else {
                watched.abort();
            }
        }
        for client in clients {
            client.disconnect(true).await;
        }
    }
    assert!(server.terminate());
}
