//! `sluice serve`, and the roles: `sluice gateway`, `sluice service`.

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::bail;
use serde::Serialize;
use sluice_services::Roles;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ANNOTATED, Config},
    node::{Addresses, Node, Role},
};

/// Run everything in one process, with its data in one folder
///
/// When it is ready, the first line on standard output is a JSON object that
/// says where it listens. Ctrl-C or SIGTERM lets clients go and exits 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    clients: ClientAddresses,
    /// Where the HTTP APIs listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    http: Option<SocketAddr>,
    /// Where health and metrics listen [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
    /// Print the annotated default configuration and exit
    #[arg(long)]
    print_config: bool,
}

/// Run a gateway of a cluster: it holds client connections
///
/// Needs [bus.redis] and [store.mysql] in the configuration. When it is ready,
/// the first line on standard output is a JSON object that says where it
/// listens. Ctrl-C or SIGTERM lets clients go and exits 0.
#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    clients: ClientAddresses,
    /// Where health and metrics listen [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
}

/// Run services of a cluster: accounts, messages, groups and their HTTP APIs
///
/// Needs [bus.redis] and [store.mysql] in the configuration. When it is ready,
/// the first line on standard output is a JSON object that says where it
/// listens. Ctrl-C or SIGTERM finishes what is under way and exits 0.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    place: Place,
    /// Which of them: user, message, group [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SERVICES")]
    only: Vec<String>,
    /// Where the HTTP APIs listen [default: 127.0.0.1, port 8090 for user, 8100
    /// for message and group, 8080 for all]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    http: Option<SocketAddr>,
    /// Where health and metrics listen [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
}

/// Where settings and data are.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Configuration file (see `sluice serve --print-config`) [default: built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything that must survive [default: sluice-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Where clients connect.
#[derive(Debug, clap::Args)]
struct ClientAddresses {
    /// Where TCP clients connect, or off; port 0 takes a free one [default: 0.0.0.0:8900]
    #[arg(long, value_name = "ADDR", value_parser = address_or_off)]
    tcp: Option<Listen>,
    /// Where WebSocket clients connect, or off [default: 0.0.0.0:8902]
    #[arg(long, value_name = "ADDR", value_parser = address_or_off)]
    ws: Option<Listen>,
    /// Where UDP clients connect, or off [default: 0.0.0.0:8901]
    #[arg(long, value_name = "ADDR", value_parser = address_or_off)]
    udp: Option<Listen>,
}

/// Where to listen, if anywhere.
#[derive(Debug, Clone, Copy)]
struct Listen(Option<SocketAddr>);

fn address_or_off(text: &str) -> Result<Listen, String> {
    match text {
        "off" => Ok(Listen(None)),
        text => address(text).map(|it| Listen(Some(it))),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let parsed = text.parse();
    parsed.map_err(|_| "an address and a port are wanted, such as 127.0.0.1:8901".to_owned())
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    #[serde(flatten)]
    addresses: &'a Addresses,
    pid: u32,
}

// === impl Place ===

impl Place {
    pub(super) fn read(self) -> anyhow::Result<Config> {
        let mut config = Config::read(self.config.as_deref())?;
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        Ok(config)
    }
}

// === impl ClientAddresses ===

impl ClientAddresses {
    fn put_into(self, config: &mut sluice_gateway::Config) {
        config.tcp_address = self.tcp.map_or(config.tcp_address, |it| it.0);
        config.ws_address = self.ws.map_or(config.ws_address, |it| it.0);
        config.udp_address = self.udp.map_or(config.udp_address, |it| it.0);
    }
}

/// Runs `sluice serve`.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    if args.print_config {
        std::io::stdout().write_all(ANNOTATED.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = args.place.read()?;
    args.clients.put_into(&mut config.gateway);
    config.gateway.admin_address = args.admin.or(config.gateway.admin_address);
    run_node(Role::All, config, args.http, shutdown).await
}

/// Runs `sluice gateway`.
pub async fn run_gateway(
    args: GatewayArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut config = args.place.read()?;
    args.clients.put_into(&mut config.gateway);
    config.gateway.admin_address = args.admin.or(config.gateway.admin_address);
    run_node(Role::Gateway, config, None, shutdown).await
}

/// Runs `sluice service`.
pub async fn run_services(
    args: ServiceArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut config = args.place.read()?;
    let admin = args.admin.unwrap_or(config.roles.service_admin_address);
    config.roles.service_admin_address = admin;
    let role = Role::Services(roles(&args.only)?);
    run_node(role, config, args.http, shutdown).await
}

async fn run_node(
    role: Role,
    config: Config,
    http: Option<SocketAddr>,
    shutdown: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let node = tokio::select! {
        node = Node::start(role, config, http) => node?,
        // Engines may take their time to be there.
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let ready = Ready {
        ready: true,
        addresses: &node.addresses,
        pid: std::process::id(),
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&ready)?)?;
    stdout.flush()?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = node.failed() => bail!("the gateway has failed"),
    }
    tracing::info!("draining");
    node.stop().await?;
    Ok(ExitCode::SUCCESS)
}

fn roles(only: &[String]) -> anyhow::Result<Roles> {
    let all = only.is_empty();
    let mut roles = Roles {
        user: all,
        message: all,
        group: all,
    };
    for name in only {
        match name.trim() {
            "user" => roles.user = true,
            "message" => roles.message = true,
            "group" => roles.group = true,
            other => bail!("there is no service {other:?}; there are user, message and group"),
        }
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_chosen_by_name() {
        let only =
            |names: &[&str]| roles(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(only(&[]).unwrap(), Roles::default());
        let chosen = only(&["group", "message"]).unwrap();
        assert!(chosen.group && chosen.message && !chosen.user);
        assert!(only(&["users"]).is_err());
    }
}
