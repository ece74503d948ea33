//! A generator process's work: what it is told to do, what it tells meanwhile, and
//! what it ends with. All of it is JSON between processes.

use std::{io, net::SocketAddr};

use rustix::process::{getpriority_process, setpriority_process};
use serde::{Deserialize, Serialize};
use sluice_codec::datagram::{KeyError, ServerPins};

use crate::{
    LoadError, LoadTransport, Login, Pace, Protocol,
    carrier::Carrier,
    clock::{MS_NS, SECOND_NS, now_ns},
    course::{self, Course},
    datagrams::Datagrams,
    driver::Driver,
    engine::{Engine, EngineOptions},
    rounds::{Counted, Rounds},
    session::{Session, Talk},
    storm::Storm,
    streams::Streams,
    tally::Interval,
};

/// What a generator process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// What is done.
    pub work: Work,
    /// Where to: clients take them in turn, so that neighbours are at different ones.
    pub addresses: Vec<SocketAddr>,
    /// Source addresses before this one are other generators'.
    pub source: usize,
    /// By what.
    pub transport: LoadTransport,
    /// Another system's, which then takes part in [`Work::Chat`] and [`Work::Idle`] over TCP;
    /// `None`: Sluice's own.
    pub protocol: Option<Protocol>,
    /// Of the server, for datagrams.
    pub pins: Option<String>,
    /// A client each.
    pub logins: Vec<Login>,
    /// Connections that may be on their way to login at once.
    pub opening_max: usize,
    /// Messages that a client may have unacked, if the server grants so many; at most
    /// [`crate::WINDOW_MAX`].
    pub window_max: u32,
    /// Bytes of a message's body.
    pub body_bytes: usize,
    /// Load that isn't measured goes first, for so long.
    pub warm_up_ms: u64,
    /// What is measured.
    pub duration_ms: u64,
    /// Processes whose CPU is told; the first is the server's.
    pub servers: Vec<u32>,
    /// The one core to run on.
    pub core: Option<usize>,
}

/// What clients do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Ping, in rounds that alternate with the same pings to the bare server there.
    Ping {
        /// The bare server.
        floor: SocketAddr,
    },
    /// Send to each other in pairs.
    Chat {
        /// Messages of all.
        pace: Pace,
    },
    /// Be there: so many first, and the others when that is asked for.
    Idle {
        /// Those that come first.
        first: usize,
        /// In the end each sends one message to its neighbour, so many a second of all.
        push_each_per_s: Option<f64>,
    },
    /// Be there, be cut all at once, and come back.
    Storm {
        /// Connections on their way back at once.
        at_once: usize,
    },
    /// Ask a backend.
    Request {
        /// Its name.
        service: String,
        /// Requests of all.
        pace: Pace,
    },
    /// The first client sends to a group of all.
    Fanout {
        /// Its conversation id.
        group: String,
        /// Messages.
        pace: Pace,
        /// The bare server, which says to all what one says to it.
        floor: SocketAddr,
    },
}

/// What a generator tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// So many are logged in.
    LoggedIn(usize),
    /// All who should be are; it waits to be told to go on.
    Ready,
    /// What has come of another second.
    Second(Interval),
    /// A round is over: answers a second of the server, and of the floor.
    Round(f64, f64),
    /// The end.
    Done(Outcome),
}

/// What a generator ends with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What was measured took so long.
    pub measured_s: f64,
    /// From the first message until the last was acked and received, warm-up and what was
    /// under way in the end included.
    pub whole_s: f64,
    /// Messages acked in that time.
    pub acked: u64,
    /// Messages received in that time.
    pub received: u64,
    /// CPU of the servers in that time, one by one.
    pub server_cpu_s: Vec<f64>,
    /// CPU of this process in that time.
    pub generator_cpu_s: f64,
    /// Sent messages that were never answered.
    pub unacked: u64,
    /// Acked messages that a receiver never got.
    pub unreceived: u64,
    /// Messages that were due and found no room in their sender's window until the end.
    pub unsent: u64,
    /// What was measured of the floor, in rounds between, took so long.
    pub floor_measured_s: f64,
    /// Answers a second, round by round: of the server, and of the floor.
    pub rounds: Vec<(f64, f64)>,
    /// From a storm's cut until the last client was back and synced.
    pub last_back_s: f64,
    /// The servers' resident memory before a storm and after it, one by one.
    pub rss_mb: Vec<(f64, f64)>,
    /// The generator's priority: below 0 it goes before others.
    pub nice: i32,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
}

