//! A flash sale through the gateway: thousands of buyers, a few pieces, one
//! moment. Shows that the gateway is no chat-only thing.
//!
//! Starts a private Redis, `sluice serve` on it (this program again, as a process
//! of its own), and the backend in Python (`examples/python/flash_sale.py`). The
//! buyers connect by TCP, wait for each other, and ask all at once. Whoever gets
//! no answer asks again, and some ask again anyway: the shop must answer as
//! before. With `--kill` the backend is killed in the midst and started again.
//!
//! Judged by what the buyers hear, and by nothing else: exactly as many pieces
//! are sold as there were, each order number once, and everybody hears an answer.
//! Each buyer is an open file here and one in the server.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::Serialize;
use sluice::{
    cli::{self, Cli},
    server_process::{self, Process},
    token_keys,
};
use sluice_client::{CallError, Client, DeviceId, Endpoint, Event, EventStream, UserId};
use sluice_engines::{GuardedFolder, Redis};
use sluice_store::{NewUser, SqliteConfig, SqliteStore, Store};
use tokio::{process::Command, sync::Notify, task::JoinSet};

/// Many buyers, a few pieces, one moment.
#[derive(Debug, Parser)]
struct Args {
    /// Buyers, each a user with a connection of their own
    #[arg(long, default_value_t = 10_000)]
    buyers: usize,
    /// Pieces
    #[arg(long, default_value_t = 100)]
    stock: usize,
    /// Kill the backend when a third of the buyers have heard, and start it again
    #[arg(long)]
    kill: bool,
}

/// What the buyers heard.
#[derive(Debug, Serialize)]
struct Report {
    buyers: usize,
    stock: usize,
    sold: usize,
    sold_out: usize,
    /// Orders above the stock.
    oversold: usize,
    /// Order numbers that two buyers hold, or that changed when asked for again.
    doubled: usize,
    /// Buyers who never heard an answer.
    unanswered: usize,
    /// Requests that were repeated, since no answer came or to see whether it stays.
    asked_again: usize,
    connect_s: f64,
    sale_s: f64,
    answer_p50_ms: u64,
    answer_p99_ms: u64,
    ok: bool,
}

/// One buyer, connected.
struct Buyer {
    user: UserId,
    client: Client,
    _events: EventStream,
}

/// What one buyer heard.
struct Heard {
    order: Option<usize>,
    /// The answer to the same question once more.
    again: Option<Option<usize>>,
    tries: usize,
    waited: Duration,
}

