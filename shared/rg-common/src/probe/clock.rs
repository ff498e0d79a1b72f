//! The clock of one probe: where its time goes, and when it is over.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::trouble::{Phase, Trouble, TroubleKind};

/// How long the phases of a probe may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The look-up of the name.
    pub dns: Duration,
    /// The connection, over all of the name's addresses.
    pub connect: Duration,
    /// The handshake.
    pub tls: Duration,
    /// Everything.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            dns: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            total: Duration::from_secs(10),
        }
    }
}
/// Where a probe's time went. A phase that was not reached is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The look-up; none for an address that is given.
    pub dns: Option<Duration>,
    /// The connection.
    pub connect: Option<Duration>,
    /// The handshake.
    pub tls: Option<Duration>,
    /// From the request to the answer's first byte.
    pub first_byte: Option<Duration>,
    /// From there to the last byte.
    pub body: Option<Duration>,
    /// Everything.
    pub total: Duration,
}

impl Times {
    /// Adds to a phase; redirects go through the phases again.
    pub(super) fn spent(&mut self, phase: Phase, time: Duration) {
        let slot = match phase {
            Phase::Dns => &mut self.dns,
            Phase::Connect => &mut self.connect,
            Phase::Tls => &mut self.tls,
            Phase::FirstByte => &mut self.first_byte,
            Phase::Body => &mut self.body,
        };
        *slot = Some(slot.unwrap_or_default() + time);
    }

    /// The phase that took the most, with its time.
    pub fn slowest(&self) -> Option<(Phase, Duration)> {
        let all = [
            (Phase::Dns, self.dns),
            (Phase::Connect, self.connect),
            (Phase::Tls, self.tls),
            (Phase::FirstByte, self.first_byte),
            (Phase::Body, self.body),
        ];
        let reached = all
            .into_iter()
            .filter_map(|(phase, time)| Some((phase, time?)));
        reached.max_by_key(|(_, time)| *time)
    }
}

/// A span of time as a person reads it: `340 µs`, `12 ms`, `2.3 s`.
pub fn span(time: Duration) -> String {
    if time >= Duration::from_millis(999) {
        format!("{:.1} s", time.as_secs_f64())
    } else if time >= Duration::from_millis(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} µs", time.as_micros())
    }
}

/// The clock of one probe: what is over its limit is trouble with the phase's name.
pub(super) struct Clock {
    began: Instant,
    limits: Limits,
    end: Instant,
    pub(super) times: Times,
}

impl Clock {
    pub(super) fn start(limits: Limits) -> Clock {
        let began = Instant::now();
        Clock {
            began,
            limits,
            end: began + limits.total,
            times: Times::default(),
        }
    }

    /// Time in which the probe waited for its turn, which is not the target's.
    pub(super) fn forgive(&mut self, waited: Duration) {
        self.began += waited;
        self.end += waited;
    }

    /// The time for the connection, over all addresses.
    pub(super) fn connect_limit(&self) -> Duration {
        self.limits.connect
    }

    /// The times so far.
    pub(super) fn times(&self) -> Times {
        Times {
            total: self.began.elapsed(),
            ..self.times
        }
    }

    /// Runs a phase within its limit and within what is left of the whole.
    pub(super) async fn phase<T>(
        &mut self,
        phase: Phase,
        work: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let own = match phase {
            Phase::Dns => self.limits.dns,
            Phase::Connect => self.limits.connect,
            Phase::Tls => self.limits.tls,
            Phase::FirstByte | Phase::Body => self.limits.total,
        };
        let begins = Instant::now();
        let done = timeout_at(self.end.min(begins + own), work).await;
        self.times.spent(phase, begins.elapsed());
        let limit = if begins + own < self.end {
            own
        } else {
            self.limits.total
        };
        done.map_err(|_| self.late(phase, limit))
    }

    fn late(&self, phase: Phase, limit: Duration) -> Trouble {
        let what = match phase {
            Phase::Dns => "its name did not resolve",
            Phase::Connect => "it did not take the connection",
            Phase::Tls => "the TLS handshake did not end",
            Phase::FirstByte => "it did not begin to answer",
            Phase::Body => "its answer did not end",
        };
        let slowest = self.times.slowest().filter(|(slow, _)| *slow != phase);
        let total = self.began.elapsed();
        let also = match slowest {
            Some((slow, time)) if 2 * time > total => {
                format!(" ({} {} of {})", slow.word(), span(time), span(total))
            }
            _ => String::new(),
        };
        let what = format!("{what} within {}{also}", span(limit));
        Trouble::new(phase, TroubleKind::Timeout, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_that_is_late_because_of_another_says_so() {
        let ms = Duration::from_millis;
        let mut clock = Clock::start(Limits {
            total: ms(200),
            ..Limits::default()
        });
        let slow = clock.phase(Phase::Tls, tokio::time::sleep(ms(150))).await;
        assert_eq!(slow, Ok(()));
        let late = clock.phase(Phase::FirstByte, std::future::pending::<()>());
        let late = late.await.unwrap_err();
        let begins = "it did not begin to answer within 200 ms (TLS 1";
        assert!(late.what.starts_with(begins), "{late}");
        assert_eq!(late.kind, TroubleKind::Timeout);
    }

    #[test]
    fn spans_are_readable() {
        for (time, words) in [
            (Duration::from_micros(340), "340 µs"),
            (Duration::from_micros(12_900), "12 ms"),
            (Duration::from_millis(999), "1.0 s"),
            (Duration::from_millis(2_345), "2.3 s"),
        ] {
            assert_eq!(span(time), words);
        }
    }
}
