//! What goes wrong and how often, as a person writes it: `delay_ms=40,jitter_ms=20,reset_s=10`.
//!
//! One table row a key holds its unit (in the name), its range and what it concerns (streams,
//! datagrams, packets); parsing, printing and error texts all read that table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The faults to inject, parsed from `key=value,key=value`.
///
/// An empty string is a plan without faults, and `0` turns a key off. One plan may serve both kinds
/// of relay: [`part_for`](Self::part_for) picks what concerns one of them. The keys:
///
/// Packets ([`Line`](crate::Line)) know what is for both, pauses aside, and the shares and the MTU.
///
/// | key | range | for | means |
/// |---|---|---|---|
/// | `delay_ms` | 1–60000 | both | everything arrives this much later, each way |
/// | `jitter_ms` | 1–60000 | both | and up to this much later still, at random, order kept |
/// | `bandwidth_kbps` | 1–10^7 | both | so many 1,000 bits a second, each way of each connection |
/// | `stall_s` | 0.01–86400 | both | a connection stands still for 0.5–3 s, this mean apart |
/// | `blackout_s` | 0.01–86400 | both | for 1–3 s, this mean apart: streams all stand still and none is let in, datagrams are all lost |
/// | `reset_s` | 0.01–86400 | streams | a connection is reset after a random life of this mean |
/// | `cut_after_bytes` | 1–2^53 | streams | a connection is reset after this many bytes to the upstream |
/// | `loss` | 0–1 | datagrams | the share that never arrives |
/// | `dup` | 0–1 | datagrams | the share that arrives twice, the second up to 20 ms later |
/// | `reorder` | 0–1 | datagrams | the share held back for 1–50 ms, so that later ones overtake it |
/// | `corrupt` | 0–1 | datagrams | the share of which one bit is flipped |
/// | `rebind_s` | 0.01–86400 | datagrams | a client comes from another address, this mean apart |
/// | `nat_idle_s` | 0.01–86400 | datagrams | and after this long without a datagram (300 when off) |
/// | `mtu_bytes` | 1–65535 | datagrams | those with more payload than this never arrive |
///
/// [`Display`](fmt::Display) prints what [`FromStr`] reads, in the order of the table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    values: [Option<f64>; KEYS.len()],
}

/// Why a fault string was refused. Always the fault of who wrote it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// An item isn't of the form `key=value`.
    #[error("fault `{item}` is not of the form key=value")]
    NotAPair {
        /// The item as given.
        item: String,
    },
    /// There is no such key.
    #[error("unknown fault `{key}`; there are: {}", known_keys())]
    Unknown {
        /// The key as given.
        key: String,
    },
    /// A key is given twice.
    #[error("fault `{key}` is given twice")]
    Twice {
        /// The key.
        key: &'static str,
    },
    /// The value isn't a number, or not one that the key allows.
    #[error("fault `{key}` must be {range}, or 0 for off; it is `{value}`")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// The values that are allowed, in words.
        range: String,
    },
}

/// What a relay carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// TCP connections.
    Streams,
    /// UDP datagrams, a flow a client.
    Datagrams,
    /// Whole packets on one [`Line`](crate::Line) each way.
    Packets,
}

/// The keys, as indices into [`KEYS`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    DelayMs,
    JitterMs,
    BandwidthKbps,
    StallS,
    BlackoutS,
    ResetS,
    CutAfterBytes,
    Loss,
    Dup,
    Reorder,
    Corrupt,
    RebindS,
    NatIdleS,
    MtuBytes,
}

struct KeyRow {
    name: &'static str,
    min: f64,
    max: f64,
    whole: bool,
    serves: &'static [Carries],
}

/// Above this a number of bytes is no longer exact in an `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const ALL: &[Carries] = &[Carries::Streams, Carries::Datagrams, Carries::Packets];
const LOSSY: &[Carries] = &[Carries::Datagrams, Carries::Packets];

const KEYS: [KeyRow; 14] = [
    KeyRow::whole("delay_ms", 60_000.0),
    KeyRow::whole("jitter_ms", 60_000.0),
    KeyRow::whole("bandwidth_kbps", 10_000_000.0),
    KeyRow::mean_s("stall_s").only(&[Carries::Streams, Carries::Datagrams]),
    KeyRow::mean_s("blackout_s").only(&[Carries::Streams, Carries::Datagrams]),
    KeyRow::mean_s("reset_s").only(&[Carries::Streams]),
    KeyRow::whole("cut_after_bytes", EXACT_MAX).only(&[Carries::Streams]),
    KeyRow::share("loss"),
    KeyRow::share("dup"),
    KeyRow::share("reorder"),
    KeyRow::share("corrupt"),
    KeyRow::mean_s("rebind_s").only(&[Carries::Datagrams]),
    KeyRow::mean_s("nat_idle_s").only(&[Carries::Datagrams]),
    KeyRow::whole("mtu_bytes", 65_535.0).only(LOSSY),
];

// === impl FaultPlan ===

