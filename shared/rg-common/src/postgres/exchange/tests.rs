use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::postgres::cluster::{Cluster, cluster};
use crate::postgres::connect::dial;
use crate::postgres::facts;

const OLD: &str = "CREATE TABLE marker (era text); INSERT INTO marker VALUES ('old');
    CREATE TABLE work (client int, n int)";
const NEW: &str = "CREATE TABLE marker (era text); INSERT INTO marker VALUES ('new');
    CREATE TABLE work (client int, n int)";

/// Names for one exchange.
struct Names {
    live: String,
    fresh: String,
    aside: String,
}

fn databases(cluster: &Cluster) -> Names {
    let live = cluster.database("live", OLD);
    Names {
        fresh: cluster.database(&format!("{live}_fresh"), NEW),
        aside: format!("{live}_aside"),
        live,
    }
}

fn era(database: &str) -> String {
    cluster()
        .session(database)
        .value("SELECT era FROM marker", &[])
        .unwrap()
}

impl Names {
    fn exchange(&self, admin: &Session) -> Result<()> {
        exchange(admin, &self.live, &self.fresh, &self.aside)
    }

    fn nothing_happened(&self) {
        assert_eq!(era(&self.live), "old");
        assert_eq!(era(&self.fresh), "new");
        assert!(!facts::exists(&cluster().session("postgres"), &self.aside).unwrap());
    }
}

#[test]
fn the_new_database_takes_the_name_and_undo_gives_it_back() {
    let cluster = cluster();
    let names = databases(cluster);
    let admin = maintenance(&cluster.connector(), &cluster.url(&names.live)).unwrap();
    names.exchange(&admin).unwrap();
    assert_eq!(
        (era(&names.live), era(&names.aside)),
        ("new".into(), "old".into())
    );
    exchange(&admin, &names.live, &names.aside, &names.fresh).unwrap();
    names.nothing_happened();
}

#[test]
fn on_a_server_without_the_live_one_it_is_a_rename() {
    let cluster = cluster();
    let fresh = cluster.database("only", NEW);
    let live = cluster.unique("absent");
    exchange(&cluster.session("postgres"), &live, &fresh, "never used").unwrap();
    assert_eq!(era(&live), "new");
}

/// What one client in a tight loop went through.
#[derive(Default)]
struct Story {
    done: i64,
    lost: usize,
    refused: usize,
    eras: Vec<String>,
}

async fn tight_loop(url: DatabaseUrl, client_number: i32, stop: Arc<AtomicBool>) -> Story {
    let mut story = Story::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, connection)) = dial(&url, "storm", None).await else {
            story.refused += 1;
            continue;
        };
        let driver = tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            let era = client.query_one("SELECT era FROM marker", &[]).await;
            let Ok(era) = era else {
                story.lost += 1;
                break;
            };
            let era: String = era.get(0);
            if story.eras.last() != Some(&era) {
                story.eras.push(era);
            }
            let inserted = client
                .execute("INSERT INTO work VALUES ($1, 1)", &[&client_number])
                .await;
            if inserted.is_err() {
                story.lost += 1;
                break;
            }
            story.done += 1;
        }
        drop(client);
        drop(driver.await);
    }
    story
}

#[test]
fn clients_in_tight_loops_lose_at_most_one_statement_and_never_see_a_third_thing() {
    const CLIENTS: i32 = 8;
    let cluster = cluster();
    let names = databases(cluster);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = tight_loop(cluster.url(&names.live), number, Arc::clone(&stop));
            cluster.runtime().spawn(client)
        })
        .collect();
    let rows = |database: &str| -> i64 {
        let session = cluster.session(database);
        session.value("SELECT count(*) FROM work", &[]).unwrap()
    };
    let busy = |database: &str| -> bool {
        let session = cluster.session(database);
        let clients: i64 = session
            .value("SELECT count(DISTINCT client) FROM work", &[])
            .unwrap();
        clients == i64::from(CLIENTS)
    };
    while !busy(&names.live) {}
    // A session of somebody who does nothing, and one with the fresh database, are in the way too.
    let idle = cluster.session(&names.live);
    let late = cluster.session(&names.fresh);
    names.exchange(&cluster.session("postgres")).unwrap();
    while !busy(&names.live) {}
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    let mut lost = 0;
    for client in clients {
        let story = cluster.runtime().block_on(client).unwrap();
        assert!(story.lost <= 1, "lost {}", story.lost);
        assert!(story.refused <= 1, "refused {}", story.refused);
        assert_eq!(story.eras, ["old", "new"]);
        done += story.done;
        lost += story.lost as i64;
    }
    let kept = rows(&names.live) + rows(&names.aside);
    assert!((done..=done + lost).contains(&kept), "{done} {lost} {kept}");
    assert!(idle.execute("SELECT 1").is_err());
    assert!(late.execute("SELECT 1").is_err());
}

/// An owner without further rights, and its session with `postgres`.
fn owner(cluster: &Cluster, names: &Names, more: &str) -> (String, Session) {
    let role = cluster.unique("owner");
    let session = cluster.session("postgres");
    session
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p' {more}"))
        .unwrap();
    for database in [&names.live, &names.fresh] {
        session
            .execute(&format!("ALTER DATABASE {database} OWNER TO {role}"))
            .unwrap();
    }
    let url = cluster.address(&format!(
        "postgresql://{role}:p@127.0.0.1:{}/postgres",
        cluster.port
    ));
    (role, cluster.connector().open(&url).unwrap())
}

