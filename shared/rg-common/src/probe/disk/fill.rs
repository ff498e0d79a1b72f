//! At which pace a file system fills: a line through what was used within the last day.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// So far back samples are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Samples lie at least so far apart.
const APART: SignedDuration = SignedDuration::from_mins(20);
/// A pace is told from so long a time on: an hour's unpacking is no pace.
const LEAST: SignedDuration = SignedDuration::from_hours(6);
/// What is farther away than this is no news.
const FARTHEST_HOURS: f64 = 24.0 * 365.0;

/// What was used when: at most 73 samples of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples(Vec<(Timestamp, u64)>);

impl Samples {
    /// The same with one more look.
    #[must_use]
    pub fn after(&self, now: Timestamp, used: u64) -> Samples {
        let mut next = self.clone();
        // What lies in the future was noted before the clock was put back.
        next.0
            .retain(|(at, _)| *at <= now && now.duration_since(*at) <= KEPT);
        let near = |(at, _): &(Timestamp, u64)| now.duration_since(*at) < APART;
        if !next.0.last().is_some_and(near) {
            next.0.push((now, used));
        }
        next
    }

    /// In how many hours `free` bytes are used up; none when it does not fill, or nobody can tell yet.
    pub fn hours_to_full(&self, free: u64) -> Option<f64> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        if last.0.duration_since(first.0) < LEAST {
            return None;
        }
        let hours = |at: &Timestamp| at.duration_since(first.0).as_secs_f64() / 3600.0;
        let n = self.0.len() as f64;
        let mean_x = self.0.iter().map(|(at, _)| hours(at)).sum::<f64>() / n;
        let mean_y = self.0.iter().map(|(_, used)| *used as f64).sum::<f64>() / n;
        let (mut above, mut below) = (0.0, 0.0);
        for (at, used) in &self.0 {
            let x = hours(at) - mean_x;
            above += x * (*used as f64 - mean_y);
            below += x * x;
        }
        let slope = above / below;
        if !slope.is_finite() || slope <= 0.0 {
            return None;
        }
        let left = free as f64 / slope;
        (left <= FARTHEST_HOURS).then_some(left)
    }
}
