//! A dump that did not end well never becomes a backup, wherever and however it ends.

use std::time::Duration;

use rg_tests::{Chance, Postgres, Signal, Site, eventually, programs_for, rounds, site};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);

/// The bytes of a whole dump.
fn size_of_dump(site: &Site) -> u64 {
    site.manifest()["plain"]["bytes"].as_u64().expect("a size")
}

/// A site with one good backup, whose retention would keep only the newest.
fn site_with_a_good_backup(site: Site, more: &str) -> (Site, String) {
    site.configure(&format!("keep = {{ last = 1 }}\n{more}"));
    let good = site.backup();
    (site, good)
}

#[test]
fn a_dump_that_dies_at_any_byte_leaves_no_backup() {
    for format in ["custom", "plain"] {
        let site = site!(&format!("dies_{format}"));
        let more = format!("format = \"{format}\"\n");
        let (site, good) = site_with_a_good_backup(site, &more);
        let before = site.stored();
        let size = size_of_dump(&site);
        let mut chance = Chance::new();
        let endings = ["exit 0", "exit 1", "kill -9 $$"];
        // The edges, then anywhere.
        let mut cuts = vec![0, 1, 5, 4096, size - 1];
        cuts.extend((0..rounds(15)).map(|_| chance.below(size)));
        for (number, cut) in cuts.into_iter().enumerate() {
            let ending = endings[number % endings.len()];
            // It ends badly even when all of its bytes came.
            site.pg_dump_does(&format!("\"$real\" \"$@\" | head -c {cut}\n{ending}"));
            let output = site.try_backup().fails(2);
            assert!(output.out().contains("app/database: "), "{cut}: {output:?}");
            assert_eq!(site.stored(), before, "{format}, {cut} bytes, {ending}");
        }
        site.pg_dump_does("\"$real\" \"$@\"; exit 3");
        let output = site.try_backup().fails(2);
        let words = "pg_dump ended with exit status 3";
        assert!(output.out().contains(words), "{output:?}");
        assert_eq!(site.stored(), before);
        assert_eq!(site.all_whole(), [good]);
        // And the next run needs no cleaning up by hand.
        site.pg_dump_does("exec \"$real\" \"$@\"");
        let next = site.backup();
        assert_eq!(site.all_whole(), [next]);
    }
}

#[test]
fn a_backend_that_is_terminated_while_it_copies_leaves_no_backup() {
    let cluster = Postgres::shared();
    let site = site!("terminated");
    let (site, good) = site_with_a_good_backup(site, "");
    // Enough rows that the copy is still going on when the pipe is full.
    cluster.psql(
        "terminated",
        "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS t FROM generate_series(1, 40000) i",
    );
    // The dump is read slowly: it stands still in the middle of the table.
    let gate = site.path("gate");
    site.pg_dump_does(&format!(
        "\"$real\" \"$@\" | {{ head -c 4000000; while [ ! -e '{}' ]; do sleep 0.05; done; cat; }}\n\
             exit ${{PIPESTATUS[0]}}",
        gate.display()
    ));
    let running = site.spawn_backup(&["run", "app/database"]);
    let copying = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = 'terminated' AND query LIKE 'COPY public.big%'";
    let ended = eventually(SOON, || cluster.psql("postgres", copying) != "0");
    assert!(ended, "pg_dump copies: {}", running.stderr_so_far());
    site.write("gate", "");
    let output = running.wait().fails(2);
    assert!(
        output.out().contains("pg_dump ended with exit status 1"),
        "{output:?}"
    );
    assert_eq!(site.all_whole(), [good]);
}

#[test]
fn a_wrong_password_makes_no_backup_and_deletes_none() {
    let site = site!("wrong_password");
    let (site, good) = site_with_a_good_backup(site, "");
    let before = site.stored();
    let password = Postgres::shared().password("postgres");
    site.address(&site.url().replace(&password, "not-the-password"));
    let output = site.try_backup().fails(2);
    let said = output.out();
    assert!(
        said.contains("password authentication failed for user \"postgres\""),
        "{output:?}"
    );
    assert!(
        said.contains("hint: check the password of role `postgres`"),
        "{output:?}"
    );
    assert!(!format!("{output:?}").contains("not-the-password"));
    assert_eq!(site.stored(), before);
    assert_eq!(site.all_whole(), [good]);
    site.address(site.url());
    site.backup();
}

#[test]
fn a_hanging_dump_ends_with_the_signal_and_leaves_nothing() {
    let site = site!("hangs");
    let (site, good) = site_with_a_good_backup(site, "");
    let before = site.stored();
    let hung = site.path("hung");
    let body = "\"$real\" \"$@\" | head -c 9000\n: >HUNG\nexec sleep 3600";
    site.pg_dump_does(&body.replace("HUNG", &hung.to_string_lossy()));
    let running = site.spawn_backup(&["run", "app/database"]);
    let begun = eventually(SOON, || hung.exists());
    assert!(begun, "{}", running.stderr_so_far());
    running.signal(Signal::TERM);
    let output = running.wait().fails(2);
    assert!(output.out().contains("stopped by a signal"), "{output:?}");
    assert!(output.wall < Duration::from_secs(20), "{output:?}");
    assert_eq!(site.stored(), before);
    assert_eq!(site.all_whole(), [good]);
    let gone = eventually(SOON, || programs_for("hangs").is_empty());
    assert!(gone, "no pg_dump is left");
}

#[test]
fn the_manifest_is_written_last_and_deleted_first() {
    let site = site!("order");
    site.configure("keep = { last = 1 }\n");
    site.backup();
    // What the kernel tells of the store's folder, in its order.
    let folder = site.path("store/app/database");
    let events = {
        use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
        let watch = inotify::init(CreateFlags::NONBLOCK).expect("inotify");
        let kinds = WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&watch, &folder, kinds).expect("a watch on the store's folder");
        site.backup();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(watch, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            let verb = match event.events() {
                kind if kind.contains(ReadFlags::DELETE) => "delete",
                _ => "put",
            };
            let name = event.file_name().expect("a name").to_string_lossy();
            let (_, kind) = name.split_once('.').expect("an extension");
            events.push(format!("{verb} {kind}"));
        }
        events
    };
    assert_eq!(
        events,
        [
            "put unfinished",
            "put dump.zst",
            "put manifest.json",
            "delete unfinished",
            // Retention, on the backup before.
            "put unfinished",
            "delete manifest.json",
            "delete dump.zst",
            "delete unfinished",
        ]
    );
}
