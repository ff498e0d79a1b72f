//! Whatever the format: standard tools restore what was backed up, and check it.

use std::fs;

use rg_tests::{Postgres, Running, Site, Tool, age_key, site};

/// Demands that the newest backup restores to the same tables by its manifest's own pipe.
#[track_caller]
fn restores(site: &Site, into: &str, identity: &std::path::Path) {
    let before = Postgres::shared().digest(site.database());
    let after = site.restore_with_standard_tools(into, identity);
    assert_eq!(before.len(), 3, "{before:?}");
    assert_eq!(before, after);
}

/// Checks the newest backup's files by `sha256sum -c` and its manifest by the documented line.
#[track_caller]
fn standard_tools_check_it(site: &Site) {
    let (path, manifest) = site.manifests("store").pop().expect("a manifest");
    let line = format!(
        "{}  {}\n",
        manifest["stored"]["sha256"].as_str().expect("a digest"),
        manifest["file"].as_str().expect("a name")
    );
    let folder = path.parent().expect("its folder");
    site.program("sha256sum", ["-c", "--strict", "-"])
        .stdin(line)
        .current_dir(folder)
        .run()
        .ok();
    let script = "sed '/^  \"manifest_sha256\"/,$d' \"$0\" | sha256sum | cut -d' ' -f1";
    let output = site.program("sh", ["-c", script]).arg(&path).run().ok();
    assert_eq!(
        output.out().trim(),
        manifest["manifest_sha256"].as_str().expect("a digest")
    );
}

#[test]
fn each_format_restores_with_the_pipe_in_its_manifest() {
    let site = site!("formats");
    let (public, identity) = age_key(&site);
    for format in ["custom", "plain"] {
        for compression in ["zstd", "gzip"] {
            for encrypted in [false, true] {
                let mut rest = format!("format = \"{format}\"\ncompression = \"{compression}\"\n");
                if encrypted {
                    rest.push_str(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
                }
                site.configure(&rest);
                site.backup();
                let name = format!("formats_{format}_{compression}_{encrypted}");
                restores(&site, &name, &identity);
                standard_tools_check_it(&site);
                let manifest = site.manifest();
                let file = manifest["file"].as_str().expect("a name");
                let inner = if format == "custom" { ".dump" } else { ".sql" };
                let outer = if compression == "zstd" { ".zst" } else { ".gz" };
                let last = if encrypted { ".age" } else { "" };
                assert!(file.ends_with(&format!("{inner}{outer}{last}")), "{file}");
                let rows: u64 = manifest["content"]["inventory"]["tables"]
                    .as_array()
                    .expect("the tables")
                    .iter()
                    .map(|table| table["rows"].as_u64().expect("a count"))
                    .sum();
                assert_eq!(rows, 1502 + 700, "{manifest:#}");
            }
        }
    }
    site.all_whole();
}

#[test]
fn gunzip_reads_a_backup_as_one_file_of_the_right_size() {
    let site = site!("formats_gzip");
    site.configure("compression = \"gzip\"\n");
    site.backup();
    let manifest = site.manifest();
    let file = manifest["file"].as_str().expect("a name");
    let path = site.path("store/app/database").join(file);
    site.program("gzip", ["-t"]).arg(&path).run().ok();
    let listed = site.program("gzip", ["-l"]).arg(&path).run().ok().out();
    let sizes: Vec<&str> = listed
        .lines()
        .nth(1)
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(
        sizes[0],
        manifest["stored"]["bytes"].to_string(),
        "{listed}"
    );
    assert_eq!(sizes[1], manifest["plain"]["bytes"].to_string(), "{listed}");
    let plain = site.program("gunzip", ["-c"]).arg(&path).run().ok();
    assert_eq!(
        plain.stdout.len().to_string(),
        manifest["plain"]["bytes"].to_string()
    );
}

#[test]
fn the_globals_of_a_server_restore_roles_with_their_passwords() {
    let site = site!("formats_globals");
    let cluster = Postgres::shared();
    cluster.psql(
        "postgres",
        "CREATE ROLE \"keeper \"\"of\"\" keys\" LOGIN CREATEDB PASSWORD 'a word'",
    );
    site.rg_backup(&["run", "globals"]).ok();
    let manifest = site.manifest();
    let roles = manifest["content"]["roles"].as_array().expect("roles");
    assert!(
        roles.iter().any(|role| role == "keeper \"of\" keys"),
        "{manifest:#}"
    );
    let bare = Postgres::start();
    let file = manifest["file"].as_str().expect("a name");
    let sql = site
        .program("zstd", ["-dc"])
        .arg(site.path("store/globals").join(file))
        .run()
        .ok();
    // The superuser is there already, and keeps the password that this test knows.
    let kept = |line: &&str| !line.contains(" ROLE postgres");
    let sql: Vec<String> = sql.out().lines().filter(kept).map(str::to_owned).collect();
    let sql = sql.join("\n");
    bare.psql("postgres", &sql);
    let ask =
        "SELECT rolname, rolcreatedb, rolpassword FROM pg_authid WHERE rolname LIKE 'keeper%'";
    assert_eq!(bare.psql("postgres", ask), cluster.psql("postgres", ask));
}

/// A session that stays open: `psql` reading from a pipe that the test holds.
fn exported_snapshot(site: &Site, counts: &std::path::Path) -> (Running, String) {
    let cluster = Postgres::shared();
    let script = format!(
        "(printf '%s\\n' \"$1\"; while [ ! -e '{}' ]; do sleep 0.05; done) | \"$0\" -XAtq -v ON_ERROR_STOP=1",
        site.path("done").display()
    );
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT pg_export_snapshot();\n\
         \\o {}\nSELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM \"Odd \"\"name\"\"\"), \
         (SELECT md5(string_agg(md5(c::text), '' ORDER BY md5(c::text))) FROM customers c);\n\\o\n",
        counts.display()
    );
    let running = site
        .program("sh", ["-c", &script])
        .arg(cluster.bin().join("psql"))
        .arg(sql)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", cluster.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", cluster.password("postgres"))
        .env("PGDATABASE", site.database())
        .spawn();
    let shown = rg_tests::eventually(std::time::Duration::from_secs(60), || {
        running.stdout_so_far().contains('\n')
            && fs::metadata(counts).is_ok_and(|meta| meta.len() > 32)
    });
    assert!(shown, "{}", running.stderr_so_far());
    let id = running.stdout_so_far().trim().to_owned();
    (running, id)
}

