//! A small deployment to be restored: an app's role, database and uploads, backed up into a store;
//! and the questions that every test of a restore asks: is the live data as it was, is anything
//! left over.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::demo::write_uploads;
use crate::fake_program::FakeProgram;
use crate::postgres::{Postgres, TableDigest};
use crate::run::{Output, Running, Tool};
use crate::sandbox::Sandbox;

/// A few hundred rows with what a restore must bring back; about 100 KB.
const SHOP: &str = r#"
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, note text);
INSERT INTO customers (name, note) SELECT 'customer ' || i, nullif(repeat(md5(i::text), i % 5), '')
  FROM generate_series(1, 300) i;
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer int NOT NULL REFERENCES customers, total numeric(10, 2) CHECK (total >= 0), body bytea);
INSERT INTO orders (customer, total, body) SELECT 1 + i % 300, i / 7.0, decode(md5(i::text), 'hex')
  FROM generate_series(1, 500) i;
CREATE VIEW totals AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer;
"#;

/// Puts `$1/NAME` in the place of PostgreSQL's own in `$2`, for one process and what it starts.
const BEHIND: &str = "for p in \"$1\"/pg_restore \"$1\"/psql; do [ ! -e \"$p\" ] || \
    mount --bind \"$p\" \"$2/${p##*/}\" || exit 99; done; shift 2";

/// Every path below `$1` with kind, mode, owner, time, size, link and hard links; then contents,
/// extended attributes and access lists: by find, sha256sum, getfattr and getfacl.
const TREE: &str = r#"cd "$1" || exit 1; export LC_ALL=C
find . -printf '%y %m %U:%G %T@ %s %n %l %p\0' | sort -z | tr '\0' '\n' | sed -E 's/^(d [^ ]+ [^ ]+ [^ ]+) [0-9]+ [0-9]+/\1/'
find . -type f -print0 | sort -z | xargs -0 -r sha256sum
find . -print0 | sort -z | xargs -0 -r getfattr -h -d -m '^user\.' -- 2>/dev/null
find . ! -type l -print0 | sort -z | xargs -0 -r getfacl -n -p -- 2>/dev/null
true"#;

/// What a deployment holds at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Every table.
    pub rows: BTreeMap<String, TableDigest>,
    /// Every path of the uploads, as the system's own programs tell.
    pub tree: String,
}

/// The deployment; everything that a [`Sandbox`] can do it can do too.
pub struct Deployment<'a> {
    place: Sandbox,
    /// The server.
    pub cluster: &'a Postgres,
    /// The live database, owned by the role of the same name.
    pub database: String,
    /// The live uploads.
    pub uploads: PathBuf,
}

/// A new [`Deployment`](crate::Deployment) on the shared cluster, with a database of that name.
#[macro_export]
macro_rules! deployment {
    ($database:expr) => {
        $crate::Deployment::new($crate::sandbox!(), $crate::Postgres::shared(), $database)
    };
}

impl Deref for Deployment<'_> {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.place
    }
}

impl<'a> Deployment<'a> {
    /// Role, database, uploads and configuration; not yet backed up.
    #[track_caller]
    pub fn new(place: Sandbox, cluster: &'a Postgres, database: &str) -> Self {
        // Programs that the tools find where the distribution puts them need no help.
        if !cluster.bin().starts_with("/usr/lib/postgresql") {
            place.put_on_path(cluster.bin());
        }
        cluster.role(database, "LOGIN CREATEDB");
        let url = cluster.create_database_of(database, database);
        cluster.try_psql(database, database, SHOP).ok();
        let uploads = place.path("srv/uploads");
        write_uploads(&uploads, 30).expect("uploads");
        place.write("env", format!("DATABASE_URL={url}\n"));
        let deployment = Deployment {
            place,
            cluster,
            database: database.to_owned(),
            uploads,
        };
        deployment.configure("", "", "");
        deployment
    }