// === impl Outcome ===

impl Outcome {
    /// Adds what another stretch has come to.
    pub(crate) fn add(&mut self, other: &Self) {
        self.measured_s += other.measured_s;
        self.acked += other.acked;
        self.received += other.received;
        self.server_cpu_s.resize(other.server_cpu_s.len(), 0.0);
        for (sum, cpu_s) in self.server_cpu_s.iter_mut().zip(&other.server_cpu_s) {
            *sum += cpu_s;
        }
        self.generator_cpu_s += other.generator_cpu_s;
    }
}

// === impl Work ===

impl Work {
    /// What one of so many generators does of it.
    #[must_use]
    pub fn share_of(&self, generators: usize) -> Self {
        let mut share = self.clone();
        let generators = generators.max(1);
        match &mut share {
            Self::Chat { pace } | Self::Request { pace, .. } | Self::Fanout { pace, .. } => {
                if let Pace::PerSecond(per_s) = pace {
                    *per_s /= generators as f64;
                }
            }
            Self::Idle {
                first,
                push_each_per_s,
            } => {
                *first = first.div_ceil(generators);
                if let Some(per_s) = push_each_per_s {
                    *per_s /= generators as f64;
                }
            }
            Self::Storm { at_once } => *at_once = at_once.div_ceil(generators),
            Self::Ping { .. } => {}
        }
        share
    }
}

/// Whoever started the generator.
pub trait Control {
    /// Hears what is told.
    fn tell(&mut self, told: Told);
    /// False once it is to stop.
    fn goes_on(&self) -> bool;
    /// When to go on, by the monotonic clock, once that is known; told once each time.
    fn start_ns(&self) -> Option<u64>;
}

const NICE: i32 = -10;
const PATIENCE_NS: u64 = 20_000 * MS_NS;
/// After a run at a given rate.
const FLOOR_ALONE_NS: u64 = 3_000 * MS_NS;

// === impl Job ===

impl Job {
    /// Does it.
    ///
    /// # Errors
    /// The first thing that makes the rest meaningless.
    pub fn run(self, control: &mut dyn Control) -> Result<Outcome, LoadError> {
        if let Some(core) = self.core {
            crate::cores::pin(None, core)?;
        }
        // A generator that has to queue for a core measures the queue. Where it may not
        // go first, it says when it was late. Who is just there keeps nobody waiting.
        if !matches!(self.work, Work::Idle { .. }) {
            let _ = setpriority_process(None, NICE);
        }
        let nice = getpriority_process(None).unwrap_or_default();
        let outcome = self.work(control)?;
        Ok(Outcome { nice, ..outcome })
    }

    fn work(self, control: &mut dyn Control) -> Result<Outcome, LoadError> {
        let is_for_all = matches!(self.work, Work::Chat { .. } | Work::Idle { .. });
        if self.protocol.is_some() && !is_for_all {
            let error = "no other system's protocol has a driver for this work";
            return Err(LoadError::Unexpected(error.to_owned()));
        }
        match self.work.clone() {
            Work::Ping { floor } => self.ping(floor, control),
            Work::Chat { pace } => self.run_course(Talk::Pairs, pace, 1, control),
            Work::Request { service, pace } => {
                self.run_course(Talk::Request(service), pace, 0, control)
            }
            Work::Idle {
                first,
                push_each_per_s,
            } => self.idle(first, push_each_per_s, control),
            Work::Storm { at_once } => {
                let storm = Storm {
                    rest_ns: self.duration_ms * MS_NS,
                    servers: self.servers.clone(),
                    patience_ns: PATIENCE_NS,
                };
                let options = EngineOptions {
                    opening_max: at_once,
                    reconnects: true,
                    ..self.engine_options()
                };
                let mut engine = self.engine(Talk::Idle)?;
                engine.options = options;
                storm.run(&mut engine, control)
            }
            Work::Fanout { group, pace, floor } => self.fanout(group, pace, floor, control),
        }
    }

