//! The password: from the environment, or asked for at the terminal without
//! showing it.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use crossterm::{
    event::{self, Event},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use sluice_client::UserId;
use tokio_util::sync::CancellationToken;

use super::{
    editor::{Editor, Typed},
    printable,
};

/// Holds the password, for scripts.
const VARIABLE: &str = "SLUICE_PASSWORD";
const GLANCE: Duration = Duration::from_millis(100);

/// Restores the terminal whichever way reading ends.
struct RawMode;

/// `SLUICE_PASSWORD`, or what is typed; a new one is typed twice.
pub(crate) async fn read(
    user: &UserId,
    is_new: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<String> {
    if let Some(password) = std::env::var_os(VARIABLE) {
        return password
            .into_string()
            .ok()
            .with_context(|| format!("{VARIABLE} is not UTF-8"));
    }
    let user = printable::line(user.as_str()).into_owned();
    tokio::task::spawn_blocking(move || {
        let password = ask(&format!("password of {user}: "), &shutdown)?;
        if is_new && ask("the same again, to register: ", &shutdown)? != password {
            bail!("the two passwords differ");
        }
        Ok(password)
    })
    .await?
}

fn ask(prompt: &str, shutdown: &CancellationToken) -> anyhow::Result<String> {
    enable_raw_mode()
        .with_context(|| format!("no password: set {VARIABLE}, or run this in a terminal"))?;
    let raw_mode = RawMode;
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}")?;
    terminal.flush()?;
    let mut editor = Editor::default();
    let answer = loop {
        if shutdown.is_cancelled() {
            break None;
        }
        if !event::poll(GLANCE)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) => match editor.key(key) {
                Typed::Entered(password) => break Some(password),
                Typed::Leave => break None,
                Typed::Nothing | Typed::Changed | Typed::Clear => {}
            },
            Event::Paste(text) => editor.paste(&text),
            _ => {}
        }
    };
    drop(raw_mode);
    writeln!(terminal)?;
    answer.context("no password was given")
}

// === impl RawMode ===

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody left to tell when the terminal has gone.
        let _ = disable_raw_mode();
    }
}
