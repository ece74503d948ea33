//! `sluice timeline`: follows messages through a running system and tells where their
//! time goes.

mod joined;

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use sluice_protocol::{ConnectionId, UserId};
use sluice_trace::{FOR_MAX_S, MESSAGES_MAX, Order, Watch};
use tokio_util::sync::CancellationToken;

use joined::{Joined, Told};

/// Follow messages through all stages and tell where their time goes
///
/// Asks the admin API of a running server. Each process tells the stages that it
/// sees: of a cluster, name all gateways and services by --server; then what they
/// tell is joined by their clocks. Nothing is followed any more when this ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice timeline --user alice --for 10\n  \
    sluice timeline --sample 100 --messages 1000 --for 30\n  \
    sluice timeline --server 10.0.0.1:8081 --server 10.0.0.2:8081 --user alice\n\n\
    Stages, in microseconds: read (from the sender's socket), decode, lane (through the\n\
    pipeline), append (handed to the bus), take (by the partition's owner), check (passed),\n\
    commit (stored), emit (handed to the gateways' streams); then ack (in the sender's\n\
    output), ack_write (on its socket), and for each connection it is pushed to push,\n\
    push_write and push_ack (the client says that it has it). Over UDP, written is what the\n\
    session has taken.")]
pub struct Args {
    /// Admin address of a process; several times for those of a cluster
    #[arg(long = "server", value_name = "ADDR", default_value = "127.0.0.1:8081")]
    servers: Vec<String>,
    /// The messages that this user sends
    #[arg(long, value_name = "USER", conflicts_with_all = ["connection", "sample"])]
    user: Option<String>,
    /// The messages that come by this connection, as /admin/connections calls it
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    connection: Option<String>,
    /// One message in N, the same ones in all processes [default: 1, which is all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// At most so many messages
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX as u64))]
    messages: u64,
    /// For so many seconds, or until Ctrl-C
    #[arg(long = "for", value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=FOR_MAX_S))]
    for_s: u64,
    /// The token of the admin API, where it has one
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SLUICE_ADMIN_TOKEN",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    token: String,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// The admin APIs of all processes that were named.
struct Processes {
    http: reqwest::Client,
    urls: Vec<String>,
    token: String,
}

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the last messages' acks.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let order = args.order()?;
    let processes = Processes::new(&args)?;
    let followed = follow(&processes, &order, &shutdown).await;
    // Whatever went wrong, nobody is to go on.
    let forgotten = processes.forget().await;
    let joined = followed?;
    forgotten?;
    if args.json {
        writeln!(
            std::io::stdout(),
            "{}",
            serde_json::to_string(&joined.report())?
        )?;
    } else {
        write!(std::io::stdout(), "{}", joined.report().text())?;
    }
    Ok(match joined.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

async fn follow(
    processes: &Processes,
    order: &Order,
    shutdown: &CancellationToken,
) -> anyhow::Result<Joined> {
    processes.begin(order).await?;
    eprintln!(
        "following for {} s; Ctrl-C ends it and tells what was seen",
        order.for_s
    );
    let watching = tokio::time::sleep(Duration::from_secs(order.for_s));
    shutdown.run_until_cancelled(watching).await;
    tokio::time::sleep(SETTLE).await;
    let mut joined = Joined::default();
    for told in processes.read().await? {
        joined.add(told);
    }
    Ok(joined)
}

// === impl Args ===

impl Args {
    fn order(&self) -> anyhow::Result<Order> {
        let watch = match (&self.user, &self.connection) {
            (Some(user), _) => Watch::User(UserId::parse(user)?),
            (None, Some(text)) => Watch::Connection(ConnectionId::parse_text(text)?),
            (None, None) => Watch::OneIn(self.sample.unwrap_or(1)),
        };
        Ok(Order {
            watch,
            for_s: self.for_s,
            messages_max: usize::try_from(self.messages)?,
        })
    }
}

// === impl Processes ===

impl Processes {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let urls = args.servers.iter().map(|server| {
            let server = server.trim_start_matches("http://").trim_end_matches('/');
            format!("http://{server}/admin/timelines")
        });
        Ok(Self {
            http,
            urls: urls.collect(),
            token: args.token.clone(),
        })
    }

    async fn begin(&self, order: &Order) -> anyhow::Result<()> {
        for url in &self.urls {
            self.ask(url, self.http.post(url).json(order)).await?;
        }
        Ok(())
    }

    async fn read(&self) -> anyhow::Result<Vec<Told>> {
        let mut all = Vec::new();
        for url in &self.urls {
            let answer = self.ask(url, self.http.get(url)).await?;
            let told = answer.json::<Told>().await;
            all.push(told.with_context(|| format!("{url} does not tell timelines"))?);
        }
        Ok(all)
    }

    /// Asks all of them, also when one does not answer.
    async fn forget(&self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for url in &self.urls {
            let answer = self.ask(url, self.http.delete(url)).await;
            outcome = outcome.and(answer.map(drop));
        }
        outcome
    }

    async fn ask(
        &self,
        url: &str,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<reqwest::Response> {
        let request = match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        };
        let answer = request.send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| format!("no admin API at {url}"))?;
        let status = answer.status();
        if !status.is_success() {
            let why = answer.text().await.unwrap_or_default();
            bail!("{url}: {status} {why}");
        }
        Ok(answer)
    }
}
