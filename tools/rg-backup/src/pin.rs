//! Keeping one backup for ever, and no longer.

use rg_common::cli::Context;
use rg_common::report::{Outcome, Plain, Report};
use rg_common::{Failure, Result, catalog, store};
use serde::Serialize;

use crate::args::Pin;

#[derive(Serialize)]
struct Pinned {
    id: String,
    pinned: bool,
    stores: Vec<String>,
}

/// Pins or unpins a backup in every store that has it.
pub fn set(context: &Context, args: &Pin, pinned: bool) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut stores = Vec::new();
    for named in &config.stores {
        let store = store::open_named(&config, &named.name)?;
        if !catalog::read(&*store, Some(&args.id.dataset))?
            .copies
            .contains_key(&args.id)
        {
            continue;
        }
        if !args.dry_run {
            let _lock = store.lock(args.id.dataset.as_str())?;
            catalog::set_pin(&*store, &args.id, pinned)?;
        }
        stores.push(named.name.clone());
    }
    if stores.is_empty() {
        return Err(Failure::new(format!("no backup {} in any store", args.id))
            .hint("`rg-backup list` shows what there is"));
    }
    let word = if pinned { "pinned" } else { "unpinned" };
    let text = format!("{word} {} in {}", args.id, stores.join(", "));
    let document = Pinned {
        id: args.id.to_string(),
        pinned,
        stores,
    };
    Ok(Box::new(Plain {
        document,
        text,
        outcome: Outcome::Well,
    }))
}
