//! A sandbox that is configured like a small deployment: an environment `app` with a database, an
//! env file that holds its address, and one store; and the questions that every test of a backup
//! asks: what is listed, is all of it whole, does it restore with standard tools.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fake_program::FakeProgram;
use crate::postgres::{Postgres, TableDigest};
use crate::run::{Output, Running, Tool};
use crate::sandbox::Sandbox;

/// Puts `$1/pg_dump` in the place of that in `$2`, for one process and what it starts.
const BEHIND_PG_DUMP: &str = "mount --bind \"$1/pg_dump\" \"$2/pg_dump\" || exit 99; shift 2";

/// Small tables with what a dump must carry: a quoted name, bytes, NULL and empty text, line ends,
/// an empty table, a view. About 300 KB of dump.
pub const TABLES: &str = r#"
CREATE TABLE customers (id serial PRIMARY KEY, name text, note text, added timestamptz);
INSERT INTO customers (name, note, added)
  SELECT 'name ' || i, nullif(repeat(md5(i::text), 1 + i % 5), md5('7')), timestamptz '2026-01-01' + i * interval '1 minute'
  FROM generate_series(1, 1500) i;
INSERT INTO customers (name, note) VALUES ('', E'two\nlines\tand \\ a tab'), (NULL, '\.');
CREATE TABLE "Odd ""name""" (id int, body bytea);
INSERT INTO "Odd ""name""" SELECT i, decode(md5(i::text) || md5((i + 1)::text), 'hex') FROM generate_series(1, 700) i;
CREATE TABLE empty_one (id int);
CREATE VIEW names AS SELECT name FROM customers;
"#;

/// A deployment in a sandbox; everything that a [`Sandbox`] can do it can do too.
pub struct Site {
    place: Sandbox,
    driver: &'static str,
    url: String,
    database: String,
}

/// A [`Site`] with a new database of that name, or at any URL.
#[macro_export]
macro_rules! site {
    ($database:expr) => {
        $crate::Site::new(
            $crate::sandbox!(),
            env!("CARGO_BIN_EXE_rg-driver"),
            $database,
        )
    };
    ($database:expr, $url:expr) => {
        $crate::Site::at(
            $crate::sandbox!(),
            env!("CARGO_BIN_EXE_rg-driver"),
            $database,
            $url,
        )
    };
}

impl Deref for Site {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.place
    }
}

impl Site {
    /// A new database of the shared cluster with [`TABLES`] in it, backed up into `store`; tests
    /// say `site!(…)`.
    #[track_caller]
    pub fn new(place: Sandbox, driver: &'static str, database: &str) -> Site {
        let cluster = Postgres::shared();
        let url = cluster.create_database(database);
        cluster.psql(database, TABLES);
        Site::at(place, driver, database, &url)
    }

