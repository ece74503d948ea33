//! `sluice chat`.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::chat::{AccountArgs, Palette, Render, Screen, StateDefault, Talk};

/// Talk, in this terminal
///
/// Type to the open conversation, or a command: /to USER opens one, /help lists
/// the others. Marks: · stored, ✓ received by the other, ✓✓ read. What is sent
/// while the connection is away is kept and goes out later; to start, the server
/// must be there.
///
/// With a pipe for input or output it reads and writes plain lines, and at the
/// end of input waits until all is sent. It then fails if a line could not be done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sluice chat --user alice --register\n  \
    printf '/to bob\\nhello\\n' | SLUICE_PASSWORD=... sluice chat --user alice\n\n\
    The password is asked for, or taken from SLUICE_PASSWORD. The state is kept in\n\
    $XDG_STATE_HOME/sluice or ~/.local/state/sluice, unless --state-dir names another folder.")]
pub struct Args {
    #[command(flatten)]
    account: AccountArgs,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let account = args
        .account
        .open("chat", StateDefault::Kept, &shutdown)
        .await?;
    let render = Render {
        palette: Palette::for_stdout(),
        zone: TimeZone::system(),
        me: account.user.clone(),
    };
    Talk::new(account, render, Screen::open()?)
        .run(shutdown)
        .await
}
