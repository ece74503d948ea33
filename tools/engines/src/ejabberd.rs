//! One ejabberd, an XMPP server.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{
    EngineError, GuardedFolder,
    server::{Recipe, Server, free_port},
};

/// A private ejabberd for users of `localhost`, who are kept in Mnesia, with stream
/// management and an archive of all messages in SQLite.
///
/// It is the Erlang machine itself that is started, as a node without a name, not
/// `ejabberdctl`, which would have it run as another user and register it with a daemon
/// that outlives it.
#[derive(Debug)]
pub struct Ejabberd(Server);

const HELLO: &[u8] = b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// It listens once all users are there. An error ends the machine.
const START: &str = "\
{ok, _} = application:ensure_all_started(ejabberd), \
{ok, Users} = file:consult(\"users\"), \
[ok = ejabberd_auth:try_register(User, <<\"localhost\">>, Word) || {User, Word} <- Users], \
ok = ejabberd_listener:add_listener({PORT, {127, 0, 0, 1}, tcp}, ejabberd_c2s, #{backlog => 1024}).";

/// Where Debian keeps the programs' libraries for Erlang: a folder an architecture.
const LIBRARIES: &str = "/usr/lib";

// === impl Ejabberd ===

impl Ejabberd {
    /// The Debian package.
    pub const PACKAGE: &'static str = "ejabberd";

    /// The Debian package by which it keeps its archive.
    pub const ARCHIVE_PACKAGE: &'static str = "erlang-p1-sqlite3";

    /// The file `ejabberd.yml`, less what differs from run to run.
    pub const SETTINGS: &'static str = "\
hosts:
  - localhost
listen: []
loglevel: error
auth_method: internal
auth_password_format: plain
registration_timeout: infinity
cache_size: 100000
sql_type: sqlite
modules:
  mod_mam:
    db_type: sql
    default: always
  mod_offline: {}
  mod_stream_mgmt: {}
";

    /// Starts one with these users and their passwords, some thousand a second.
    ///
    /// # Errors
    /// It isn't installed, or doesn't get ready.
    pub async fn start(users: &[(&str, &str)]) -> Result<Self, EngineError> {
        let folder = GuardedFolder::new("sluice-ejabberd-")?;
        let port = free_port()?;
        let path = folder.path();
        let config = path.join("ejabberd.yml");
        let archive = path.join("archive.sqlite");
        let settings = format!("{}sql_database: {:?}\n", Self::SETTINGS, archive);
        std::fs::write(&config, settings)?;
        std::fs::write(path.join("users"), terms(users))?;
        let mnesia = format!("{:?}", path.join("mnesia"));
        let start = START.replace("PORT", &port.to_string());
        let arguments = ["+K", "true", "+P", "250000", "-noinput", "-mnesia", "dir"];
        let arguments = arguments.into_iter().map(str::to_owned);
        let environment = [
            ("ERL_LIBS", libraries()),
            ("EJABBERD_CONFIG_PATH", config.display().to_string()),
            (
                "EJABBERD_LOG_PATH",
                path.join("ejabberd.log").display().to_string(),
            ),
            ("ERL_CRASH_DUMP_BYTES", "0".into()),
            ("HOME", path.display().to_string()),
        ];
        let recipe = Recipe {
            program: "erl",
            package: Self::PACKAGE,
            arguments: arguments.chain([mnesia, "-eval".into(), start]).collect(),
            environment: environment.into(),
            hello: HELLO,
            answer: |answer| answer.starts_with(b"<?xml"),
            ready_timeout: Duration::from_secs(120),
        };
        Ok(Self(Server::start(recipe, port, folder).await?))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// Erlang terms, one a line.
fn terms(users: &[(&str, &str)]) -> String {
    let mut terms = String::new();
    for (user, word) in users {
        // Into a string nothing fails.
        let _ = writeln!(terms, "{{<<{user:?}>>, <<{word:?}>>}}.");
    }
    terms
}

/// The folders of this machine's architecture, of which there is mostly one.
fn libraries() -> String {
    let folders = std::fs::read_dir(LIBRARIES).into_iter().flatten().flatten();
    let folders = folders.map(|folder| folder.path());
    let of_gnu = folders.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with("-linux-gnu"))
    });
    let names: Vec<String> = of_gnu.map(|path| path.display().to_string()).collect();
    names.join(":")
}
