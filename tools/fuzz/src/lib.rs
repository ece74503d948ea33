//! What fuzzing runs: one function a parser or state machine that takes any bytes, and
//! panics where a promise does not hold.
//!
//! Three ways to the same functions: the tests of this crate, with a bounded number of
//! mutated seeds; its program, for as long as it is told, on stable Rust; and `fuzz/` at
//! the root of the repository, by coverage (cargo-fuzz, nightly Rust).
//!
//! Some functions take their bytes as they come from a network. The others read them as a
//! script: which valid packets are made, how they are damaged, in which order they come.
//! So mutations of bytes become mutations of what happens, behind seals that no random
//! bytes would pass.

mod connection;
mod datagram;
mod mutator;
mod script;
mod seeds;
mod session;
mod stream;

pub use mutator::Mutator;

/// One function that fuzzing runs.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics where a promise does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "header",
        run: datagram::header,
        seeds: seeds::datagrams,
    },
    Target {
        name: "acceptor",
        run: datagram::acceptor,
        seeds: seeds::scripts,
    },
    Target {
        name: "connector",
        run: datagram::connector,
        seeds: seeds::scripts,
    },
    Target {
        name: "session",
        run: session::session,
        seeds: seeds::sessions,
    },
    Target {
        name: "connection",
        run: connection::connection,
        seeds: seeds::scripts,
    },
    Target {
        name: "sealed_tcp",
        run: stream::sealed_tcp,
        seeds: seeds::sealed_streams,
    },
    Target {
        name: "tcp",
        run: stream::tcp,
        seeds: seeds::streams,
    },
    Target {
        name: "websocket",
        run: stream::websocket,
        seeds: seeds::websockets,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as the slowest targets, which make a handshake a case, take some seconds
    /// for.
    const CASES: usize = 4_000;

    fn run(name: &str) {
        let target = target(name).expect("a target of this name");
        let seeds = (target.seeds)();
        seeds.iter().for_each(|seed| (target.run)(seed));
        let mut mutator = Mutator::new(1, seeds);
        for _ in 0..CASES {
            (target.run)(mutator.next_input());
        }
    }

    #[test]
    fn header() {
        run("header");
    }

    #[test]
    fn acceptor() {
        run("acceptor");
    }

    #[test]
    fn connector() {
        run("connector");
    }

    #[test]
    fn session() {
        run("session");
    }

    #[test]
    fn connection() {
        run("connection");
    }

    #[test]
    fn sealed_tcp() {
        run("sealed_tcp");
    }

    #[test]
    fn tcp() {
        run("tcp");
    }

    #[test]
    fn websocket() {
        run("websocket");
    }

    #[test]
    fn every_target_is_run_here_and_by_coverage() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
        let manifest = std::fs::read_to_string(format!("{root}/Cargo.toml")).expect("fuzz/");
        for Target { name, .. } in TARGETS {
            let program = format!("{root}/fuzz_targets/{name}.rs");
            assert!(std::fs::exists(&program).unwrap_or_default(), "{program}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(include_str!("lib.rs").contains(&format!("run(\"{name}\")")));
        }
    }
}