impl FaultPlan {
    /// Whether nothing at all is asked for.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// The first key in use that a relay for `carries` can't serve.
    pub fn foreign_to(&self, carries: Carries) -> Option<&'static str> {
        let used = KEYS.iter().zip(&self.values);
        used.filter(|(row, value)| !row.concerns(carries) && value.is_some())
            .map(|(row, _)| row.name)
            .next()
    }

    /// The plan without what a relay for `carries` can't serve.
    pub fn part_for(&self, carries: Carries) -> Self {
        let mut part = self.clone();
        for (row, value) in KEYS.iter().zip(&mut part.values) {
            if !row.concerns(carries) {
                *value = None;
            }
        }
        part
    }

    /// The value of a key in milliseconds, as a duration; zero when off.
    pub(crate) fn millis(&self, key: Key) -> Duration {
        Duration::from_secs_f64(self.values[key as usize].unwrap_or(0.0) / 1e3)
    }

    /// The mean time in seconds that a key gives, where it is on.
    pub(crate) fn mean_s(&self, key: Key) -> Option<f64> {
        self.values[key as usize]
    }

    /// The share that a key gives, 0 when off.
    pub(crate) fn share(&self, key: Key) -> f64 {
        self.values[key as usize].unwrap_or(0.0)
    }

    /// How many bytes a second each way of a connection may pass, where that is bounded.
    pub(crate) fn bandwidth_bytes_per_s(&self) -> Option<f64> {
        self.values[Key::BandwidthKbps as usize].map(|kbps| kbps * 1000.0 / 8.0)
    }

    /// The largest payload of a datagram that passes.
    pub(crate) fn mtu_bytes(&self) -> usize {
        // Whole and within 65,535.
        self.values[Key::MtuBytes as usize].map_or(usize::MAX, |bytes| bytes as usize)
    }

    /// After how many bytes to the upstream a connection is reset.
    pub(crate) fn cut_after_bytes(&self) -> Option<u64> {
        // Whole and within 2^53, so the conversion is exact.
        self.values[Key::CutAfterBytes as usize].map(|bytes| bytes as u64)
    }
}

impl FromStr for FaultPlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = FaultPlan::default();
        let mut seen = [false; KEYS.len()];
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (key, value) = item.split_once('=').ok_or_else(|| PlanError::NotAPair {
                item: item.to_owned(),
            })?;
            let (key, value) = (key.trim(), value.trim());
            let index =
                KEYS.iter()
                    .position(|row| row.name == key)
                    .ok_or_else(|| PlanError::Unknown {
                        key: key.to_owned(),
                    })?;
            if std::mem::replace(&mut seen[index], true) {
                return Err(PlanError::Twice {
                    key: KEYS[index].name,
                });
            }
            plan.values[index] = KEYS[index].read(value)?;
        }
        Ok(plan)
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = KEYS
            .iter()
            .zip(&self.values)
            .filter_map(|(row, value)| Some((row.name, (*value)?)));
        for (at, (name, value)) in used.enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

// === impl Carries ===

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Carries::Streams => "streams",
            Carries::Datagrams => "datagrams",
            Carries::Packets => "packets",
        })
    }
}

// === impl KeyRow ===

impl KeyRow {
    const fn whole(name: &'static str, max: f64) -> Self {
        KeyRow {
            name,
            min: 1.0,
            max,
            whole: true,
            serves: ALL,
        }
    }

    const fn mean_s(name: &'static str) -> Self {
        KeyRow {
            name,
            min: 0.01,
            max: 86_400.0,
            whole: false,
            serves: ALL,
        }
    }

    const fn share(name: &'static str) -> Self {
        KeyRow {
            name,
            min: 0.0,
            max: 1.0,
            whole: false,
            serves: LOSSY,
        }
    }

    const fn only(self, serves: &'static [Carries]) -> Self {
        KeyRow { serves, ..self }
    }

    fn concerns(&self, carries: Carries) -> bool {
        self.serves.contains(&carries)
    }

    fn read(&self, value: &str) -> Result<Option<f64>, PlanError> {
        let number = value.parse::<f64>().ok().filter(|number| {
            let allowed = (self.min..=self.max).contains(number) || *number == 0.0;
            allowed && (!self.whole || number.fract() == 0.0)
        });
        match number {
            Some(number) => Ok((number != 0.0).then_some(number)),
            None => Err(PlanError::OutOfRange {
                key: self.name,
                value: value.to_owned(),
                range: self.range(),
            }),
        }
    }

    fn range(&self) -> String {
        let kind = if self.whole {
            "a whole number"
        } else {
            "a number"
        };
        format!("{kind} from {} to {}", self.min, self.max)
    }
}

