//! What goes wrong and how often, as a person writes it: `delay_ms=40,jitter_ms=20,reset_s=10`.
//!
//! One table row a key holds its unit (in the name), its range and whether it concerns streams or
//! datagrams; parsing, printing and error texts all read that table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The faults to inject, parsed from `key=value,key=value`.
///
/// An empty string is a plan without faults, and `0` turns a key off. The keys:
///
/// | key | range | means |
/// |---|---|---|
/// | `delay_ms` | 1–60000 | every chunk arrives this much later |
/// | `jitter_ms` | 1–60000 | and up to this much later still, at random, order kept |
/// | `reset_s` | 0.01–86400 | a connection is reset after a random life of this mean |
/// | `stall_s` | 0.01–86400 | a connection stands still for 0.5–3 s, this mean apart |
/// | `blackout_s` | 0.01–86400 | all stand still and none is let in for 1–3 s, this mean apart |
/// | `cut_after_bytes` | 1–2^53 | a connection is reset after this many bytes to the upstream |
/// | `loss`, `dup`, `reorder`, `corrupt` | 0–1 | datagrams: the share that this happens to |
/// | `rebind_s` | 0.01–86400 | datagrams: the client's address changes, this mean apart |
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

/// The keys that the relay acts on, as indices into [`KEYS`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    DelayMs,
    JitterMs,
    ResetS,
    StallS,
    BlackoutS,
    CutAfterBytes,
}

struct KeyRow {
    name: &'static str,
    min: f64,
    max: f64,
    whole: bool,
    datagram: bool,
}

/// Above this a number of bytes is no longer exact in an `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const KEYS: [KeyRow; 11] = [
    KeyRow::whole("delay_ms", 60_000.0),
    KeyRow::whole("jitter_ms", 60_000.0),
    KeyRow::mean_s("reset_s"),
    KeyRow::mean_s("stall_s"),
    KeyRow::mean_s("blackout_s"),
    KeyRow::whole("cut_after_bytes", EXACT_MAX),
    KeyRow::share("loss"),
    KeyRow::share("dup"),
    KeyRow::share("reorder"),
    KeyRow::share("corrupt"),
    KeyRow {
        datagram: true,
        ..KeyRow::mean_s("rebind_s")
    },
];

// === impl FaultPlan ===

impl FaultPlan {
    /// Whether nothing at all is asked for.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// The first key in use that only a datagram relay can serve.
    pub fn datagram_fault(&self) -> Option<&'static str> {
        let used = KEYS.iter().zip(&self.values);
        used.filter(|(row, value)| row.datagram && value.is_some())
            .map(|(row, _)| row.name)
            .next()
    }

    /// The value of a key in milliseconds, as a duration; zero when off.
    pub(crate) fn millis(&self, key: Key) -> Duration {
        Duration::from_secs_f64(self.values[key as usize].unwrap_or(0.0) / 1e3)
    }

    /// The mean time in seconds that a key gives, where it is on.
    pub(crate) fn mean_s(&self, key: Key) -> Option<f64> {
        self.values[key as usize]
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

// === impl KeyRow ===

impl KeyRow {
    const fn whole(name: &'static str, max: f64) -> Self {
        KeyRow {
            name,
            min: 1.0,
            max,
            whole: true,
            datagram: false,
        }
    }

    const fn mean_s(name: &'static str) -> Self {
        KeyRow {
            name,
            min: 0.01,
            max: 86_400.0,
            whole: false,
            datagram: false,
        }
    }

    const fn share(name: &'static str) -> Self {
        KeyRow {
            name,
            min: 0.0,
            max: 1.0,
            whole: false,
            datagram: true,
        }
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
        let text = "delay_ms=40, jitter_ms=20,reset_s=10,stall_s=2.5,blackout_s=60,\
                    cut_after_bytes=1000,loss=0.2,dup=0.05,reorder=0.1,corrupt=1,rebind_s=5";
        let plan: FaultPlan = text.parse().unwrap();
        assert_eq!(plan.millis(Key::DelayMs), Duration::from_millis(40));
        assert_eq!(plan.millis(Key::JitterMs), Duration::from_millis(20));
        assert_eq!(plan.mean_s(Key::ResetS), Some(10.0));
        assert_eq!(plan.mean_s(Key::StallS), Some(2.5));
        assert_eq!(plan.mean_s(Key::BlackoutS), Some(60.0));
        assert_eq!(plan.cut_after_bytes(), Some(1000));
        assert_eq!(plan.datagram_fault(), Some("loss"));
        assert_eq!(plan.to_string(), text.replace(' ', ""));
    }

    #[test]
    fn nothing_and_zero_are_no_faults() {
        for text in ["", " ", "delay_ms=0", "loss=0,reset_s=0.0,", "stall_s=-0"] {
            let plan: FaultPlan = text.parse().unwrap();
            assert!(plan.is_empty(), "{text:?}");
            assert_eq!(plan.datagram_fault(), None);
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
