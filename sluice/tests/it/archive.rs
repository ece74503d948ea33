//! A month leaves the store, and clients of before and after get on.

use std::{path::Path, process::Command, time::Duration};

use sluice_client::{Client, ContentType, Event, EventStream, HttpApi, LocalState, Target};
use sluice_engines::MariaDb;

use crate::{
    account::Account,
    server::{SLUICE, Server},
};

const WAIT: Duration = Duration::from_secs(30);

struct Scene {
    database: MariaDb,
    folder: tempfile::TempDir,
}

impl Scene {
    /// Runs SQL and returns the last line of what it prints.
    fn sql(&self, sql: &str) -> String {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--user=sluice", "--password=sluice"])
            .args(["--host=127.0.0.1", "--protocol=tcp", "--batch"])
            .args(["--skip-column-names", "sluice"])
            .arg(format!("--port={}", self.database.address().port()))
            .args(["--execute", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    }

    fn months(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(SLUICE);
        command.arg("months").args(arguments);
        if arguments[0] != "read" {
            command
                .arg("--config")
                .arg(self.folder.path().join("sluice.toml"));
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

fn client(
    server: &Server,
    account: &Account,
    device: &str,
    folder: &Path,
) -> (Client, EventStream) {
    let state = folder.join(format!("{}-{device}.redb", account.user));
    account.device(device, &server.endpoint(), LocalState::open(state).unwrap())
}

/// The texts up to the one that is awaited, and where the inbox was said to begin.
async fn texts(events: &mut EventStream, last: &str) -> (Vec<String>, Option<u64>) {
    let (mut texts, mut archived) = (Vec::new(), None);
    let all = async {
        while let Some(event) = events.next().await {
            match event {
                Event::Archived { first, .. } => archived = Some(first),
                Event::Entry { entry, .. } => {
                    let text = entry.text().unwrap_or_default().to_owned();
                    let is_last = text == last;
                    texts.push(text);
                    if is_last {
                        return;
                    }
                }
                _ => {}
            }
        }
    };
    let in_time = tokio::time::timeout(WAIT, all).await;
    assert!(in_time.is_ok(), "only {texts:?} came");
    (texts, archived)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_over_a_month_that_is_gone() {
    let scene = Scene {
        database: MariaDb::start().await.unwrap(),
        folder: tempfile::tempdir().unwrap(),
    };
    let folder = scene.folder.path();
    let store = format!(
        "[[store.mysql.servers]]\nurl = \"{}\"\nshards = \"0-63\"\n",
        scene.database.url("sluice")
    );
    let server = Server::start_with(folder, None, &store);
    let api = HttpApi::new(&server.addresses.http).unwrap();
    let alice = Account::register(&api, "alice").await;
    let bob = Account::register(&api, "bob").await;
    let to_bob = Target::User(bob.user.clone());
    let (alice, mut alice_events) = client(&server, &alice, "phone", folder);
    let (phone, mut bob_events) = client(&server, &bob, "phone", folder);
    let send = async |text: &str| {
        let handle = alice
            .send(to_bob.clone(), ContentType::Text, text.to_owned())
            .await;
        handle.unwrap().acked().await.unwrap();
    };
    send("one").await;
    assert_eq!(
        texts(&mut bob_events, "one").await,
        (vec!["one".to_owned()], None)
    );
    // Asked for the next one, the client has saved the first.
    let next = tokio::time::timeout(Duration::from_millis(300), bob_events.next()).await;
    assert!(next.is_err() || !matches!(next, Ok(Some(Event::Entry { .. }))));
    drop(bob_events);
    phone.disconnect(false).await;
    drop(phone);
    for text in ["two", "three", "four", "five"] {
        send(text).await;
    }
    texts(&mut alice_events, "five").await;

    // The first three were four months ago.
    let month = scene.sql("SELECT DATE_FORMAT(UTC_DATE() - INTERVAL 4 MONTH, '%Y-%m')");
    let ms = |ago: u32| {
        scene.sql(&format!(
            "SELECT TIMESTAMPDIFF(SECOND, '1970-01-01',
               DATE_FORMAT(UTC_DATE() - INTERVAL {ago} MONTH, '%Y-%m-01')) * 1000"
        ))
    };
    let last = scene.sql("SELECT DATE_FORMAT(UTC_DATE() - INTERVAL 1 MONTH, 'p%Y%m')");
    let partition = format!("p{}", month.replace('-', ""));
    for table in ["message", "dedup"] {
        scene.sql(&format!(
            "ALTER TABLE {table} REORGANIZE PARTITION {last} INTO (
               PARTITION {partition} VALUES LESS THAN ({}),
               PARTITION {last} VALUES LESS THAN ({}))",
            ms(3),
            ms(0)
        ));
    }
    scene.sql(&format!(
        "UPDATE message SET send_ms = {} + seq WHERE seq <= 3",
        ms(4)
    ));

    let file = folder.join(format!("sluice-{month}.ndjson.gz"));
    let file = file.to_str().unwrap();
    let (ok, told) = scene.months(&["list"]);
    assert!(
        ok && told.contains(&month) && told.contains("may be archived"),
        "{told}"
    );
    let (ok, told) = scene.months(&["drop", &month]);
    assert!(!ok && told.contains("--archive"), "{told}");
    let (ok, told) = scene.months(&["archive", &month, "--to", folder.to_str().unwrap()]);
    assert!(ok && told.contains("3 entries"), "{told}");
    let (ok, told) = scene.months(&["read", file]);
    assert!(
        ok && told.lines().count() == 3 && told.contains(r#""text":"two""#),
        "{told}"
    );
    let (ok, told) = scene.months(&["drop", &month, "--archive", file]);
    assert!(ok && told.contains("3 entries"), "{told}");

    // A device that had the first, one that is new, and the one that stayed.
    let rest = vec!["four".to_owned(), "five".to_owned()];
    let (_bob, mut bob_events) = client(&server, &bob, "phone", folder);
    assert_eq!(
        texts(&mut bob_events, "five").await,
        (rest.clone(), Some(4))
    );
    let (_tablet, mut tablet_events) = client(&server, &bob, "tablet", folder);
    assert_eq!(texts(&mut tablet_events, "five").await, (rest, Some(4)));
    send("six").await;
    for events in [&mut bob_events, &mut tablet_events, &mut alice_events] {
        assert_eq!(texts(events, "six").await, (vec!["six".to_owned()], None));
    }
}