    /// Writes `rg.toml`: further keys of the database, further keys of the uploads, further tables.
    pub fn configure(&self, database: &str, uploads: &str, rest: &str) {
        self.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n\
             [environments.production]\nenv_file = \"env\"\n\
             [environments.production.database]\nurl = \"$DATABASE_URL\"\n{database}\n\
             [environments.production.files.uploads]\npath = \"srv/uploads\"\n{uploads}\n{rest}\n"
        ));
    }

    /// Backs up database and uploads; the backups' ids.
    #[track_caller]
    pub fn backup(&self) -> Vec<String> {
        self.backup_of("production")
    }

    /// Backs up what is selected; the backups' ids.
    #[track_caller]
    pub fn backup_of(&self, dataset: &str) -> Vec<String> {
        let output = self.run("rg-backup", ["run", dataset, "--json"]).ok();
        let document = output.json();
        let backups = document["backups"].as_array().expect("backups").iter();
        backups
            .map(|one| one["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// Changes rows and files, so that old and new can be told apart.
    pub fn change(&self, mark: &str) {
        let sql = format!(
            "INSERT INTO customers (name) VALUES ('{mark}'); DELETE FROM orders WHERE id % 7 = 0"
        );
        self.cluster.psql(&self.database, &sql);
        fs::write(self.uploads.join("mark"), mark).expect("an upload");
        fs::remove_file(self.uploads.join("deep/6/b/c/d/e/note 6.txt")).ok();
    }

    /// What is live now.
    #[track_caller]
    pub fn held(&self) -> Held {
        Held {
            rows: self.cluster.digest(&self.database),
            tree: self.tree(&self.uploads),
        }
    }

    /// A tree as the system's own programs tell it.
    #[track_caller]
    pub fn tree(&self, path: &Path) -> String {
        let words = ["-c", TREE, "tree"];
        self.program("bash", words).arg(path).run().ok().out()
    }

    /// Demands that a tree is as it was; says which lines differ.
    #[track_caller]
    pub fn tree_is(&self, path: &Path, wanted: &str) {
        let found = self.tree(path);
        let only = |a: &str, b: &str, sign: &str| -> Vec<String> {
            let known: Vec<&str> = b.lines().collect();
            let new = a.lines().filter(|line| !known.contains(line));
            new.map(|line| format!("{sign} {line}")).take(20).collect()
        };
        let differ = [only(wanted, &found, "-"), only(&found, wanted, "+")].concat();
        assert!(
            found == wanted,
            "{}:\n{}",
            path.display(),
            differ.join("\n")
        );
    }

    /// `rg-restore` with these arguments, ready to run, behind fake programs of PostgreSQL.
    pub fn restore_tool(&self, args: &[&str]) -> Tool {
        let bin = self.path("bin");
        if !bin.join("pg_restore").exists() && !bin.join("psql").exists() {
            return self.tool("rg-restore", args.iter().copied());
        }
        let words = [&bin, self.cluster.bin(), self.place.driver()];
        let behind = self.behind(BEHIND, words);
        args.iter()
            .fold(behind.arg("rg-restore"), |tool, arg| tool.arg(arg))
    }

    /// Runs `rg-restore` to its end.
    pub fn restore(&self, args: &[&str]) -> Output {
        self.restore_tool(args).run()
    }

    /// Starts `rg-restore` in the background.
    pub fn spawn_restore(&self, args: &[&str]) -> Running {
        self.restore_tool(args).spawn()
    }

    /// From now on `rg-restore` finds, where the server's own `name` lies, a program that does
    /// `body`; the real one is `"$real"`. Needs root or user namespaces.
    pub fn program_does(&self, name: &str, body: &str) -> FakeProgram {
        let real = self.path(format!("real-{name}"));
        if !real.exists() {
            let own = self.cluster.bin().join(name);
            let words = ["-m755".as_ref(), own.as_os_str(), real.as_os_str()];
            self.program("install", words).run().ok();
        }
        let fake = FakeProgram::new(self, name);
        fake.does(&format!("real='{}'\n{body}", real.display()));
        fake
    }

    /// The one file of the newest backup of a dataset whose name ends so.
    #[track_caller]
    pub fn stored(&self, dataset: &str, ending: &str) -> PathBuf {
        let folder = format!("store/{dataset}");
        let mut files = self.files(&folder);
        files.retain(|name| name.ends_with(ending));
        let newest = files.pop();
        self.path(folder).join(newest.expect("a stored file"))
    }

    /// Databases, directories and files that a restore made and did not put away: none when all
    /// is well. What was replaced and is kept for `undo` is not among them.
    pub fn left_over(&self) -> Vec<String> {
        let word = |name: &String| name.contains("_rg_restoring_") || name.contains("_rg_drill_");
        let mut all: Vec<String> = self.cluster.databases();
        all.retain(|name| name.starts_with(&format!("{}_rg_", self.database)) && word(name));
        let beside = fs::read_dir(self.path("srv")).into_iter().flatten();
        all.extend(
            beside
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.contains(".rg-restoring-")),
        );
        let scratch = fs::read_dir(self.path("state/tmp")).into_iter().flatten();
        all.extend(scratch.flatten().map(|e| e.path().display().to_string()));
        if self.path("state/restore/journal.json").exists() {
            all.push("journal.json".to_owned());
        }
        all
    }

    /// Demands that the live data is as it was and that nothing is left over.
    #[track_caller]
    pub fn is_as(&self, held: &Held) {
        assert!(
            self.held().rows == held.rows,
            "the live rows are not as they were"
        );
        self.tree_is(&self.uploads, &held.tree);
        assert_eq!(self.left_over(), [""; 0]);
    }

    /// The databases and directories kept for `undo`.
    pub fn kept(&self) -> Vec<String> {
        let mut all: Vec<String> = self.cluster.databases();
        all.retain(|name| name.starts_with(&format!("{}_rg_before_", self.database)));
        let beside = fs::read_dir(self.path("srv")).into_iter().flatten();
        all.extend(
            beside
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.contains(".rg-before-")),
        );
        all
    }
}
