//! `kill -9` in the middle of the load: what was acknowledged is there, once.
//!
//! The test runs itself as a child process, which commits from several tasks
//! and writes a line for each acknowledged message. The parent kills it after a
//! number of lines, opens the folder and holds it against the lines. (The kernel
//! lives on here; what a power cut does is shown in `tests/power`.)

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use sluice_protocol::{ClientMsgId, ConversationId, MessageId, Partition, Seq, UserId, UserSeq};
use sluice_store::{
    Commit, Content, NewEntry, Outcome, SqliteConfig, SqliteStore, Store, StoreError,
};

use crate::kit::{PAGE, START_MS, new_user, text, user};

const FOLDER: &str = "SLUICE_STORE_CRASH_FOLDER";
const ROUND: &str = "SLUICE_STORE_CRASH_ROUND";
const TASKS: u16 = 6;

/// Lines after which the child is killed, round by round.
const KILL_AFTER_LINES: [usize; 6] = [1, 400, 37, 1_500, 3, 900];

fn name(number: u16) -> UserId {
    user(&format!("user-{number}"))
}

/// Private conversations that cross: every user is in several partitions' batches.
fn target(task: u16, number: u64) -> (UserId, ConversationId) {
    let sender = name(task);
    let other = name((task + 1 + (number % u64::from(TASKS - 1)) as u16) % TASKS);
    let conversation = ConversationId::private(&sender, &other).unwrap();
    (sender, conversation)
}

fn message(round: u64, task: u16, number: u64) -> NewEntry {
    let (sender, conversation) = target(task, number);
    let mut random = [0; 10];
    random[1] = task as u8;
    random[2..].copy_from_slice(&number.to_be_bytes());
    NewEntry {
        conversation,
        sender,
        client_msg_id: ClientMsgId::new(START_MS + round, random),
        predecessor: None,
        message_id: MessageId((round << 40) | (u64::from(task) << 32) | number),
        server_time_ms: START_MS + number,
        content: text(&format!("{round} {task} {number}")),
    }
}

/// Not a test by itself: what the child process does until it is killed.
#[test]
fn child() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(Path::new(&folder), &SqliteConfig::default()).unwrap();
        let store = Arc::new(store);
        for number in 0..TASKS {
            match store.create_user(new_user(name(number).as_str())).await {
                Ok(()) | Err(StoreError::UserExists(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| tokio::spawn(commit_for_ever(Arc::clone(&store), round, task)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn commit_for_ever(store: Arc<SqliteStore>, round: u64, task: u16) {
    let partition = Partition(task);
    let epoch = store.take_partition(partition).await.unwrap();
    for batch in 0_u64.. {
        let numbers = batch * 3..batch * 3 + 3;
        let entries = numbers.map(|number| message(round, task, number));
        let commit = Commit {
            partition,
            epoch,
            entries: entries.collect(),
        };
        let outcomes = store.commit(commit).await.unwrap();
        for (number, outcome) in (batch * 3..).zip(outcomes) {
            let Outcome::Stored(stored) = outcome else {
                panic!("{outcome:?}");
            };
            let line = format!(
                "acked {round} {task} {number} {} {} {}\n",
                stored.seq, stored.inbox[0].1, stored.inbox[1].1
            );
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// (round, task, number) → (seq, first party's user seq, second's).
type Acked = HashMap<(u64, u16, u64), (Seq, UserSeq, UserSeq)>;

fn run_child_and_kill(folder: &Path, round: u64, lines: usize, acked: &mut Acked) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        // The test harness writes lines of its own, some of them unfinished.
        if let Some(at) = line.find("acked ") {
            let fields: Vec<u64> = line[at + 6..]
                .split_whitespace()
                .map(|field| field.parse().unwrap())
                .collect();
            let [round, task, number, seq, first, second] = fields[..] else {
                panic!("{line}");
            };
            let answer = (Seq(seq), UserSeq(first), UserSeq(second));
            acked.insert((round, task as u16, number), answer);
            seen += 1;
            if seen == lines {
                child.kill().unwrap(); // SIGKILL
            }
        }
        line.clear();
    }
    assert!(seen >= lines, "the child ended by itself");
    child.wait().unwrap();
}

async fn check(folder: &Path, acked: &Acked) {
    let store = SqliteStore::open(folder, &SqliteConfig::default()).unwrap();
    for number in 0..TASKS {
        let mut after = UserSeq(0);
        let mut last = HashMap::new();
        loop {
            let page = store.inbox(&name(number), after, PAGE).await.unwrap();
            for (user_seq, entry) in page.entries {
                assert_eq!(user_seq.0, after.0 + 1, "no gap in an inbox");
                after = user_seq;
                let seq = last.entry(entry.conversation).or_insert(0);
                *seq += 1;
                assert_eq!(entry.seq.0, *seq, "no gap, no double in a log");
            }
            if !page.more {
                break;
            }
        }
        assert!(last.len() < usize::from(TASKS));
    }
    for (&(round, task, number), &(seq, first, second)) in acked {
        let sent = message(round, task, number);
        let kept = store.entries(&[(sent.conversation.clone(), seq)]).await;
        let kept = kept.unwrap().remove(0).expect("an acked message");
        assert_eq!(kept.message_id, sent.message_id);
        assert!(matches!(&kept.content, Content::Message { .. } if kept.content == sent.content));
        // A client that lost the ack asks again and gets the first answer.
        if number % 16 == 0 {
            let partition = Partition(task);
            let commit = Commit {
                partition,
                epoch: store.take_partition(partition).await.unwrap(),
                entries: vec![sent],
            };
            let outcome = store.commit(commit).await.unwrap().remove(0);
            let Outcome::Duplicate(stored) = outcome else {
                panic!("{outcome:?}");
            };
            let inbox = (stored.inbox[0].1, stored.inbox[1].1);
            assert_eq!((stored.seq, inbox), (seq, (first, second)));
        }
    }
}

#[test]
fn what_was_acked_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut acked = Acked::new();
    for (round, lines) in (1..).zip(KILL_AFTER_LINES) {
        run_child_and_kill(folder.path(), round, lines, &mut acked);
        runtime.block_on(check(folder.path(), &acked));
    }
    assert!(acked.len() >= KILL_AFTER_LINES.iter().sum());
}
