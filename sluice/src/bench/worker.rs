//! A generator's process: reads its job from standard input, tells how it goes on
//! standard output, a JSON object a line, and ends when its parent does.

use std::{
    io::{BufRead as _, StdoutLock, Write as _},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::Context;
use sluice_load::{Control, DatagramEcho, EchoServer, Job, LoadTransport, Told, cores};

/// The parent, as a worker hears it.
struct Parent {
    out: StdoutLock<'static>,
    heard: &'static Heard,
}

/// What has come on standard input so far.
struct Heard {
    has_gone: AtomicBool,
    /// 0 while that isn't known, and once it was told.
    start_ns: AtomicU64,
}

static HEARD: Heard = Heard {
    has_gone: AtomicBool::new(false),
    start_ns: AtomicU64::new(0),
};

/// Does the job that stands on standard input's first line. Each further line says when
/// to go on; its end, to stop.
pub fn run() -> anyhow::Result<()> {
    let mut job = String::new();
    std::io::stdin()
        .read_line(&mut job)
        .context("a worker is given its job by the bench")?;
    let job: Job = serde_json::from_str(&job)?;
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(|| {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if let Ok(start_ns) = line.parse() {
                    HEARD.start_ns.store(start_ns, Ordering::Release);
                }
            }
            HEARD.has_gone.store(true, Ordering::Release);
        })?;
    let mut parent = Parent {
        out: std::io::stdout().lock(),
        heard: &HEARD,
    };
    let outcome = job.run(&mut parent)?;
    parent.tell(Told::Done(outcome));
    Ok(())
}

/// A bare server to hold the gateway against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EchoKind {
    /// Says to a connection what it says.
    Streams,
    /// Says to all connections what one says, by packets over TCP.
    TcpBroadcast,
    /// Likewise, by WebSocket messages.
    WsBroadcast,
    /// Sends datagrams back.
    Datagrams,
}

/// Echoes on a free port, which it prints, until its standard input ends.
pub fn echo(core: Option<usize>, kind: EchoKind) -> anyhow::Result<()> {
    if let Some(core) = core {
        cores::pin(None, core)?;
    }
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(|| {
            // Nothing is said there; it ends with the parent.
            std::io::stdin().lock().lines().for_each(drop);
            std::process::exit(0);
        })?;
    let tell = |address: SocketAddr| writeln!(std::io::stdout(), "{address}");
    let broadcasts = match kind {
        EchoKind::Streams => None,
        EchoKind::TcpBroadcast => Some(LoadTransport::Tcp),
        EchoKind::WsBroadcast => Some(LoadTransport::WebSocket),
        EchoKind::Datagrams => {
            let server = DatagramEcho::bind()?;
            tell(server.address()?)?;
            return Ok(server.run()?);
        }
    };
    let server = EchoServer::bind(broadcasts)?;
    tell(server.address()?)?;
    Ok(server.run()?)
}

// === impl EchoKind ===

impl EchoKind {
    /// As the command line has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::TcpBroadcast => "tcp-broadcast",
            Self::WsBroadcast => "ws-broadcast",
            Self::Datagrams => "datagrams",
        }
    }
}

// === impl Parent ===

impl Control for Parent {
    fn tell(&mut self, told: Told) {
        let line = serde_json::to_string(&told).unwrap_or_default();
        if writeln!(self.out, "{line}")
            .and_then(|()| self.out.flush())
            .is_err()
        {
            self.heard.has_gone.store(true, Ordering::Release);
        }
    }

    fn goes_on(&self) -> bool {
        !self.heard.has_gone.load(Ordering::Acquire)
    }

    fn start_ns(&self) -> Option<u64> {
        match self.heard.start_ns.swap(0, Ordering::AcqRel) {
            0 => None,
            start_ns => Some(start_ns),
        }
    }
}
