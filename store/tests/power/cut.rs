//! Power cuts at any write, truncation or sync, from the first one on.

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use sluice_store::SqliteStore;

use crate::{
    disk::{self, Cut, Image, Operation, Random, Verdict},
    load::{Acked, check_image, commit_from_all, config, create_users},
};

const CUTS: [Cut; 4] = [
    Cut::Nothing,
    Cut::Everything,
    Cut::SomeWrites,
    Cut::SomeSectors,
];

/// Operations between two cuts, at most.
const CUT_EVERY: u64 = 240;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Stores messages until so many are acknowledged.
fn load(folder: &Path, acked: &Acked, enough: usize) {
    runtime().block_on(async {
        let store = Arc::new(SqliteStore::open(folder, &config()).unwrap());
        create_users(&store).await;
        commit_from_all(&store, acked, enough).await;
    });
}

#[test]
fn what_was_acked_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let acked = Acked::default();
    let (cuts, images) = mpsc::sync_channel::<(Cut, Image, usize)>(2);
    let seen = Arc::clone(&acked);
    let mut random = Random(7);
    let mut operations_left = 3;
    let plan = move |_, platter: &disk::Platter| {
        operations_left -= 1;
        if operations_left == 0 {
            operations_left = random.below(CUT_EVERY) + 1;
            let cut = CUTS[random.below(4) as usize];
            // Whoever was answered before this operation was promised something.
            let promised = seen.lock().unwrap().len();
            let image = platter.after(cut, &mut random);
            // Nobody waits for it any more once a check has failed.
            let _ = cuts.send((cut, image, promised));
        }
        Verdict::Do
    };
    disk::watch(folder.path(), Box::new(plan));
    let watched = folder.path().to_owned();
    let loading = Arc::clone(&acked);
    let loader = thread::spawn(move || load(&watched, &loading, 1_200));
    let runtime = runtime();
    let mut checked = 0;
    // Ends when the loader has; its plan, which holds the sender, is dropped by then.
    while let Ok((cut, image, promised)) = next_image(&images, &loader) {
        let promised = acked.lock().unwrap()[..promised].to_vec();
        runtime
            .block_on(check_image(&image, &promised))
            .unwrap_or_else(|wrong| panic!("cut {checked} ({cut:?}): {wrong}"));
        checked += 1;
    }
    loader.join().unwrap();
    assert!(checked > 50, "{checked} cuts");
}

/// The next image; an error when there are none left and the loader has ended.
fn next_image<T>(
    images: &mpsc::Receiver<T>,
    loader: &thread::JoinHandle<()>,
) -> Result<T, mpsc::RecvTimeoutError> {
    loop {
        match images.recv_timeout(std::time::Duration::from_millis(20)) {
            Err(mpsc::RecvTimeoutError::Timeout) if !loader.is_finished() => {}
            other => return other,
        }
    }
}

/// The counter-check: on a disk that lies about syncs, the same test finds losses.
#[test]
fn a_lying_disk_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let acked = Acked::default();
    let honest = Arc::new(Mutex::new(true));
    let still_honest = Arc::clone(&honest);
    let plan = move |operation, _: &disk::Platter| match operation {
        Operation::Sync if !*still_honest.lock().unwrap() => Verdict::Lie,
        _ => Verdict::Do,
    };
    disk::watch(folder.path(), Box::new(plan));
    let runtime = runtime();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(folder.path(), &config()).unwrap());
        create_users(&store).await;
        for enough in [100, 200] {
            commit_from_all(&store, &acked, enough).await;
            *honest.lock().unwrap() = false;
        }
        let promised = acked.lock().unwrap().clone();
        let image = disk::cut_now(folder.path(), Cut::Nothing, &mut Random(1));
        let wrong = check_image(&image, &promised).await.unwrap_err();
        assert!(wrong.contains("lost"), "{wrong}");
        check_image(&image, &promised[..100]).await.unwrap();
    });
}
