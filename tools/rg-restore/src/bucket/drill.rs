//! A bucket's backup restored into a scratch bucket, compared, and removed again.

use rg_common::Failure;
use rg_common::cli::Context;
use rg_common::config::{BucketConfig, Config, DatasetConfig};
use rg_common::names::Stamp;
use rg_common::s3::Kind;
use rg_common::seal::Identities;

use super::backup::Backup;
use super::{Place, fill};
use crate::database::Trouble;
use crate::drill::COMPARED;
use crate::source::Source;

/// What was proven where the key may not make buckets.
const READ: &str = "read and compared, but not restored: the key may not make a bucket";
/// Between a bucket's name and the stamp of a drill.
const WORD: &str = "-rg-drill-";
/// Bucket names have no more letters than this.
const NAME_MAX: usize = 63;
/// The letters of a stamp.
const STAMP_LEN: usize = 15;

/// Reads and proves every object; where the key may make buckets they are put into one of their own
/// and read back.
pub fn drill(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    bucket: &BucketConfig,
    source: &Source,
    identities: Option<&Identities>,
) -> Result<&'static str, Trouble> {
    let place = Place::open(context, config, dataset, bucket)?;
    let prefix = prefix(place.target.name());
    sweep(&place, &prefix)?;
    let needed = source.needed(config)?;
    let backup = Backup::new(context, config, identities, source, &needed).recording();
    backup.prove(&place)?;
    let stamp = Stamp::at(context.clock()).to_string().replace('_', "-");
    let scratch = place.target.named(&format!("{prefix}{stamp}"));
    match scratch.try_make() {
        Ok(true) => {}
        Ok(false) => {
            let there = Failure::new(format!("{} is there already", scratch.shown()));
            return Err(Trouble::Unknown(there));
        }
        Err(error) if matches!(error.kind, Kind::Denied | Kind::Unsupported) => return Ok(READ),
        Err(error) => {
            let what = format!("cannot make {}", scratch.shown());
            return Err(Trouble::Unknown(place.target.failure(what, error)));
        }
    }
    let mut notes = Vec::new();
    // The objects were proven before: what differs now is the service's doing.
    let filled = fill(&place, &scratch, &backup, &mut notes);
    if let Err(failure) = scratch.remove() {
        tracing::warn!("{failure}; the next drill removes it");
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    filled.map(|()| COMPARED).map_err(Trouble::Unknown)
}

/// What the names of a bucket's scratch buckets begin with.
fn prefix(name: &str) -> String {
    let room = NAME_MAX - WORD.len() - STAMP_LEN;
    format!("{}{WORD}", &name[..name.len().min(room)])
}

/// Removes what killed drills left.
fn sweep(place: &Place, prefix: &str) -> Result<(), Failure> {
    for name in place.target.neighbours(prefix)? {
        let stamp = name.strip_prefix(prefix).unwrap_or_default();
        if stamp.replacen('-', "_", 1).parse::<Stamp>().is_ok() {
            tracing::info!("removing bucket `{name}`, left by a killed drill");
            place.target.named(&name).remove()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_buckets_name_is_one_that_services_take() {
        assert_eq!(prefix("artifacts"), "artifacts-rg-drill-");
        let long = prefix(&"a".repeat(NAME_MAX));
        assert_eq!(long.len() + STAMP_LEN, NAME_MAX);
    }
}