#[test]
fn a_superusers_session_that_we_may_not_end_is_named_and_nothing_changes() {
    let cluster = cluster();
    let names = databases(cluster);
    let (_, admin) = owner(cluster, &names, "CREATEDB");
    let held = cluster.session(&names.live);
    let failure = names.exchange(&admin).unwrap_err();
    let pid: i32 = held.value("SELECT pg_backend_pid()", &[]).unwrap();
    let (live, fresh) = (&names.live, &names.fresh);
    assert_eq!(
        failure.to_string(),
        format!(
            "cannot exchange database `{live}` for `{fresh}`: sessions of `{live}` or `{fresh}` did not end: pid {pid} (role postgres, rg-test)"
        )
    );
    assert_eq!(
        failure.hints(),
        [
            "a superuser's session can only be ended by a superuser: SELECT pg_terminate_backend(PID)"
        ]
    );
    names.nothing_happened();
    held.close();
}

#[test]
fn an_owner_needs_pg_signal_backend_for_other_roles_sessions() {
    let cluster = cluster();
    let names = databases(cluster);
    let (role, admin) = owner(cluster, &names, "CREATEDB");
    let other = cluster.unique("other");
    let session = cluster.session("postgres");
    session
        .execute(&format!("CREATE ROLE {other} LOGIN PASSWORD 'p'"))
        .unwrap();
    let url = cluster.address(&format!(
        "postgresql://{other}:p@127.0.0.1:{}/{}",
        cluster.port, names.live
    ));
    let held = cluster.connector().open(&url).unwrap();
    let failure = names.exchange(&admin).unwrap_err();
    assert_eq!(
        failure.hints(),
        [format!(
            "as a superuser: GRANT pg_signal_backend TO \"{role}\""
        )]
    );
    names.nothing_happened();
    session
        .execute(&format!("GRANT pg_signal_backend TO {role}"))
        .unwrap();
    names.exchange(&admin).unwrap();
    assert_eq!(era(&names.live), "new");
    assert!(held.execute("SELECT 1").is_err());
}

#[test]
fn an_owner_who_may_not_rename_is_told_so() {
    let cluster = cluster();
    let names = databases(cluster);
    let (role, admin) = owner(cluster, &names, "");
    let failure = names.exchange(&admin).unwrap_err();
    assert!(
        failure.hints()[0].contains(&format!("ALTER ROLE \"{role}\" CREATEDB")),
        "{failure:?}"
    );
    names.nothing_happened();
}

#[test]
fn what_hangs_on_the_live_database_is_named_and_nothing_changes() {
    let cluster = cluster();
    for (setup, undo, what) in [
        (
            "BEGIN; INSERT INTO work VALUES (0, 0); PREPARE TRANSACTION 'half done'",
            "ROLLBACK PREPARED 'half done'",
            "prepared transactions: half done",
        ),
        (
            "SELECT pg_create_logical_replication_slot('follower', 'pgoutput')",
            "SELECT pg_drop_replication_slot('follower')",
            "logical replication slots: follower",
        ),
        (
            "CREATE SUBSCRIPTION mirror CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p
                 WITH (connect = false, slot_name = 'mirror');
             ALTER SUBSCRIPTION mirror ENABLE",
            "ALTER SUBSCRIPTION mirror DISABLE;
             ALTER SUBSCRIPTION mirror SET (slot_name = NONE);
             DROP SUBSCRIPTION mirror",
            "active subscriptions: mirror",
        ),
    ] {
        let names = databases(cluster);
        let session = cluster.session(&names.live);
        session.execute(setup).unwrap();
        let failure = names.exchange(&cluster.session("postgres")).unwrap_err();
        assert!(failure.to_string().ends_with(what), "{failure}");
        names.nothing_happened();
        session.execute(undo).unwrap();
    }
}

#[test]
fn names_that_do_not_fit_are_refused_and_nothing_changes() {
    let cluster = cluster();
    let names = databases(cluster);
    let admin = cluster.session("postgres");
    let missing = exchange(&admin, &names.live, "missing", &names.aside).unwrap_err();
    assert!(
        missing
            .to_string()
            .ends_with("there is no database `missing`")
    );
    let taken = exchange(&admin, &names.live, &names.fresh, "postgres").unwrap_err();
    assert!(taken.hints()[0].contains("is there already"), "{taken:?}");
    let within = names.exchange(&cluster.session(&names.live)).unwrap_err();
    assert!(within.to_string().contains("is connected to"), "{within}");
    names.nothing_happened();
}

#[test]
fn an_admin_that_is_killed_half_way_leaves_everything_as_it_was() {
    let cluster = cluster();
    let names = databases(cluster);
    let (_, admin) = owner(cluster, &names, "CREATEDB");
    let pid: i32 = admin.value("SELECT pg_backend_pid()", &[]).unwrap();
    // Its rename waits for this session of a superuser, which it may not end.
    let held = cluster.session(&names.live);
    let failure = std::thread::scope(|scope| {
        let exchanging = scope.spawn(|| names.exchange(&admin).unwrap_err());
        let killer = cluster.session("postgres");
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND granted
            AND classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock')";
        while !killer.value::<bool>(waits, &[&pid]).unwrap() {}
        killer
            .execute(&format!("SELECT pg_terminate_backend({pid})"))
            .unwrap();
        exchanging.join().unwrap()
    });
    assert!(failure.to_string().contains("cannot exchange"), "{failure}");
    held.close();
    names.nothing_happened();
}
