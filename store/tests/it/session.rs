//! Sessions: tokens, resume tokens, devices.

use sluice_protocol::{DeviceId, UserSeq};
use sluice_store::{SessionOpening, SessionOutcome, SessionProof, SessionRefusal, UserStatus};

use crate::kit::{Bench, Engine, START_MS, pair, say, user};

const END_MS: u64 = START_MS + 1_000;

fn opening(name: &str, device: &str, proof: SessionProof, new_hash: u8) -> SessionOpening {
    SessionOpening {
        user: user(name),
        device: DeviceId::parse(device).unwrap(),
        platform: 1,
        proof,
        new_resume_hash: [new_hash; 32],
        connect_time_ms: Some(START_MS),
        has_place: true,
        now_ms: START_MS,
    }
}

fn token(token_epoch: u64) -> SessionProof {
    SessionProof::Token {
        token_epoch,
        expires_ms: END_MS,
    }
}

fn resume(hash: u8) -> SessionProof {
    SessionProof::Resume { hash: [hash; 32] }
}

async fn open(bench: &Bench, opening: SessionOpening) -> Result<u64, SessionRefusal> {
    let outcomes = bench.store.open_sessions(vec![opening]).await.unwrap();
    match outcomes[0] {
        SessionOutcome::Opened {
            login, expires_ms, ..
        } => {
            assert_eq!(expires_ms, END_MS);
            Ok(login)
        }
        SessionOutcome::Refused(refusal) => Err(refusal),
    }
}

pub(crate) async fn a_resume_token_opens_one_session_on_its_device(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice", "bob"]).await;
    bench.stored(say(&pair("alice", "bob"), "bob", "hi")).await;
    let both = vec![
        opening("alice", "phone", token(0), 1),
        opening("ghost", "phone", token(0), 1),
    ];
    let outcomes = bench.store.open_sessions(both).await.unwrap();
    assert_eq!(
        outcomes,
        [
            SessionOutcome::Opened {
                inbox_seq: UserSeq(1),
                expires_ms: END_MS,
                login: 1
            },
            SessionOutcome::Refused(SessionRefusal::UnknownUser)
        ]
    );
    let bad = Err(SessionRefusal::BadResumeToken);
    assert_eq!(
        open(&bench, opening("alice", "laptop", resume(1), 2)).await,
        bad
    );
    assert_eq!(
        open(&bench, opening("bob", "phone", resume(1), 2)).await,
        bad
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", resume(9), 2)).await,
        bad
    );
    let bench = bench.reopened().await;
    let good = opening("alice", "phone", resume(1), 2);
    assert_eq!(open(&bench, good.clone()).await, Ok(2));
    assert_eq!(
        open(&bench, good.clone()).await,
        Ok(3),
        "a retry of the call"
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", resume(1), 3)).await,
        bad
    );
    let mut late = opening("alice", "phone", resume(2), 4);
    late.now_ms = END_MS;
    assert_eq!(open(&bench, late).await, bad, "it ends with the session");
    let device = DeviceId::parse("phone").unwrap();
    bench
        .store
        .forget_device(&user("alice"), &device)
        .await
        .unwrap();
    assert_eq!(
        open(&bench, opening("alice", "phone", resume(2), 5)).await,
        bad
    );
}

pub(crate) async fn revocation_and_ban_close_the_door(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    let alice = user("alice");
    assert_eq!(
        open(&bench, opening("alice", "phone", token(0), 1)).await,
        Ok(1)
    );
    bench.store.revoke_tokens(&alice, None).await.unwrap();
    let revoked = Err(SessionRefusal::Revoked);
    let bad = Err(SessionRefusal::BadResumeToken);
    assert_eq!(
        open(&bench, opening("alice", "phone", token(0), 2)).await,
        revoked
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", token(2), 2)).await,
        revoked
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", resume(1), 2)).await,
        bad
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", token(1), 3)).await,
        Ok(2)
    );
    bench
        .store
        .set_status(&alice, UserStatus::Banned)
        .await
        .unwrap();
    let banned = Err(SessionRefusal::Banned);
    assert_eq!(
        open(&bench, opening("alice", "phone", resume(3), 4)).await,
        banned
    );
    assert_eq!(
        open(&bench, opening("alice", "phone", token(2), 4)).await,
        banned
    );
}

pub(crate) async fn the_devices_longest_unused_are_forgotten(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    for number in 0..70_u8 {
        let device = format!("device-{number}");
        open(&bench, opening("alice", &device, token(0), number))
            .await
            .unwrap();
    }
    let resumed = async |number: u8| {
        let device = format!("device-{number}");
        open(&bench, opening("alice", &device, resume(number), 200)).await
    };
    assert_eq!(resumed(5).await, Err(SessionRefusal::BadResumeToken));
    assert!(resumed(6).await.is_ok());
    assert!(resumed(69).await.is_ok());
}

pub(crate) async fn without_a_place_no_resume_token_is_spent(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    open(&bench, opening("alice", "phone", token(0), 1))
        .await
        .unwrap();
    let full = |proof| SessionOpening {
        has_place: false,
        ..opening("alice", "phone", proof, 2)
    };
    // Who has no proof isn't told.
    assert_eq!(
        open(&bench, full(resume(9))).await,
        Err(SessionRefusal::BadResumeToken)
    );
    for proof in [resume(1), token(0)] {
        assert_eq!(
            open(&bench, full(proof)).await,
            Err(SessionRefusal::TooManyDevices)
        );
    }
    let later = opening("alice", "phone", resume(1), 3);
    assert_eq!(open(&bench, later).await, Ok(2));
}

pub(crate) async fn an_overtaken_login_changes_nothing(engine: Engine) {
    let bench = Bench::with_users(engine, &["alice"]).await;
    let asked = |connect_time_ms, proof, hash| SessionOpening {
        connect_time_ms,
        ..opening("alice", "phone", proof, hash)
    };
    let at = |ms| Some(START_MS + ms);
    assert_eq!(open(&bench, asked(at(20), token(0), 1)).await, Ok(1));
    // Made before, worked on after.
    let late = open(&bench, asked(at(10), token(0), 2)).await;
    assert_eq!(late, Err(SessionRefusal::Overtaken));
    let late = open(&bench, asked(at(19), resume(1), 3)).await;
    assert_eq!(late, Err(SessionRefusal::Overtaken));
    // Another device has its own times, and a session is prolonged at any time.
    let other = SessionOpening {
        connect_time_ms: at(5),
        ..opening("alice", "tablet", token(0), 4)
    };
    assert_eq!(open(&bench, other).await, Ok(2));
    assert_eq!(open(&bench, asked(None, token(0), 5)).await, Ok(3));
    let late = open(&bench, asked(at(19), token(0), 6)).await;
    assert_eq!(late, Err(SessionRefusal::Overtaken));
    // The same one again, and a later one.
    assert_eq!(open(&bench, asked(at(20), resume(5), 7)).await, Ok(4));
    assert_eq!(open(&bench, asked(at(21), resume(7), 8)).await, Ok(5));
    // A clock that was far ahead has been put right.
    let ahead = at(21 + 3_600_000);
    assert_eq!(open(&bench, asked(ahead, resume(8), 9)).await, Ok(6));
    assert_eq!(open(&bench, asked(at(22), resume(9), 10)).await, Ok(7));
}
