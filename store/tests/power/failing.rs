//! A disk whose writes and syncs fail now and then.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE};
use sluice_store::SqliteStore;

use crate::{
    disk::{self, Cut, Operation, Random, Verdict},
    load::{Acked, check_image, commit_from_all, config, create_users},
};

/// One operation in so many fails.
const FAILS_ONE_IN: u64 = 40;

#[test]
fn failed_transactions_are_retried_and_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicU64::new(0));
    let (on, count) = (Arc::clone(&failing), Arc::clone(&failures));
    let mut random = Random(11);
    let plan = move |operation, _: &disk::Platter| {
        if !on.load(Ordering::SeqCst) || random.below(FAILS_ONE_IN) != 0 {
            return Verdict::Do;
        }
        count.fetch_add(1, Ordering::SeqCst);
        Verdict::Fail(match operation {
            Operation::Sync => SQLITE_IOERR_FSYNC,
            _ if random.below(2) == 0 => SQLITE_FULL,
            _ => SQLITE_IOERR_WRITE,
        })
    };
    disk::watch(folder.path(), Box::new(plan));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(folder.path(), &config()).unwrap());
        failing.store(true, Ordering::SeqCst);
        create_users(&store).await;
        let acked = Acked::default();
        commit_from_all(&store, &acked, 800).await;
        assert!(failures.load(Ordering::SeqCst) > 20);
        let promised = acked.lock().unwrap().clone();
        for cut in [Cut::Nothing, Cut::SomeSectors, Cut::Everything] {
            let image = disk::cut_now(folder.path(), cut, &mut Random(3));
            check_image(&image, &promised).await.unwrap();
        }
    });
}
