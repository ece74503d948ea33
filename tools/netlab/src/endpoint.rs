//! One end of a comparison as a process of its own, so that its CPU can be told apart.
//!
//! Talks in lines: says `listening INVITATION` (the server), `connected`, `done` and at last
//! `outcome JSON`; is told `go MICROSECONDS` and `stop`. The end of its standard input is a `stop`.

use crate::clock::cpu_us;
use crate::session::{Event, Load, Order, Outcome, Role, Session};
use crate::transport::{self, Invitation, Transport};
use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::{Write, stdout};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    transport: Transport,
    #[arg(long)]
    messages: u32,
    #[arg(long)]
    per_second: u32,
    #[arg(long)]
    message_bytes: usize,
    /// Where the server listens.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// What the server said; makes this the client.
    #[arg(long)]
    invitation: Option<String>,
}

/// The last line of an end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// From when told to go to the end.
    pub(crate) cpu_us: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let load = Load {
        messages: arguments.messages,
        per_second: arguments.per_second,
        message_bytes: arguments.message_bytes,
    };
    let role = match arguments.invitation {
        Some(_) => Role::Client,
        None => Role::Server,
    };
    let (orders, receiver) = mpsc::channel(2);
    let reader = tokio::spawn(read_orders(orders));
    let mut session = Session::new(role, load, receiver, tell);
    match arguments.invitation {
        Some(invitation) => {
            let invitation: Invitation =
                serde_json::from_str(&invitation).context("--invitation")?;
            transport::connect(arguments.transport, &invitation, &mut session).await?;
        }
        None => {
            let listen = arguments
                .listen
                .context("the server needs an address to listen on")?;
            let invite = |invitation: Invitation| {
                let text = serde_json::to_string(&invitation)?;
                writeln!(stdout(), "listening {text}").context("cannot speak")
            };
            transport::serve(arguments.transport, listen, invite, &mut session).await?;
        }
    }
    let began_us = reader.await?.unwrap_or_default();
    let report = Report {
        cpu_us: cpu_us() - began_us,
        outcome: session.outcome(),
    };
    writeln!(stdout(), "outcome {}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// Passes orders on; returns how much CPU was used before the end was told to go.
async fn read_orders(orders: mpsc::Sender<Order>) -> Option<u64> {
    let mut lines = BufReader::new(stdin()).lines();
    let mut began_us = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let order = match line.strip_prefix("go ").map(str::parse) {
            Some(Ok(start_us)) => {
                began_us = Some(cpu_us());
                Order::Go { start_us }
            }
            _ => break,
        };
        if orders.send(order).await.is_err() {
            break;
        }
    }
    // Nobody listens any more, when that fails.
    let _ = orders.send(Order::Stop).await;
    began_us
}

fn tell(event: Event) {
    let word = match event {
        Event::Connected => "connected",
        Event::Done => "done",
    };
    // Whoever doesn't listen any more has no use for the outcome either.
    let _ = writeln!(stdout(), "{word}");
}
