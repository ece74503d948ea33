//! `sluice serve`.

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ANNOTATED, Config},
    standalone::{Addresses, Standalone},
};

/// Run everything in one process, with its data in one folder
///
/// When it is ready, the first line on standard output is a JSON object that
/// says where it listens. Ctrl-C or SIGTERM lets clients go and exits 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (see --print-config) [default: built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything that must survive [default: sluice-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the HTTP APIs listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Where health and metrics listen [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where TCP clients connect [default: 0.0.0.0:8900]
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// Where WebSocket clients connect [default: 0.0.0.0:8902]
    #[arg(long, value_name = "ADDR")]
    ws: Option<SocketAddr>,
    /// Print the annotated default configuration and exit
    #[arg(long)]
    print_config: bool,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    #[serde(flatten)]
    addresses: &'a Addresses,
    pid: u32,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    if args.print_config {
        std::io::stdout().write_all(ANNOTATED.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = Config::read(args.config.as_deref())?;
    config.data_dir = args.data_dir.unwrap_or(config.data_dir);
    config.http_address = args.http.unwrap_or(config.http_address);
    config.gateway.admin_address = args.admin.or(config.gateway.admin_address);
    config.gateway.tcp_address = args.tcp.or(config.gateway.tcp_address);
    config.gateway.ws_address = args.ws.or(config.gateway.ws_address);

    let system = Standalone::start(config).await?;
    let ready = Ready {
        ready: true,
        addresses: &system.addresses,
        pid: std::process::id(),
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&ready)?)?;
    stdout.flush()?;
    shutdown.cancelled().await;
    tracing::info!("draining");
    system.stop().await?;
    Ok(ExitCode::SUCCESS)
}
