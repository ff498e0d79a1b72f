//! A bucket as its app uses it: with the app's own key a small object is put, read back, compared and
//! deleted. It is always taken back, and the time that each step took is a figure.

use std::time::{Duration, Instant};

use super::tally::Tally;
use crate::check::{Figure, Unit, Verdict};
use crate::failure::{Failure, Result};
use crate::s3::canary::{Canary, TEXT};
use crate::s3::{Client, Kind};
use crate::stop;

/// An attempt at one step must have been answered within this time; there are two.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Tried {
    /// The service answered each step.
    Done {
        /// Seconds that the put took.
        put: f64,
        /// Seconds that the get took.
        get: f64,
        /// Seconds that the delete took.
        delete: f64,
        /// Whether the bytes came back as they were put.
        same: bool,
        /// Whether it is gone after the delete.
        gone: bool,
    },
    /// It locks all that is written, which could not be taken back: it was only looked for.
    OnlySeen,
    /// A step was refused, or not answered.
    Refused {
        /// Why, in words.
        why: String,
        /// What to do.
        fix: String,
    },
}

/// Tries a bucket. Blocks, not to be called from within the runtime. An error is our own: we were told to stop.
pub fn collect(client: &Client, bucket: &str) -> Result<Tried> {
    let client = client.hurried(ATTEMPT_LIMIT);
    match locks_what_is_written(&client, bucket) {
        Ok(false) => {}
        Ok(true) => {
            let head = client.sdk().head_bucket().bucket(bucket).send();
            let what = format!("cannot see the bucket `{bucket}`");
            return match client.call(head) {
                Ok(_) => Ok(Tried::OnlySeen),
                Err(error) => refused(client.failure(what, error)),
            };
        }
        Err(failure) => return refused(failure),
    }
    let tried = try_all(&client, bucket);
    tried.or_else(refused)
}

fn try_all(client: &Client, bucket: &str) -> Result<Tried> {
    let begun = Instant::now();
    let canary = Canary::put(client, bucket, "")?;
    let put = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let read = canary.get();
    let get = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let gone = canary.remove_and_see();
    let delete = begun.elapsed().as_secs_f64();
    Ok(Tried::Done {
        same: read? == TEXT,
        gone: gone?,
        put,
        get,
        delete,
    })
}

fn refused(failure: Failure) -> Result<Tried> {
    // Whoever told us to stop is not the service.
    stop::check()?;
    Ok(Tried::Refused {
        why: failure.to_string(),
        fix: failure.hints().join("; "),
    })
}

/// Whether every new object is locked. A key that may not ask, or a service without locks, is taken
/// for none: the put that follows says what is wrong. A service that does not answer is an error: it
/// would not answer the put either.
fn locks_what_is_written(client: &Client, bucket: &str) -> Result<bool> {
    let call = client.sdk().get_object_lock_configuration();
    match client.call(call.bucket(bucket).send()) {
        Ok(found) => Ok(found
            .object_lock_configuration
            .and_then(|found| found.rule?.default_retention)
            .is_some()),
        Err(error)
            if matches!(
                error.kind,
                Kind::Unreachable | Kind::TooLate | Kind::Stopped
            ) =>
        {
            Err(client.failure(format!("cannot ask for the bucket `{bucket}`"), error))
        }
        Err(_) => Ok(false),
    }
}

/// Judges a bucket.
pub fn judge(bucket: &str, tried: &Tried) -> Verdict {
    match tried {
        Tried::Refused { why, fix } => Verdict::fail(why, fix),
        Tried::OnlySeen => Verdict::pass(format!(
            "`{bucket}` answers; it locks what is written, so nothing was put"
        )),
        Tried::Done {
            put,
            get,
            delete,
            same,
            gone,
        } => {
            let mut tally = Tally::default();
            for (name, seconds) in [("put", put), ("get", get), ("delete", delete)] {
                tally.figure(Figure::new(name, *seconds, Unit::Seconds));
            }
            let probe = "rg-bucket probe";
            if !same {
                tally.fail(
                    format!("`{bucket}` gave back other bytes than were put"),
                    probe,
                );
            }
            if !gone {
                tally.fail(
                    format!("an object of `{bucket}` is still there after it was deleted"),
                    probe,
                );
            }
            tally.settle(format!(
                "`{bucket}` puts, gets and deletes: {:.0} ms, {:.0} ms, {:.0} ms",
                put * 1000.0,
                get * 1000.0,
                delete * 1000.0
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    fn done(same: bool, gone: bool) -> Tried {
        Tried::Done {
            put: 0.012,
            get: 0.003,
            delete: 0.004,
            same,
            gone,
        }
    }

    #[test]
    fn a_bucket_is_judged_in_exact_words() {
        let said = |tried: &Tried| {
            let verdict = judge("b", tried);
            (verdict.state, verdict.found)
        };
        assert_eq!(
            said(&done(true, true)),
            (
                State::Pass,
                "`b` puts, gets and deletes: 12 ms, 3 ms, 4 ms".into()
            )
        );
        assert_eq!(
            said(&done(false, true)),
            (
                State::Fail,
                "`b` gave back other bytes than were put".into()
            )
        );
        assert_eq!(
            said(&done(true, false)),
            (
                State::Fail,
                "an object of `b` is still there after it was deleted".into()
            )
        );
        assert_eq!(said(&Tried::OnlySeen).0, State::Pass);
        let refused = Tried::Refused {
            why: "no".into(),
            fix: "ask".into(),
        };
        assert_eq!(said(&refused), (State::Fail, "no".into()));
    }
}
