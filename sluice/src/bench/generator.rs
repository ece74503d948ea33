//! The processes that make the load: started, fed, listened to, and ended with this
//! one. What they tell by the second is merged here.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use sluice_load::{Counts, Interval, Job, Latencies, Outcome, Told, now_ns};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{live::Live, worker::EchoKind};
use crate::{cli::Stopped, server_process::this_program};

/// A bare echo server, in a process of its own.
pub(super) struct Echo {
    /// Where it listens.
    pub(super) address: std::net::SocketAddr,
    /// Its standard input: it ends when that does.
    _child: Child,
}

/// What all generators together have come to.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) outcomes: Vec<Outcome>,
    /// By second.
    pub(super) seconds: BTreeMap<u64, Second>,
    pub(super) counts: Counts,
    pub(super) ack: Latencies,
    pub(super) recv: Latencies,
}

/// A second of the run.
#[derive(Default)]
pub(super) struct Second {
    pub(super) counts: Counts,
    pub(super) ack: Latencies,
    pub(super) recv: Latencies,
}

/// Generators at work, which go from one stage to the next together.
pub(super) struct Generators<'a> {
    all: Vec<Generator>,
    told: mpsc::Receiver<(usize, Option<Told>)>,
    live: &'a mut Live,
    shutdown: &'a CancellationToken,
    findings: Findings,
    /// Logged in, one by one.
    held: Vec<usize>,
    ready: usize,
}

struct Generator {
    child: Child,
    stdin: ChildStdin,
}

/// A generator tells something every second; this long without a word, it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// From all being ready to the first message.
const START_IN_NS: u64 = 50_000_000;
const TOLD_MAX: usize = 256;

/// Has the jobs done, a process each.
pub(super) async fn run(
    jobs: Vec<Job>,
    live: &mut Live,
    shutdown: &CancellationToken,
) -> anyhow::Result<Findings> {
    let mut generators = Generators::start(jobs, live, shutdown).await?;
    generators.ready().await?;
    generators.go().await?;
    generators.live.running();
    generators.finish().await
}

/// Why the generators have ended; each has said it on standard error.
async fn ended(generators: &mut [Generator]) -> String {
    let mut how = String::from("a generator process ended before its work was done");
    for generator in generators {
        if let Ok(Ok(status)) =
            tokio::time::timeout(Duration::from_secs(5), generator.child.wait()).await
            && !status.success()
        {
            how = format!("{how} ({status})");
            break;
        }
    }
    how
}

// === impl Generators ===

impl<'a> Generators<'a> {
    /// Starts a process a job.
    pub(super) async fn start(
        jobs: Vec<Job>,
        live: &'a mut Live,
        shutdown: &'a CancellationToken,
    ) -> anyhow::Result<Self> {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let mut all = Vec::new();
        for (index, job) in jobs.into_iter().enumerate() {
            all.push(Generator::start(index, &job, tell.clone()).await?);
        }
        live.doing("logging in");
        Ok(Self {
            held: vec![0; all.len()],
            all,
            told,
            live,
            shutdown,
            findings: Findings::default(),
            ready: 0,
        })
    }

    /// Waits until each has done its stage and waits to be told to go on.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        while self.ready < self.all.len() {
            self.hear().await?;
        }
        Ok(())
    }

    /// Lets all go on at the same moment.
    pub(super) async fn go(&mut self) -> anyhow::Result<()> {
        self.ready = 0;
        let start = format!("{}\n", now_ns() + START_IN_NS);
        for generator in &mut self.all {
            generator.stdin.write_all(start.as_bytes()).await?;
        }
        Ok(())
    }

    /// Tells people what is going on.
    pub(super) fn doing(&self, what: &'static str) {
        self.live.doing(what);
    }

    /// Waits until all have done their work.
    pub(super) async fn finish(mut self) -> anyhow::Result<Findings> {
        while self.findings.outcomes.len() < self.all.len() {
            self.hear().await?;
        }
        self.live.finish();
        Ok(self.findings)
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        let next = tokio::select! {
            next = tokio::time::timeout(SILENCE_MAX, self.told.recv()) => next,
            () = self.shutdown.cancelled() => return Err(Stopped("the end").into()),
        };
        let next = next.context("a generator process hangs: it has said nothing for a minute")?;
        let Some((index, Some(told))) = next else {
            bail!("{}", ended(&mut self.all).await);
        };
        match told {
            Told::LoggedIn(count) => {
                self.held[index] = count;
                self.live.logged_in(self.held.iter().sum());
            }
            Told::Ready => self.ready += 1,
            Told::Second(interval) => self.findings.add(&interval, self.live),
            Told::Round(server, floor) => self.live.round(server, floor),
            Told::Done(outcome) => self.findings.outcomes.push(outcome),
        }
        Ok(())
    }
}

// === impl Generator ===

impl Generator {
    async fn start(
        index: usize,
        job: &Job,
        tell: mpsc::Sender<(usize, Option<Told>)>,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(this_program()?)
            .args(["bench", "worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a generator process")?;
        let mut stdin = child.stdin.take().context("its input is piped")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let job = format!("{}\n", serde_json::to_string(job)?);
        let given = stdin.write_all(job.as_bytes()).await;
        given.context("a generator process took no job")?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(told) = serde_json::from_str(&line) else {
                    break;
                };
                let is_done = matches!(told, Told::Done(_));
                if tell.send((index, Some(told))).await.is_err() || is_done {
                    return;
                }
            }
            // Nobody who listens: then nobody needs to know.
            let _ = tell.send((index, None)).await;
        });
        Ok(Self { child, stdin })
    }
}

// === impl Findings ===

impl Findings {
    fn add(&mut self, interval: &Interval, live: &mut Live) {
        let second = self.seconds.entry(interval.second).or_default();
        for (sum, latencies, told) in [
            (&mut self.ack, &mut second.ack, &interval.ack_us),
            (&mut self.recv, &mut second.recv, &interval.recv_us),
        ] {
            sum.add(told);
            latencies.add(told);
        }
        second.counts += interval.counts;
        self.counts += interval.counts;
        live.second(interval.second, second);
    }

    /// One figure of all generators, summed.
    pub(super) fn sum(&self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(figure).sum()
    }

    /// One count of all generators, summed.
    pub(super) fn total(&self, count: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(count).sum()
    }

    /// How long was measured.
    pub(super) fn measured_s(&self) -> f64 {
        let all = self.outcomes.iter().map(|it| it.measured_s);
        all.fold(0.0, f64::max)
    }

    /// From the first message until the last was acked and received.
    pub(super) fn whole_s(&self) -> f64 {
        let all = self.outcomes.iter().map(|it| it.whole_s);
        all.fold(f64::MIN_POSITIVE, f64::max)
    }

    /// CPU of one of the servers; each generator has looked at the same ones.
    pub(super) fn server_cpu_s(&self, at: usize) -> f64 {
        let first = self.outcomes.first();
        let cpu_s = first.and_then(|it| it.server_cpu_s.get(at));
        cpu_s.copied().unwrap_or_default()
    }
}

// === impl Echo ===

impl Echo {
    /// Starts one, on a core of its own if that is wanted.
    pub(super) async fn start(core: Option<usize>, kind: EchoKind) -> anyhow::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.args(["bench", "echo", "--kind", kind.name()]);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the bare echo server")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .context("the bare echo server was not ready in time")??;
        let address = first.context("the bare echo server ended by itself")?;
        Ok(Self {
            address: address.parse()?,
            _child: child,
        })
    }
}
