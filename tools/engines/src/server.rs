//! A server's process, whatever the engine.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::GuardedFolder;

/// Why a server isn't there.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The program isn't installed, or can't be started.
    #[error("cannot start {program} (Debian package {package}): {cause}")]
    NotStarted {
        /// What was to run.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// It ended, or didn't answer in time.
    #[error("{program} did not get ready: {cause}\n{log}")]
    NotReady {
        /// What ran.
        program: &'static str,
        /// How it failed.
        cause: String,
        /// The end of its log.
        log: String,
    },
    /// Folder, port or process couldn't be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How a server is told apart from another.
pub(crate) struct Recipe {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) arguments: Vec<String>,
    /// Variables beside this process's own.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What to send to a new connection, and how the first answer must begin.
    pub(crate) hello: &'static [u8],
    pub(crate) answer: fn(&[u8]) -> bool,
    pub(crate) ready_timeout: Duration,
}

/// A running (or killed) server with its folder.
pub(crate) struct Server {
    recipe: Recipe,
    child: Child,
    pub(crate) address: SocketAddr,
    folder: GuardedFolder,
}

/// Under this name a server is noted in its folder.
const NOTE: &str = "engine";
const POLL: Duration = Duration::from_millis(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of a log that an error shows.
const LOG_TAIL_LINES: usize = 12;

/// A port of the loopback that nobody listens on now, low enough that
/// `port + 10000` (Redis Cluster's second port) is one too.
pub(crate) fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free pair of ports in 100 tries"))
}

// === impl Server ===

impl Server {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(
        recipe: Recipe,
        port: u16,
        folder: GuardedFolder,
    ) -> Result<Self, EngineError> {
        let child = spawn(&recipe, &folder)?;
        let mut server = Self {
            recipe,
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            folder,
        };
        server.ready().await?;
        Ok(server)
    }

    /// Its process id; after a restart another one.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it at once: no flush, no goodbye.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on its port and data, after [`Server::kill`] or [`Server::stop`].
    pub(crate) async fn restart(&mut self) -> Result<(), EngineError> {
        if self.child.try_wait()?.is_none() {
            self.kill()?;
        }
        self.child = spawn(&self.recipe, &self.folder)?;
        self.ready().await
    }

    /// Asks it to end and waits.
    pub(crate) async fn stop(&mut self) -> Result<(), EngineError> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.kill()?;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Stops it where it stands, connections open.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no such process id"))?;
        Ok(kill_process(pid, signal)?)
    }

    async fn ready(&mut self) -> Result<(), EngineError> {
        let deadline = Instant::now() + self.recipe.ready_timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.not_ready(format!("it ended ({status})")));
            }
            if self.answers().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.not_ready("no answer in time".into()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(Duration::from_secs(1), async {
            let mut socket = TcpStream::connect(self.address).await?;
            socket.write_all(self.recipe.hello).await?;
            let mut answer = [0_u8; 64];
            let length = socket.read(&mut answer).await?;
            Ok::<_, io::Error>((self.recipe.answer)(&answer[..length]))
        });
        matches!(asked.await, Ok(Ok(true)))
    }

    fn not_ready(&self, cause: String) -> EngineError {
        let log = std::fs::read_to_string(self.folder().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.len().saturating_sub(LOG_TAIL_LINES);
        EngineError::NotReady {
            program: self.recipe.program,
            cause,
            log: lines[tail..].join("\n"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
        self.folder.forget(NOTE);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.recipe.program, self.address)
    }
}

fn spawn(recipe: &Recipe, folder: &GuardedFolder) -> Result<Child, EngineError> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))?;
    // A group of its own: Ctrl-C is for this process, which stops it in its order.
    let child = Command::new(recipe.program)
        .args(&recipe.arguments)
        .envs(recipe.environment.clone())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(|cause| EngineError::NotStarted {
            program: recipe.program,
            package: recipe.package,
            cause,
        })?;
    folder.note(NOTE, child.id())?;
    Ok(child)
}
