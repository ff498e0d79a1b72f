//! A counter that somebody else keeps, looked at from time to time: how often did it count within
//! the last hour?
//!
//! Such counters are not monotonic: systemd's NRestarts begins anew with a restart by hand,
//! everything begins anew with a boot. A counter that fell counts from nothing.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How far back is looked.
pub const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// So many looks at which it had counted are remembered; older ones are added together.
const REMEMBERED: usize = 64;

/// What is remembered of a counter between runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// Its value at the last look; none before the first.
    last: Option<u64>,
    /// When it had counted how often.
    counted: Vec<(Timestamp, u64)>,
}

impl Recent {
    /// The same after one more look. The first look counts nothing: nobody knows when that was.
    #[must_use]
    pub fn after(before: Option<&Recent>, value: u64, now: Timestamp) -> Recent {
        let mut next = before.cloned().unwrap_or_default();
        let more = match next.last {
            None => 0,
            Some(last) if value >= last => value - last,
            Some(_) => value,
        };
        next.last = Some(value);
        // What lies in the future was noted before the clock was put back.
        next.counted
            .retain(|(at, _)| *at <= now && now.duration_since(*at) <= WINDOW);
        if more > 0 {
            next.counted.push((now, more));
        }
        if next.counted.len() > REMEMBERED {
            let (_, oldest) = next.counted.remove(0);
            next.counted[0].1 += oldest;
        }
        next
    }

    /// How often it counted within [`WINDOW`], as far as it was looked at.
    pub fn count(&self) -> u64 {
        self.counted.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).expect("a time")
    }

    #[test]
    fn a_counter_that_fell_counts_from_nothing_and_the_past_is_forgotten() {
        let first = Recent::after(None, 58, at(0));
        assert_eq!(first.count(), 0);
        let second = Recent::after(Some(&first), 60, at(5));
        assert_eq!(second.count(), 2);
        // Restarted by hand: NRestarts is 0 again, and one more since.
        let third = Recent::after(Some(&second), 1, at(10));
        assert_eq!(third.count(), 3);
        assert_eq!(Recent::after(Some(&third), 1, at(66)).count(), 1);
        assert_eq!(Recent::after(Some(&third), 1, at(71)).count(), 0);
        // The clock was put back by a day.
        assert_eq!(Recent::after(Some(&third), 1, at(-1440)).count(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::after(None, 0, at(0));
        for second in 1..=1000u64 {
            let now = Timestamp::from_second(1_800_000_000 + second as i64).expect("a time");
            recent = Recent::after(Some(&recent), second, now);
        }
        assert_eq!(recent.count(), 1000);
        assert!(recent.counted.len() <= REMEMBERED);
    }
}
