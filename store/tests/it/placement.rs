//! A shard is looked for where its data is, whatever a configuration says.

use sluice_protocol::partition_of;
use sluice_store::{MysqlConfig, MysqlServer, MysqlStore, Store, StoreError};

use crate::kit::{fresh_database, new_user};

fn config(servers: &[(&str, &str)]) -> MysqlConfig {
    MysqlConfig {
        servers: (servers.iter())
            .map(|(url, shards)| MysqlServer {
                url: (*url).to_owned(),
                shards: (*shards).to_owned(),
                replicas: Vec::new(),
            })
            .collect(),
        ..MysqlConfig::default()
    }
}

async fn refused(servers: &[(&str, &str)]) -> String {
    match MysqlStore::connect(&config(servers)).await {
        Err(StoreError::BadConfig(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn opened(servers: &[(&str, &str)]) -> MysqlStore {
    MysqlStore::connect(&config(servers)).await.unwrap()
}

/// A name whose rows lie in one half of the shards.
fn name_in(upper: bool) -> String {
    let mut names = (0..).map(|number| format!("user{number}"));
    names
        .find(|name| (partition_of(name.as_bytes(), 64).0 >= 32) == upper)
        .unwrap()
}

#[tokio::test]
async fn a_shard_with_data_stays_where_it_is() {
    let (a, b, c) = (
        fresh_database().await,
        fresh_database().await,
        fresh_database().await,
    );
    let at = |url: &str| url.rsplit_once('@').unwrap().1.to_owned();
    let table = [(a.as_str(), "0-31"), (b.as_str(), "32-63")];
    let store = opened(&table).await;
    opened(&table).await;

    // Without data shards may still move between databases that are there.
    opened(&[(a.as_str(), "0-39"), (b.as_str(), "40-63")]).await;
    opened(&table).await;

    store.create_user(new_user(&name_in(true))).await.unwrap();
    let moved = refused(&[(&a, "0-63"), (&b, "")]).await;
    assert!(
        moved.contains("shards"),
        "an empty list is no list: {moved}"
    );
    let swapped = refused(&[(&a, "32-63"), (&b, "0-31")]).await;
    assert!(
        swapped.contains("has data on") && swapped.contains(&at(&b)),
        "{swapped}"
    );
    // Which a database that isn't asked cannot say.
    let missing = refused(&[(&a, "0-63")]).await;
    assert!(missing.contains("missing from the list"), "{missing}");
    let mistyped = refused(&[(&a, "0-31"), (&c, "32-63")]).await;
    assert!(mistyped.contains("missing from the list"), "{mistyped}");
    let reordered = refused(&[(&b, "32-63"), (&a, "0-31")]).await;
    assert!(
        reordered.contains(&at(&a)) && reordered.contains("first"),
        "{reordered}"
    );
    // Nothing was recorded by those who were refused.
    opened(&table).await;
}

#[tokio::test]
async fn several_first_starts_at_once_agree() {
    let (a, b) = (fresh_database().await, fresh_database().await);
    let table = [(a.as_str(), "0-15,40-63"), (b.as_str(), "16-39")];
    tokio::join!(opened(&table), opened(&table), opened(&table));
    let swapped = [(a.as_str(), "0-39"), (b.as_str(), "40-63")];
    // Still without data.
    opened(&swapped).await;
}
