//! Calendar months (UTC), by which the message and dedup tables are partitioned.

use std::{fmt, str::FromStr};

/// A calendar month, written as `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
// Counted from January of the year 0.
pub struct Month(u32);

/// What is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no month; say 2026-11")]
pub struct NoMonth(String);

// === impl Month ===

impl Month {
    /// The month of a time.
    pub(super) fn of(unix_ms: u64) -> Self {
        const DAY_MS: u64 = 86_400_000;
        // Civil date of a day number, by the algorithm of H. Hinnant
        // (chrono-compatible low-level date algorithms): years begin in March.
        let days = unix_ms / DAY_MS + 719_468;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let year = days / 146_097 * 400 + year_of_era;
        // March is the third month of its year, January the eleventh of it.
        Self((year * 12 + march_month + 2) as u32)
    }

    pub(super) fn back(self, months: u32) -> Self {
        Self(self.0.saturating_sub(months))
    }

    pub(super) fn forward(self, months: u32) -> Self {
        Self(self.0.saturating_add(months))
    }

    /// When it begins; 0 for what lies before 1970.
    pub(super) fn start_ms(self) -> u64 {
        // Back to years that begin in March, then the inverse of `of`.
        let Some(since_march) = self.0.checked_sub(2) else {
            return 0;
        };
        let (year, month) = (u64::from(since_march / 12), u64::from(since_march % 12));
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_year = (153 * month + 2) / 5;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era).saturating_sub(719_468) * 86_400_000
    }

    /// The month of a partition's name; `None` for `pmax`.
    pub(super) fn of_partition(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('p')?;
        if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let (year, month) = digits.split_at_checked(4)?;
        let (year, month): (u32, u32) = (year.parse().ok()?, month.parse().ok()?);
        (1..=12)
            .contains(&month)
            .then(|| Self(year * 12 + month - 1))
    }

    /// How many months it is from an earlier one to this.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// The name of its partition: `p202611`.
    pub(super) fn partition(self) -> String {
        format!("p{:04}{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

impl FromStr for Month {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let digits = text.as_bytes();
        let month = match digits.get(4) {
            Some(b'-') if digits.len() == 7 => {
                Self::of_partition(&format!("p{}", text.replacen('-', "", 1)))
            }
            _ => None,
        };
        month.ok_or_else(|| NoMonth(text.to_owned()))
    }
}

/// So many months as partitions; what is older falls into the first, what is
/// newer into `pmax`, which is split when months are added.
pub(super) fn partition_list(first: Month, months: u32) -> String {
    let mut list = String::new();
    for month in (0..months).map(|ahead| first.forward(ahead)) {
        let end = month.forward(1).start_ms();
        list += &format!("PARTITION {} VALUES LESS THAN ({end}), ", month.partition());
    }
    list + "PARTITION pmax VALUES LESS THAN MAXVALUE"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        // 2026-09-21, 2024-02-29 23:59:59.999, 2024-03-01, 1970-01-01.
        for (ms, name, start) in [
            (1_790_000_000_000, "p202609", 1_788_220_800_000),
            (1_709_251_199_999, "p202402", 1_706_745_600_000),
            (1_709_251_200_000, "p202403", 1_709_251_200_000),
            (0, "p197001", 0),
        ] {
            let month = Month::of(ms);
            assert_eq!(month.partition(), name);
            assert_eq!(month.start_ms(), start, "{name}");
            assert_eq!(Month::of_partition(name), Some(month));
        }
        assert_eq!(Month::of_partition("pmax"), None);
        assert_eq!("2024-02".parse(), Ok(Month::of(1_709_251_199_999)));
        assert_eq!(Month::of(0).to_string(), "1970-01");
        for no_month in [
            "2024-13", "2024-00", "202402", "24-02", "2024-2", "", "2024-+1", "é024-01",
        ] {
            assert!(no_month.parse::<Month>().is_err(), "{no_month}");
        }
        let mut month = Month::of(0);
        while month < Month::of(4_102_444_800_000) {
            let next = month.forward(1);
            assert_eq!(Month::of(next.start_ms()), next);
            assert_eq!(Month::of(next.start_ms() - 1), month);
            month = next;
        }
    }
}
