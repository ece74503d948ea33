//! `sluice bench all`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{exit_code, unless_stopped};
use crate::bench::all::{AllOptions, Part, all};

/// Every workload, held against its goal, as one document with tables and plots
///
/// Takes about twenty minutes: idle connections of all transports (a million UDP sessions
/// among them), pings, chat, fan-out, a storm, requests, the timing wheel, a cluster of a
/// dozen gateways with 200,000 connections, and other systems under the same load. What
/// can't be run here (a package is missing) is told in the document, and the rest goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice bench all\n  \
    sluice bench all --quick --markdown quick.md\n  \
    sluice bench all --only ping,wheel\n\n\
    Clusters need redis-server and mariadbd; other systems are installed by\n\
    `tools/peers --install-only`. Run nothing beside it.")]
pub(super) struct Args {
    /// Few connections, short runs, no large cluster: within three minutes
    #[arg(long)]
    quick: bool,
    /// Only these parts of it
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    only: Vec<Part>,
    /// Where the document goes; its plots go into the folder results/ beside it
    #[arg(long, value_name = "FILE", default_value = "benches/RESULTS.md")]
    markdown: PathBuf,
    /// One JSON object on standard output at the end
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let folder = args
        .markdown
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default();
    let file = args.markdown.display();
    let why = || {
        format!("cannot write {file}: run it in the source folder, or name a file by --markdown")
    };
    // What would fail in the end fails now.
    let mut opening = std::fs::File::options();
    opening.append(true).create(true);
    opening.open(&args.markdown).with_context(why)?;
    let options = AllOptions {
        quick: args.quick,
        only: args.only,
        folder,
    };
    let results = unless_stopped(&shutdown, all(options, shutdown.clone())).await?;
    std::fs::write(&args.markdown, results.markdown()).with_context(why)?;
    eprintln!("written: {}", args.markdown.display());
    if args.json {
        super::print(true, &results, String::new())?;
    }
    Ok(exit_code(results.errors))
}