    /// Any database by its URL.
    pub fn at(place: Sandbox, driver: &'static str, database: &str, url: &str) -> Site {
        let site = Site {
            place,
            driver,
            url: url.to_owned(),
            database: database.to_owned(),
        };
        site.address(url);
        site.configure("");
        site
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The database's URL as it was made.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes another address into the env file.
    pub fn address(&self, url: &str) {
        let quoted = url.replace('\'', "%27");
        self.write("env", format!("DATABASE_URL='{quoted}'\n"));
    }

    /// Writes `rg.toml` with one store; `rest` is what follows the database's `url`: further keys
    /// of it, then further tables. `{root}` in it becomes this place.
    pub fn configure(&self, rest: &str) {
        self.configure_stores("[stores.local]\nurl = \"file://{root}/store\"\n", rest);
    }

    /// The same with any stores.
    pub fn configure_stores(&self, stores: &str, rest: &str) {
        self.config(&format!(
            "{stores}\n[environments.app]\nenv_file = \"env\"\n\n[environments.app.database]\n\
             url = \"$DATABASE_URL\"\n{rest}\n"
        ));
    }

    /// From now on the tools find a `pg_dump` that does `body` instead of the server's own, where
    /// that lies; the real one is `"$real"`. Like the small disk this needs root or user namespaces.
    pub fn pg_dump_does(&self, body: &str) -> FakeProgram {
        let real = self.path("real-pg_dump");
        if !real.exists() {
            let own = Postgres::shared().bin().join("pg_dump");
            self.program(
                "install",
                ["-m755".as_ref(), own.as_os_str(), real.as_os_str()],
            )
            .run()
            .ok();
        }
        let fake = FakeProgram::new(self, "pg_dump");
        // Others ask for its version too: pg_dumpall, before it begins.
        fake.does(&format!(
            "real='{}'\ncase $1 in -V|--version) exec \"$real\" \"$1\" ;; esac\n{body}",
            real.display()
        ));
        fake
    }

    /// `rg-backup` with these arguments, ready to run.
    pub fn backup_tool(&self, args: &[&str]) -> Tool {
        let bin = self.path("bin");
        if !bin.join("pg_dump").exists() {
            return self.tool("rg-backup", args.iter().copied());
        }
        let words = [&*bin, Postgres::shared().bin(), Path::new(self.driver)];
        let tool = self.behind(BEHIND_PG_DUMP, words).arg("rg-backup");
        args.iter().fold(tool, |tool, arg| tool.arg(arg))
    }

    /// Runs `rg-backup` to its end.
    pub fn rg_backup(&self, args: &[&str]) -> Output {
        self.backup_tool(args).run()
    }

    /// Starts `rg-backup` in the background.
    pub fn spawn_backup(&self, args: &[&str]) -> Running {
        self.backup_tool(args).spawn()
    }

    /// `rg-backup run app/database`, whatever comes of it.
    pub fn try_backup(&self) -> Output {
        self.rg_backup(&["run", "app/database"])
    }

    /// A good backup; its id.
    #[track_caller]
    pub fn backup(&self) -> String {
        let output = self.rg_backup(&["run", "app/database", "--json"]).ok();
        let id = output.json()["backups"][0]["id"].clone();
        id.as_str().expect("the id of the new backup").to_owned()
    }

    /// The ids that `rg-backup list` shows, the oldest first; it must find no stranger.
    #[track_caller]
    pub fn list(&self) -> Vec<String> {
        let document = self.run("rg-backup", ["list", "--json"]).ok().json();
        assert_eq!(document["strangers"], serde_json::json!([]), "{document:#}");
        let rows = document["backups"].as_array().expect("a list").iter();
        rows.map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// Demands that everything listed is whole to its last byte; the ids.
    #[track_caller]
    pub fn all_whole(&self) -> Vec<String> {
        let ids = self.list();
        if !ids.is_empty() {
            self.run("rg-backup", ["verify", "--all"]).ok();
        }
        ids
    }

    /// The manifests in a folder of this place and below it, by path, the oldest first.
    pub fn manifests(&self, folder: &str) -> Vec<(PathBuf, Value)> {
        let names = self.files(folder).into_iter();
        names
            .filter(|name| name.ends_with(".manifest.json"))
            .map(|name| {
                let path = self.path(folder).join(name);
                let text = fs::read(&path).expect("a manifest");
                let value = serde_json::from_slice(&text).expect("a manifest is JSON");
                (path, value)
            })
            .collect()
    }

    /// The newest manifest in `store`.
    #[track_caller]
    pub fn manifest(&self) -> Value {
        let newest = self.manifests("store").pop();
        newest.expect("a manifest in the store").1
    }

    /// What lies in `store` apart from locks and the store's mark.
    pub fn stored(&self) -> Vec<String> {
        let all = self.files("store").into_iter();
        all.filter(|name| !name.ends_with(".rg-lock") && name != ".rg-store")
            .collect()
    }

    /// Restores the newest backup in `store` into a new database by the command line that its
    /// manifest gives, in a shell, with the standard tools; the tables that came.
    #[track_caller]
    pub fn restore_with_standard_tools(
        &self,
        into: &str,
        identity: &Path,
    ) -> BTreeMap<String, TableDigest> {
        let cluster = Postgres::shared();
        cluster.create_database(into);
        let (path, manifest) = self.manifests("store").pop().expect("a manifest");
        let pipe = manifest["restore_with"].as_str().expect("its pipe");
        let pipe = pipe
            .replace("IDENTITY", &identity.to_string_lossy())
            .replace("NEW_DATABASE", into);
        self.program("bash", ["-c", &format!("set -eo pipefail; {pipe}")])
            .current_dir(path.parent().expect("the manifest's folder"))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", cluster.password("postgres"))
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .run()
            .ok();
        cluster.digest(into)
    }
}

/// An age key pair made by `age-keygen`: the public key, and the identity's file.
#[track_caller]
pub fn age_key(place: &Sandbox) -> (String, PathBuf) {
    let file = place.path("identity.key");
    place
        .program("age-keygen", ["-o".as_ref(), file.as_os_str()])
        .run()
        .ok();
    let public = place
        .program("age-keygen", ["-y".as_ref(), file.as_os_str()])
        .run()
        .ok();
    (public.out().trim().to_owned(), file)
}

/// The process ids whose environment names this database as libpq does: programs of PostgreSQL
/// that were started for it and are still there.
pub fn programs_for(database: &str) -> Vec<u32> {
    let wanted = format!("PGDATABASE={database}");
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|pair| pair == wanted.as_bytes())
        })
        .collect()
}