#[test]
fn the_inventory_is_that_of_the_snapshot_while_others_write() {
    let site = site!("formats_snapshot");
    let cluster = Postgres::shared();
    let writer = {
        let endless = "DO $$ BEGIN FOR i IN 1..100000 LOOP \
            INSERT INTO customers (name) VALUES ('late ' || i); COMMIT; PERFORM pg_sleep(0.0005); END LOOP; END $$";
        let mut command = cluster.command("psql", site.database(), "postgres");
        command.args(["-Xqc", endless]);
        Tool::new(command, "a writer").spawn()
    };
    let count = || cluster.psql(site.database(), "SELECT count(*) FROM customers");
    let grows = || {
        rg_tests::eventually(std::time::Duration::from_secs(60), {
            let before = count();
            move || count() != before
        })
    };
    assert!(grows(), "{}", writer.stderr_so_far());
    let counts = site.path("counts");
    let (session, snapshot) = exported_snapshot(&site, &counts);
    assert!(grows());
    site.rg_backup(&["run", "app/database", "--snapshot", &snapshot])
        .ok();
    assert!(grows());
    drop(writer);
    site.write("done", "");
    session.wait();
    let manifest = site.manifest();
    let tables = manifest["content"]["inventory"]["tables"]
        .as_array()
        .expect("tables");
    let rows = |name: &str| {
        let table = tables
            .iter()
            .find(|table| table["name"] == name)
            .expect("the table");
        table["rows"].as_u64().expect("a count").to_string()
    };
    let restored = site.restore_with_standard_tools("formats_snapshot_back", "-".as_ref());
    let in_snapshot = site.read("counts");
    let wanted: Vec<&str> = in_snapshot.trim().split('|').collect();
    assert_eq!(rows("customers"), wanted[0]);
    assert_eq!(rows("Odd \"name\""), wanted[1]);
    assert_eq!(restored["public.customers"].rows.to_string(), wanted[0]);
    assert_eq!(restored["public.customers"].md5, wanted[2]);
    assert_ne!(count(), wanted[0], "others wrote meanwhile");
}

#[test]
fn a_snapshot_that_is_gone_is_said_with_what_to_do() {
    let site = site!("formats_no_snapshot");
    let args = ["run", "app/database", "--snapshot", "00000003-0000001B-1"];
    let output = site.rg_backup(&args).fails(2);
    let words = "hint: the session that exported the snapshot must still be in its transaction";
    assert!(output.out().contains(words), "{output:?}");
    assert_eq!(site.stored(), [""; 0]);
}
