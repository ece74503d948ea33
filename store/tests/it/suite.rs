//! What every engine must do: the same tests for each, on a store of their own.

/// One `#[tokio::test]` of each function.
macro_rules! tests {
    ($engine:expr, $module:ident, [$($name:ident,)*]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    $crate::$module::$name($engine).await;
                }
            )*
        }
    };
}
pub(crate) use tests;

/// All tests that don't ask which engine it is.
macro_rules! engine {
    ($module:ident, $engine:expr) => {
        mod $module {
            $crate::suite::tests!(
                $engine,
                group,
                [
                    a_group_is_founded_once,
                    members_see_what_lies_between_joining_and_leaving,
                    roles_and_names_change,
                    heads_go_over_all_groups_page_by_page,
                    heads_name_all_present_groups_and_those_left_last,
                    who_is_out_sees_the_name_that_was,
                ]
            );
            $crate::suite::tests!(
                $engine,
                message,
                [
                    a_private_message_goes_to_the_log_and_to_both_inboxes,
                    a_repeat_gets_the_first_answer,
                    a_message_waits_for_its_predecessor,
                    unknown_users_are_named_and_harm_nobody,
                    only_the_newest_owner_commits,
                    a_recall_wipes_the_body_and_is_an_entry_of_its_own,
                    a_second_recall_is_told_of_the_first,
                    first_answers_are_found_by_the_senders_name_for_them,
                ]
            );
            $crate::suite::tests!(
                $engine,
                pull,
                [
                    pages_are_cut_by_entries_and_by_bytes,
                    unread_counts_messages_of_others_above_the_read_cursor,
                    cursors_only_rise,
                    the_list_is_newest_first_and_paged,
                ]
            );
            $crate::suite::tests!(
                $engine,
                session,
                [
                    a_resume_token_opens_one_session_on_its_device,
                    revocation_and_ban_close_the_door,
                    without_a_place_no_resume_token_is_spent,
                    an_overtaken_login_changes_nothing,
                    the_devices_longest_unused_are_forgotten,
                ]
            );
            $crate::suite::tests!(
                $engine,
                user,
                [
                    users_are_kept_and_unique,
                    a_ban_and_a_revocation_raise_the_epoch,
                    blocks_stand_until_lifted,
                ]
            );
        }
    };
}

engine!(sqlite, crate::kit::Engine::Sqlite);
engine!(mysql, crate::kit::Engine::Mysql);
