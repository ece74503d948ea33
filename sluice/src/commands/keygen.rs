//! `sluice keygen`.

use std::{io::Write, process::ExitCode};

use super::serve::Place;
use crate::datagram_keys;

/// Print the pins of the keys of UDP and encrypted TCP, which are made where there are none
///
/// Clients that connect over UDP or encrypted TCP pin the gateway's public key. Gateways that
/// clients choose among share their keys: the same key file, or
/// SLUICE__DATAGRAMS__KEYS. `GET /endpoints` tells the pins as well.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Put a fresh key before the old ones, of which three are kept: clients that pin
    /// an older one still get in. Restart the gateways afterwards: a running one keeps to
    /// the keys that it has read
    #[arg(long)]
    renew: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.place.read()?;
    let keys = match args.renew {
        true => datagram_keys::renew(&config)?,
        false => datagram_keys::open(&config)?,
    };
    eprintln!(
        "keys in {}: {}; their pins:",
        match config.datagrams.keys.0.is_empty() {
            true => datagram_keys::key_file(&config).display().to_string(),
            false => "SLUICE__DATAGRAMS__KEYS or [datagrams] keys".to_owned(),
        },
        keys.len()
    );
    writeln!(std::io::stdout(), "{}", datagram_keys::pins_of(&keys)?)?;
    Ok(ExitCode::SUCCESS)
}
