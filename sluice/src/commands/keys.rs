//! `sluice keys`.

use std::{io::Write, process::ExitCode};

use super::serve::Place;
use crate::token_keys::{self, Absent};

/// Print the public half of the token key, which is made where there is none
///
/// Every service of a cluster signs login tokens with the same key file (or
/// SLUICE__TOKENS__KEY). Gateways need only what this prints, as
/// `public_keys` in the table `tokens` of their configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.place.read()?;
    let signer = token_keys::signer(&config, Absent::Make)?;
    let origin = match config.tokens.key.0.is_empty() {
        true => token_keys::key_file(&config).display().to_string(),
        false => "SLUICE__TOKENS__KEY or [tokens] key".to_owned(),
    };
    eprintln!("public half of key {} from {origin}", signer.kid());
    std::io::stdout().write_all(signer.public_key_pem().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
