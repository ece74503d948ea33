//! The command line: one file a command in `commands/`.

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::commands::{
    bench, chat, dead_letters, demo, keygen, keys, migrate, months, recv, send, serve, timeline,
};

/// An instant-messaging gateway and the backend behind it.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, max_term_width = 100)]
#[command(
    after_help = "Try `sluice demo`: it starts everything, replays real conversations and \
    checks that nothing was lost, doubled or out of order.\n\n\
    Exit status: 0 when what the command promises held, 1 when not, 2 for a wrong command line, \
    130 when Ctrl-C or SIGTERM stopped it before that, 141 when whoever read its output has gone. \
    What runs until it is stopped (serve, gateway, service, chat, recv) ends with 0 then.\n\n\
    Logs go to standard error; RUST_LOG=sluice=debug shows more."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Gateway(serve::GatewayArgs),
    Service(serve::ServiceArgs),
    Keys(keys::Args),
    Keygen(keygen::Args),
    Migrate(migrate::Args),
    Months(months::Args),
    DeadLetters(dead_letters::Args),
    Timeline(timeline::Args),
    // Boxed, as it is much larger than the others.
    Demo(Box<demo::Args>),
    Chat(chat::Args),
    Send(send::Args),
    Recv(recv::Args),
    Bench(bench::Args),
}

/// Ctrl-C or SIGTERM came before what it names.
#[derive(Debug, thiserror::Error)]
#[error("stopped before {0}")]
pub struct Stopped(pub &'static str);

/// What the command line asks for can't be, and how it could: for what its grammar
/// doesn't see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

/// As clap ends for a wrong command line.
const WRONG_USE: u8 = 2;
/// As a shell has it for a program that Ctrl-C ended, and for one that wrote
/// where nobody reads.
const STOPPED: u8 = 130;
const UNREAD: u8 = 141;

/// Runs a command to its end, or until Ctrl-C or SIGTERM.
pub fn run(cli: Cli) -> ExitCode {
    let default = match &cli.command {
        Command::Serve(_) | Command::Gateway(_) | Command::Service(_) => "info",
        Command::Demo(_)
        | Command::Bench(_)
        | Command::Keys(_)
        | Command::Keygen(_)
        | Command::Migrate(_)
        | Command::Months(_)
        | Command::DeadLetters(_)
        | Command::Timeline(_) => "warn",
        // They tell what matters themselves; a log would fall among the messages.
        Command::Chat(_) | Command::Send(_) | Command::Recv(_) => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for people; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
        let result = match cli.command {
            Command::Serve(args) => serve::run(args, shutdown).await,
            Command::Gateway(args) => serve::run_gateway(args, shutdown).await,
            Command::Service(args) => serve::run_services(args, shutdown).await,
            Command::Keys(args) => keys::run(args),
            Command::Keygen(args) => keygen::run(args),
            Command::Migrate(args) => migrate::run(args, shutdown.clone()).await,
            Command::Months(args) => months::run(args, shutdown.clone()).await,
            Command::DeadLetters(args) => dead_letters::run(args, shutdown).await,
            Command::Timeline(args) => timeline::run(args, shutdown).await,
            Command::Demo(args) => demo::run(*args, shutdown).await,
            Command::Chat(args) => chat::run(args, shutdown).await,
            Command::Send(args) => send::run(args, shutdown).await,
            Command::Recv(args) => recv::run(args, shutdown).await,
            Command::Bench(args) => bench::run(args, shutdown).await,
        };
        signals.abort();
        result
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(code) => code,
        // An error of standard output alone: others stand behind what was tried.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(UNREAD),
        Err(error) if error.chain().any(|cause| cause.is::<Stopped>()) => {
            eprintln!("{error:#}");
            ExitCode::from(STOPPED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.is::<WrongUse>() {
                true => ExitCode::from(WRONG_USE),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The first Ctrl-C or SIGTERM asks to stop; the second one doesn't ask.
async fn cancel_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if shutdown.is_cancelled() {
            std::process::exit(STOPPED.into());
        }
        shutdown.cancel();
    }
}
