//! What every implementation of the ports must do, as tests.
//!
//! Each function takes an implementation that nothing else uses and panics when
//! it breaks the contract. `bus_contract!` and `directory_contract!` make one
//! `#[tokio::test]` of each. Where a remote engine may need a moment (leases,
//! redelivery to another consumer, presence) the suite waits for the state
//! instead of asking for it at once.

use std::{future::Future, time::Duration};

pub(crate) mod bus;
pub(crate) mod directory;
pub(crate) mod model;

/// Whatever hangs longer than this is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a call that doesn't wait; only used to see that one does wait.
pub(crate) const MOMENT: Duration = Duration::from_millis(60);

/// The future's answer, or a panic that says what hung.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Tests of one implementation, each on an instance of its own.
macro_rules! contract {
    ($module:ident, $make:expr, [$($name:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let subject = $make.await;
                $crate::contract::soon(
                    stringify!($name),
                    $crate::contract::$module::$name(subject),
                )
                .await;
            }
        )*
    };
}

/// The contract of [`sluice_bus::Bus`]: `$make` is a future of a fresh
/// `Arc<dyn Bus>` whose streams hold [`bus::STREAM_MAX_ENTRIES`].
macro_rules! bus_contract {
    ($make:expr) => {
        $crate::contract::contract!(
            bus,
            $make,
            [
                entries_keep_their_order,
                who_begins_again_gets_what_it_had,
                streams_are_apart,
                a_read_gives_no_more_than_asked,
                a_read_waits_for_the_first_entry,
                the_next_owner_gets_what_was_not_acked_first_and_in_order,
                acks_are_repeatable_and_in_any_order,
                one_owner_at_a_time,
                a_cancelled_own_takes_no_lease,
                a_cancelled_read_loses_nothing,
                consumers_share_and_inherit,
                one_append_wakes_as_many_consumers_as_it_feeds,
                a_full_up_stream_makes_producers_wait_in_turn,
                a_cancelled_append_is_whole_or_absent,
                a_down_stream_lives_as_long_as_its_owner,
                a_full_down_stream_drops_whole_batches,
                oversize_batches_are_refused_whole,
                deleting_closes_the_reader,
                lag_counts_what_is_not_acked,
                producers_and_consumers_at_full_speed,
            ]
        );
    };
}

/// The contract of [`sluice_bus::Directory`]: `$make` is a future of a fresh
/// `Arc<dyn Directory>`.
macro_rules! directory_contract {
    ($make:expr) => {
        $crate::contract::contract!(
            directory,
            $make,
            [
                a_bound_device_is_found_until_it_unbinds,
                lookups_answer_in_the_order_asked,
                the_newest_login_of_a_device_wins,
                a_repeated_bind_replaces_nobody,
                policies_say_who_is_replaced,
                the_cap_counts_live_devices_only,
                a_late_unbind_spares_the_newer_bind,
                reasserting_fills_holes_and_names_the_displaced,
                routes_die_with_their_gateway,
                a_lapsed_gateway_learns_it_and_comes_back,
                watchers_hear_the_first_and_the_last_device,
                racing_binds_leave_one_session,
                nodes_find_who_shares_their_work,
            ]
        );
    };
}

pub(crate) use {bus_contract, contract, directory_contract};