    /// Connects the first, then the others, and holds all; waits to be told to go on
    /// after each. In the end each may be sent a message.
    fn idle(
        self,
        first: usize,
        push_each_per_s: Option<f64>,
        control: &mut dyn Control,
    ) -> Result<Outcome, LoadError> {
        let talk = push_each_per_s.map_or(Talk::Idle, |_| Talk::Pairs);
        let pushes = push_each_per_s.map(|per_s| {
            let all_s = self.logins.len() as f64 / per_s;
            Course {
                warm_up_ns: 0,
                duration_ns: (all_s * SECOND_NS as f64).ceil() as u64,
                ..self.course(Pace::PerSecond(per_s), usize::MAX, 1)
            }
        });
        let (hold_ns, servers) = (self.duration_ms * MS_NS, self.servers.clone());
        let mut engine = self.engine_of_any(talk)?;
        course::open(&mut engine, first, control)?;
        course::wait_for_start(&mut engine, control)?;
        course::open(&mut engine, usize::MAX, control)?;
        course::wait_for_start(&mut engine, control)?;
        let held = course::hold(&mut engine, hold_ns, &servers, control)?;
        let Some(pushes) = pushes else {
            course::wait_for_start(&mut engine, control)?;
            control.tell(Told::Second(engine.tally.interval(now_ns(), now_ns())));
            return Ok(Outcome {
                trouble: engine.trouble.take(),
                ..held
            });
        };
        let pushed = course::run(&mut engine, &pushes, control)?;
        Ok(Outcome {
            measured_s: held.measured_s,
            server_cpu_s: held.server_cpu_s,
            generator_cpu_s: held.generator_cpu_s,
            ..pushed
        })
    }

    /// All send at a pace; each message is received so many times.
    fn run_course(
        self,
        talk: Talk,
        pace: Pace,
        copies: u64,
        control: &mut dyn Control,
    ) -> Result<Outcome, LoadError> {
        let course = self.course(pace, usize::MAX, copies);
        let mut engine = self.engine_of_any(talk)?;
        course::open(&mut engine, usize::MAX, control)?;
        course::run(&mut engine, &course, control)
    }

    fn course(&self, pace: Pace, senders: usize, copies: u64) -> Course {
        Course {
            pace,
            senders,
            copies,
            warm_up_ns: self.warm_up_ms * MS_NS,
            duration_ns: self.duration_ms * MS_NS,
            servers: self.servers.clone(),
            patience_ns: PATIENCE_NS,
        }
    }

    fn ping(self, floor: SocketAddr, control: &mut dyn Control) -> Result<Outcome, LoadError> {
        let rounds = Rounds {
            counted: Counted::Acked,
            senders: usize::MAX,
            copies: 0,
            round_ns: 250 * MS_NS,
            run_up_ns: 30 * MS_NS,
            warm_up_ns: self.warm_up_ms * MS_NS,
            duration_ns: self.duration_ms * MS_NS,
            servers: self.servers.clone(),
        };
        let mut floor = self.bare_engine(floor, Talk::Ping)?;
        floor.open(|_| control.goes_on())?;
        let mut server = self.engine(Talk::Ping)?;
        course::open(&mut server, usize::MAX, control)?;
        rounds.alternate(&mut server, &mut floor, control)
    }

