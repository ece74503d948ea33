//! Users, their status, epochs and blocks.

use sluice_store::{StoreError, UserStatus};

use crate::kit::{Bench, Engine, new_user, user};

pub(crate) async fn users_are_kept_and_unique(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    assert!(matches!(
        bench.store.create_user(new_user("alice")).await,
        Err(StoreError::UserExists(id)) if id == user("alice")
    ));
    let bench = bench.reopened().await;
    let found = bench.store.users(&[user("bob"), user("alice")]).await;
    let found = found.unwrap();
    assert_eq!(found[0], None);
    let alice = found[1].as_ref().unwrap();
    assert_eq!(alice.username, "ALICE");
    assert_eq!(alice.password_hash, "$argon2id$alice");
    assert_eq!((alice.status, alice.token_epoch), (UserStatus::Normal, 0));
}

pub(crate) async fn a_ban_and_a_revocation_raise_the_epoch(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    let alice = user("alice");
    let state = async || {
        let users = bench.store.users(std::slice::from_ref(&alice)).await;
        let found = users.unwrap().remove(0).unwrap();
        (found.status, found.token_epoch, found.password_hash)
    };
    assert!(
        bench
            .store
            .set_status(&alice, UserStatus::Muted)
            .await
            .unwrap()
    );
    assert_eq!(state().await.1, 0);
    assert!(
        bench
            .store
            .set_status(&alice, UserStatus::Banned)
            .await
            .unwrap()
    );
    assert!(
        bench
            .store
            .set_status(&alice, UserStatus::Banned)
            .await
            .unwrap()
    );
    assert_eq!((state().await.0, state().await.1), (UserStatus::Banned, 1));
    assert!(
        bench
            .store
            .set_status(&alice, UserStatus::Normal)
            .await
            .unwrap()
    );
    let epoch = bench.store.revoke_tokens(&alice, None).await.unwrap();
    assert_eq!(epoch, 2);
    let hash = Some("$new".to_owned());
    assert_eq!(bench.store.revoke_tokens(&alice, hash).await.unwrap(), 3);
    assert_eq!(state().await, (UserStatus::Normal, 3, "$new".to_owned()));
    let bob = user("bob");
    assert!(
        !bench
            .store
            .set_status(&bob, UserStatus::Banned)
            .await
            .unwrap()
    );
    assert!(matches!(
        bench.store.revoke_tokens(&bob, None).await,
        Err(StoreError::UnknownUser(id)) if id == bob
    ));
}

pub(crate) async fn blocks_stand_until_lifted(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    let (alice, bob, ghost) = (user("alice"), user("bob"), user("ghost"));
    let pairs = [
        (alice.clone(), bob.clone()),
        (bob.clone(), alice.clone()),
        (alice.clone(), ghost.clone()),
    ];
    for _ in 0..2 {
        bench.store.set_block(&alice, &bob, true).await.unwrap();
    }
    assert_eq!(
        bench.store.blocks(&pairs).await.unwrap(),
        [true, false, false]
    );
    bench.store.set_block(&alice, &bob, false).await.unwrap();
    assert_eq!(bench.store.blocks(&pairs).await.unwrap(), [false; 3]);
    assert!(matches!(
        bench.store.set_block(&alice, &ghost, true).await,
        Err(StoreError::UnknownUser(id)) if id == ghost
    ));
}
