//! Thousands of backups at once, for whoever measures a catalog: each a manifest like one that is
//! there, and a byte of data.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use jiff::{SignedDuration, Timestamp};
use rg_common::catalog::Manifest;
use rg_common::names::Stamp;
use rg_common::store::{Key, Store};

/// So many are written at once.
const AT_ONCE: usize = 8;

/// Fills a store with so many backups, one a minute from 2020 on, each with this manifest but for its
/// stamp. What is there already is written again.
pub fn many_backups(manifest: &[u8], to: &dyn Store, count: u32) {
    let first: Timestamp = "2020-01-01T00:00:00Z".parse().expect("a time");
    let next = AtomicU32::new(0);
    let write = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let mut one = Manifest::parse(manifest).expect("a manifest");
            let folder = one.id.dataset.as_str().to_owned();
            let like = one.id.stem();
            one.id.stamp = Stamp::at(first + SignedDuration::from_mins(i64::from(number)));
            one.file = one.file.replace(&like, &one.id.stem());
            one.stored.bytes = 1;
            let put = |name: &str, body: &str| {
                let key = Key::new(format!("{folder}/{name}")).expect("a key");
                to.put(&key, &mut body.as_bytes()).expect("it can be put");
            };
            put(&one.file, "x");
            let name = format!("{}.manifest.json", one.id.stem());
            put(&name, &one.render().expect("a manifest"));
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(write);
        }
    });
}
