//! `list`: objects or versions, bounded. Where there is more, it says so and names the place.

use rg_common::Result;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

use crate::args;
use crate::pages::{Object, Objects, Version, Versions, printable};
use crate::target::choose_one;

#[derive(Serialize)]
struct Listing {
    name: String,
    bucket: String,
    objects: Vec<Row>,
    /// Whether the list was cut at `--limit`.
    more: bool,
    /// Where to go on: `--after`.
    next: Option<String>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    bytes: u64,
    modified: Option<String>,
    etag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
}

/// `rg-bucket list`
pub fn list(context: &Context, args: &args::List) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let target = choose_one(&config, args.bucket.as_deref())?.open(context, &config)?;
    let prefix = format!("{}{}", target.prefix, args.prefix);
    let limit = args.limit as usize;
    let after = args
        .after
        .as_ref()
        .map(|key| format!("{}{key}", target.prefix));
    let mut rows: Vec<Row> = Vec::new();
    // One more than shown is read, to know whether there is more.
    if args.versions {
        let mut pages = Versions::new(&target, &prefix);
        while rows.len() <= limit {
            let page = pages.next_page().map_err(|error| {
                target.client.failure(
                    format!("cannot list the versions in the bucket `{}`", target.bucket),
                    error,
                )
            })?;
            let Some(page) = page else { break };
            rows.extend(page.into_iter().map(Row::of_version));
        }
    } else {
        let mut pages = Objects::new(&target, &prefix).after(after);
        while rows.len() <= limit {
            let Some(page) = pages.next_page()? else {
                break;
            };
            rows.extend(page.into_iter().map(Row::of_object));
        }
    }
    // As every other command takes them: without what the store's own keys begin with.
    for row in &mut rows {
        if let Some(own) = row.key.strip_prefix(&target.prefix) {
            row.key = own.to_owned();
        }
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more && !args.versions)
        .map(|row| row.key.clone());
    Ok(Box::new(Listing {
        name: target.name,
        bucket: target.bucket,
        objects: rows,
        more,
        next,
    }))
}

impl Row {
    fn of_object(object: Object) -> Row {
        Row {
            key: object.key,
            bytes: object.size,
            modified: object.modified.map(|time| time.to_string()),
            etag: object.etag,
            version: None,
            latest: None,
            deleted: None,
        }
    }

    fn of_version(version: Version) -> Row {
        Row {
            version: Some(version.id),
            latest: Some(version.latest),
            deleted: Some(version.marker),
            ..Row::of_object(version.object)
        }
    }
}

impl Report for Listing {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let versions = self.objects.iter().any(|row| row.version.is_some());
        let rows: Vec<Vec<(Tone, String)>> = self
            .objects
            .iter()
            .map(|row| {
                let size = if row.deleted == Some(true) {
                    "deleted".to_owned()
                } else {
                    report::bytes(row.bytes)
                };
                let mut cells = vec![
                    (
                        Tone::Plain,
                        row.modified.clone().unwrap_or_else(|| "?".to_owned()),
                    ),
                    (Tone::Plain, size),
                ];
                if let Some(version) = &row.version {
                    let tone = if row.latest == Some(true) {
                        Tone::Good
                    } else {
                        Tone::Faint
                    };
                    cells.push((tone, version.clone()));
                }
                cells.push((Tone::Plain, printable(&row.key)));
                cells
            })
            .collect();
        let header: &[&str] = if versions {
            &["MODIFIED", "SIZE", "VERSION", "KEY"]
        } else {
            &["MODIFIED", "SIZE", "KEY"]
        };
        page.table(header, &rows);
        if rows.is_empty() {
            page.line(format!("nothing in `{}`", self.bucket));
        }
        match (&self.next, self.more) {
            (Some(next), _) => page.line(format!("there is more: --after '{}'", printable(next))),
            (None, true) => page.line("there is more: --limit or --prefix"),
            _ => {}
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}
