//! A member is taken out of a group and in again while a device of theirs is
//! offline: it gets what it missed of both memberships, and nothing in between.

use sluice_client::{Content, ContentType, Entry, HttpApi, LocalState, Target};

use crate::{
    account::{Account, take},
    server::Server,
};

fn texts(entries: &[Entry]) -> Vec<&str> {
    let bodies = entries.iter().filter_map(|entry| match &entry.content {
        Content::Message { body, .. } => Some(std::str::from_utf8(body).unwrap()),
        _ => None,
    });
    bodies.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_offline_through_removal_and_return_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let endpoint = server.endpoint();
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let owner = Account::register(&api, "owner").await;
    let guest = Account::register(&api, "guest").await;
    let guests = [guest.user.clone()];
    let group = api
        .create_group(&owner.token, "tea", &guests)
        .await
        .unwrap(); // 1

    let (sender, _events) = owner.device("desk", &endpoint, LocalState::memory());
    let say = async |text: &'static str| {
        let target = Target::Conversation(group.clone());
        let sent = sender.send(target, ContentType::Text, text).await.unwrap();
        sent.acked().await.unwrap()
    };
    say("seen").await; // 2
    let path = folder.path().join("guest");
    let phone = || guest.device("phone", &endpoint, LocalState::open(&path).unwrap());
    let (client, mut events) = phone();
    let mut seen = Vec::new();
    take(&mut events, &mut seen, true).await;
    assert_eq!(texts(&seen), ["seen"]);
    drop(events);
    client.disconnect(false).await;
    drop(client);

    say("missed one").await; // 3
    say("missed two").await; // 4
    let owner_token = &owner.token;
    (api.remove_member(owner_token, &group, &guest.user).await).unwrap(); // 5
    say("hidden").await; // 6
    (api.add_members(owner_token, &group, &guests).await).unwrap(); // 7
    say("back").await; // 8

    let (client, mut events) = phone();
    let mut missed = Vec::new();
    take(&mut events, &mut missed, true).await;
    assert_eq!(texts(&missed), ["missed one", "missed two", "back"]);
    let seqs: Vec<u64> = missed.iter().map(|entry| entry.seq.0).collect();
    assert_eq!(seqs, [3, 4, 5, 7, 8]);
    let list = client.conversations(None, 0).await.unwrap();
    assert_eq!(list.conversations[0].unread, 4, "nothing was read yet");

    // History goes back over what is hidden, page by page.
    let newest = client.history(&group, None, 100).await.unwrap();
    assert!(newest.more);
    let before = Some(newest.entries[0].seq);
    let older = client.history(&group, before, 100).await.unwrap();
    assert_eq!(texts(&newest.entries), ["back"]);
    assert_eq!(texts(&older.entries), ["seen", "missed one", "missed two"]);
    assert!(!older.more);
    client.disconnect(true).await;

    // A device that knows nothing gets both memberships too.
    let (client, mut events) = guest.device("new", &endpoint, LocalState::memory());
    let mut all = Vec::new();
    take(&mut events, &mut all, true).await;
    let seqs: Vec<u64> = all.iter().map(|entry| entry.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 7, 8]);
    client.disconnect(true).await;
    assert!(server.terminate());
}