const SERVICE: &str = "flash-sale";
const ITEM: &str = "lamp";
/// One request's patience; then it is asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const TRIES_MAX: usize = 6;
/// Logins on their way at once.
const OPENING_MAX: usize = 128;
/// How long a dead backend's partitions stay with it.
const LEASE_MS: &str = "1000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return cli::run(Cli::parse());
    }
    let args = Args::parse();
    let sold = tokio::runtime::Runtime::new()
        .context("cannot start threads")
        .and_then(|runtime| runtime.block_on(sell(args)));
    match sold {
        Ok(report) if report.ok => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn sell(args: Args) -> anyhow::Result<Report> {
    let redis = Redis::start().await?;
    // What is noted in it goes when this process does, however it ends.
    let folder = Arc::new(GuardedFolder::new("sluice-sale-")?);
    let users = add_users(folder.path(), args.buyers).await?;
    let server = start_server(&folder, &redis.url()).await?;
    let address = server.addresses.tcp.as_deref().context("no TCP address")?;
    let endpoint = Endpoint::tcp(address.parse()?);
    let python = python().await?;
    let open_shop = || shop(&python, &redis.url(), args.stock, &folder);
    let mut backend = open_shop()?;

    eprintln!("{} buyers connect", args.buyers);
    let began = Instant::now();
    let buyers: Vec<Buyer> = stream::iter(users)
        .map(|(user, token)| connect(user, token, endpoint.clone()))
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await?;
    let connect_s = began.elapsed().as_secs_f64();

    eprintln!("the sale begins: {} pieces", args.stock);
    let began = Instant::now();
    let start = Arc::new(Notify::new());
    let answered = Arc::new(AtomicUsize::new(0));
    let mut sale = JoinSet::new();
    for (number, buyer) in buyers.into_iter().enumerate() {
        // Stands at the start from here on, whenever its task is first polled.
        let started = Arc::clone(&start).notified_owned();
        let answered = Arc::clone(&answered);
        sale.spawn(async move {
            started.await;
            let heard = buy(&buyer, number % 4 == 0).await;
            answered.fetch_add(1, Ordering::Relaxed);
            // The connection stays until the end, as the others' do.
            (buyer, heard)
        });
    }
    start.notify_waiters();
    if args.kill {
        while answered.load(Ordering::Relaxed) * 3 < args.buyers {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        backend.kill().await?;
        eprintln!("the backend was killed, and is started again");
        backend = open_shop()?;
    }
    let heard = sale.join_all().await;
    let sale_s = began.elapsed().as_secs_f64();
    let report = judge(
        &args,
        heard.into_iter().map(|(_, heard)| heard),
        connect_s,
        sale_s,
    )?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    backend.kill().await?;
    server.stop().await?;
    Ok(report)
}

/// Asks until an answer comes; `None` when none ever did.
async fn buy(buyer: &Buyer, twice: bool) -> anyhow::Result<Option<Heard>> {
    let began = Instant::now();
    for tries in 1..=TRIES_MAX {
        match ask(buyer).await? {
            Some(order) => {
                let waited = began.elapsed();
                let again = if twice { ask(buyer).await? } else { None };
                return Ok(Some(Heard {
                    order,
                    again,
                    tries,
                    waited,
                }));
            }
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    Ok(None)
}

/// One request: the order's number, or sold out. `None`: no answer, ask again.
async fn ask(buyer: &Buyer) -> anyhow::Result<Option<Option<usize>>> {
    let key = buyer.user.as_str().to_owned();
    match buyer
        .client
        .request(SERVICE, key, ITEM, ANSWER_TIMEOUT)
        .await
    {
        Ok(answer) if answer.status == 0 => {
            let number = std::str::from_utf8(&answer.payload)?;
            Ok(Some(Some(number.parse().context("an order's number")?)))
        }
        Ok(answer) if answer.status == 1 => Ok(Some(None)),
        Ok(answer) => bail!("status {}", answer.status),
        // Busy, timed out, cut off: whether it was done, the next answer tells.
        Err(CallError::Refused(_) | CallError::Timeout | CallError::ConnectionLost) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn judge(
    args: &Args,
    heard: impl Iterator<Item = anyhow::Result<Option<Heard>>>,
    connect_s: f64,
    sale_s: f64,
) -> anyhow::Result<Report> {
    let mut waits = Histogram::<u64>::new(3)?;
    let mut holders: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut sold_out, mut changed, mut unanswered, mut asked_again) = (0, 0, 0, 0);
    for heard in heard {
        let Some(heard) = heard? else {
            unanswered += 1;
            asked_again += TRIES_MAX - 1;
            continue;
        };
        waits.record(heard.waited.as_millis() as u64)?;
        asked_again += heard.tries - 1 + usize::from(heard.again.is_some());
        changed += usize::from(heard.again.is_some_and(|again| again != heard.order));
        match heard.order {
            Some(order) => *holders.entry(order).or_default() += 1,
            None => sold_out += 1,
        }
    }
    let sold: usize = holders.values().sum();
    let doubled = changed + holders.values().filter(|holders| **holders > 1).count();
    let numbered = holders.keys().copied().eq(1..=args.stock.min(args.buyers));
    Ok(Report {
        buyers: args.buyers,
        stock: args.stock,
        sold,
        sold_out,
        oversold: sold.saturating_sub(args.stock),
        doubled,
        unanswered,
        asked_again,
        connect_s,
        sale_s,
        answer_p50_ms: waits.value_at_quantile(0.5),
        answer_p99_ms: waits.value_at_quantile(0.99),
        ok: numbered && doubled == 0 && unanswered == 0 && sold + sold_out == args.buyers,
    })
}

async fn connect(user: UserId, token: String, endpoint: Endpoint) -> anyhow::Result<Buyer> {
    let (client, mut events) = Client::builder(user.clone(), DeviceId::parse("phone")?)
        .server(endpoint)
        .token(token)
        .start()?;
    let connected = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Connected { .. }) {
                return Ok(());
            }
        }
        bail!("the client of {user} has ended")
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connected)
        .await
        .context("a buyer could not connect in time")??;
    Ok(Buyer {
        user,
        client,
        _events: events,
    })
}

/// Straight into the store of a server that hasn't started, with tokens minted by
/// its key: thousands of password hashes would be no part of the sale.
async fn add_users(data_dir: &Path, count: usize) -> anyhow::Result<Vec<(UserId, String)>> {
    let store = SqliteStore::open(data_dir, &SqliteConfig::default())?;
    let signer = token_keys::open_signer(data_dir)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now_ms = now.as_millis() as u64;
    stream::iter(0..count)
        .map(|number| async move { Ok::<_, anyhow::Error>(UserId::parse(&format!("buyer-{number}"))?) })
        .map(|user| {
            let (store, signer) = (&store, &signer);
            async move {
                let user = user.await?;
                store
                    .create_user(NewUser {
                        id: user.clone(),
                        username: user.to_string(),
                        password_hash: "-".to_owned(), // no password has this hash
                        created_ms: now_ms,
                    })
                    .await?;
                let (token, _) = signer.sign(&user, 0, now_ms, 3_600_000)?;
                Ok((user, token))
            }
        })
        .buffer_unordered(512)
        .try_collect()
        .await
}

async fn start_server(folder: &Arc<GuardedFolder>, redis: &str) -> anyhow::Result<Process> {
    let config = folder.path().join("sluice.toml");
    let text = format!(
        "{}\n[gateway.requests]\nservices = [{SERVICE:?}]\n[bus.redis]\nurls = [{redis:?}]\n",
        server_process::CONFIG
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env("RUST_LOG", "warn");
    command.args(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args([
        "--tcp",
        "127.0.0.1:0",
        "--ws",
        "127.0.0.1:0",
        "--udp",
        "127.0.0.1:0",
    ]);
    command.arg("--config").arg(&config);
    command.arg("--data-dir").arg(folder.path());
    Process::start(&mut command, "server", folder).await
}

/// Python with the packages; made at the first time.
async fn python() -> anyhow::Result<PathBuf> {
    let mut setup = Command::new(examples().join("setup"));
    let output = setup.stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        bail!("examples/python/setup failed");
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn shop(
    python: &Path,
    redis: &str,
    stock: usize,
    folder: &GuardedFolder,
) -> anyhow::Result<tokio::process::Child> {
    let mut command = Command::new(python);
    command.arg(examples().join("flash_sale.py"));
    command.args(["--redis", redis, "--item", ITEM, "--lease-ms", LEASE_MS]);
    command.arg("--stock").arg(stock.to_string());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().context("cannot start the backend")?;
    if let Some(pid) = child.id() {
        folder.note("shop", pid)?;
    }
    Ok(child)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python")
}