fn known_keys() -> String {
    KEYS.map(|row| row.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> String {
        text.parse::<FaultPlan>().unwrap_err().to_string()
    }

    #[test]
    fn reads_every_key_and_its_unit() {
        let text = "delay_ms=40, jitter_ms=20,bandwidth_kbps=800,stall_s=2.5,blackout_s=60,\
                    reset_s=10,cut_after_bytes=1000,loss=0.2,dup=0.05,reorder=0.1,corrupt=1,\
                    rebind_s=5,nat_idle_s=30,mtu_bytes=1400";
        let plan: FaultPlan = text.parse().unwrap();
        assert_eq!(plan.millis(Key::DelayMs), Duration::from_millis(40));
        assert_eq!(plan.millis(Key::JitterMs), Duration::from_millis(20));
        assert_eq!(plan.bandwidth_bytes_per_s(), Some(100_000.0));
        assert_eq!(plan.mean_s(Key::StallS), Some(2.5));
        assert_eq!(plan.mean_s(Key::BlackoutS), Some(60.0));
        assert_eq!(plan.mean_s(Key::ResetS), Some(10.0));
        assert_eq!(plan.cut_after_bytes(), Some(1000));
        let shares = [Key::Loss, Key::Dup, Key::Reorder, Key::Corrupt];
        assert_eq!(shares.map(|key| plan.share(key)), [0.2, 0.05, 0.1, 1.0]);
        assert_eq!(plan.mean_s(Key::RebindS), Some(5.0));
        assert_eq!(plan.mean_s(Key::NatIdleS), Some(30.0));
        assert_eq!(plan.mtu_bytes(), 1400);
        assert_eq!(plan.to_string(), text.replace(' ', ""));
    }

    #[test]
    fn each_kind_of_relay_gets_its_part_of_one_plan() {
        let text = "delay_ms=40,stall_s=20,reset_s=10,loss=0.2,rebind_s=5";
        let plan: FaultPlan = text.parse().unwrap();
        assert_eq!(plan.foreign_to(Carries::Streams), Some("loss"));
        assert_eq!(plan.foreign_to(Carries::Datagrams), Some("reset_s"));
        for (carries, expected) in [
            (Carries::Streams, "delay_ms=40,stall_s=20,reset_s=10"),
            (
                Carries::Datagrams,
                "delay_ms=40,stall_s=20,loss=0.2,rebind_s=5",
            ),
            (Carries::Packets, "delay_ms=40,loss=0.2"),
        ] {
            let part = plan.part_for(carries);
            assert_eq!(part.to_string(), expected);
            assert_eq!(part.foreign_to(carries), None);
        }
    }

    #[test]
    fn nothing_and_zero_are_no_faults() {
        for text in ["", " ", "delay_ms=0", "loss=0,reset_s=0.0,", "stall_s=-0"] {
            let plan: FaultPlan = text.parse().unwrap();
            assert!(plan.is_empty(), "{text:?}");
            assert_eq!(plan.foreign_to(Carries::Streams), None);
            assert_eq!(plan.foreign_to(Carries::Datagrams), None);
            assert_eq!(plan.to_string(), "");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_range() {
        assert_eq!(
            refusal("delay_ms"),
            "fault `delay_ms` is not of the form key=value"
        );
        assert_eq!(
            refusal("reset_s=1,reset_s=2"),
            "fault `reset_s` is given twice"
        );
        assert_eq!(refusal("loss=0,loss=0"), "fault `loss` is given twice");
        let unknown = refusal("delay=40");
        assert!(unknown.starts_with("unknown fault `delay`; there are: delay_ms, jitter_ms,"));
        for (text, key, range) in [
            ("delay_ms=-1", "delay_ms", "a whole number from 1 to 60000"),
            ("delay_ms=1.5", "delay_ms", "a whole number from 1 to 60000"),
            (
                "jitter_ms=60001",
                "jitter_ms",
                "a whole number from 1 to 60000",
            ),
            ("reset_s=0.001", "reset_s", "a number from 0.01 to 86400"),
            ("stall_s=NaN", "stall_s", "a number from 0.01 to 86400"),
            (
                "blackout_s=inf",
                "blackout_s",
                "a number from 0.01 to 86400",
            ),
            ("loss=1.1", "loss", "a number from 0 to 1"),
            ("loss=20%", "loss", "a number from 0 to 1"),
            ("rebind_s=", "rebind_s", "a number from 0.01 to 86400"),
        ] {
            let value = text.split_once('=').unwrap().1;
            let expected = format!("fault `{key}` must be {range}, or 0 for off; it is `{value}`");
            assert_eq!(refusal(text), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            delay in 0u32..=60_000,
            reset in proptest::option::of(0.01f64..=86_400.0),
            cut in 0u64..=9_007_199_254_740_992,
            loss in 0.0f64..=1.0,
        ) {
            let reset = reset.map_or(String::new(), |mean| format!(",reset_s={mean}"));
            let text = format!("cut_after_bytes={cut},loss={loss},delay_ms={delay}{reset}");
            let plan: FaultPlan = text.parse().unwrap();
            prop_assert_eq!(plan.cut_after_bytes().unwrap_or(0), cut);
            prop_assert_eq!(plan.to_string().parse::<FaultPlan>().unwrap(), plan);
        }

        #[test]
        fn any_text_is_a_plan_or_an_error(text in ".{0,60}") {
            let _ = text.parse::<FaultPlan>();
        }
    }
}