    fn fanout(
        self,
        group: String,
        pace: Pace,
        floor: SocketAddr,
        control: &mut dyn Control,
    ) -> Result<Outcome, LoadError> {
        let copies = (self.logins.len() as u64).saturating_sub(1);
        let course = self.course(pace, 1, copies);
        let mut rounds = Rounds {
            counted: Counted::Received,
            senders: 1,
            copies,
            // Some messages to all should fit in.
            round_ns: 500 * MS_NS + copies * MS_NS / 5,
            run_up_ns: 100 * MS_NS + copies * MS_NS / 50,
            warm_up_ns: self.warm_up_ms * MS_NS,
            duration_ns: self.duration_ms * MS_NS,
            servers: self.servers.clone(),
        };
        let mut floor = self.bare_engine(floor, Talk::Group(group.clone()))?;
        floor.open(|_| control.goes_on())?;
        let mut server = self.engine(Talk::Group(group))?;
        course::open(&mut server, usize::MAX, control)?;
        match pace {
            Pace::Window => rounds.alternate(&mut server, &mut floor, control),
            Pace::PerSecond(_) => {
                let mut outcome = course::run(&mut server, &course, control)?;
                rounds.duration_ns = rounds.duration_ns.min(FLOOR_ALONE_NS);
                rounds.floor_alone(&mut floor, control, &mut outcome)?;
                Ok(outcome)
            }
        }
    }

    /// As many clients of the bare server.
    fn bare_engine(&self, floor: SocketAddr, talk: Talk) -> Result<Engine<Session>, LoadError> {
        let clients = self.logins.len();
        let logins = self.logins.clone();
        let session = Session::bare(self.transport, talk, logins, self.body_bytes);
        let carrier = self.carrier(&[floor], None)?;
        Ok(Engine::new(
            session,
            carrier,
            clients,
            self.engine_options(),
        ))
    }

    fn carrier(&self, addresses: &[SocketAddr], pins: Option<ServerPins>) -> io::Result<Carrier> {
        let (addresses, clients) = (addresses.to_vec(), self.logins.len());
        Ok(match self.transport {
            LoadTransport::Tcp | LoadTransport::WebSocket => {
                Carrier::Streams(Streams::new(addresses, self.source, clients)?)
            }
            LoadTransport::Udp => {
                Carrier::Datagrams(Box::new(Datagrams::new(addresses, pins, clients)?))
            }
        })
    }

    /// Its clients, whatever they speak, not connected yet.
    fn engine_of_any(self, talk: Talk) -> Result<Engine<Box<dyn Driver>>, LoadError> {
        let carrier = self.carrier(&self.addresses, self.server_pins()?)?;
        let (clients, options) = (self.logins.len(), self.engine_options());
        let driver = match self.protocol {
            None => Box::new(self.session(talk)),
            Some(protocol) => protocol.driver(self.logins, self.body_bytes),
        };
        Ok(Engine::new(driver, carrier, clients, options))
    }

    /// Sluice's clients, not connected yet.
    pub(crate) fn engine(self, talk: Talk) -> Result<Engine<Session>, LoadError> {
        let carrier = self.carrier(&self.addresses, self.server_pins()?)?;
        let (clients, options) = (self.logins.len(), self.engine_options());
        Ok(Engine::new(self.session(talk), carrier, clients, options))
    }

    fn session(self, talk: Talk) -> Session {
        let host = (self.addresses.first()).map_or_else(String::new, SocketAddr::to_string);
        Session::new(self.transport, host, talk, self.logins, self.body_bytes)
    }

    fn server_pins(&self) -> Result<Option<ServerPins>, LoadError> {
        let pins = self.pins.as_deref().map(str::parse).transpose();
        pins.map_err(|error: KeyError| LoadError::Unexpected(error.to_string()))
    }

    pub(crate) fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            opening_max: self.opening_max,
            patience_ns: PATIENCE_NS,
            window_max: self.window_max,
            reconnects: false,
        }
    }
}
