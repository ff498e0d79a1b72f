//! The machine is gone. What is left: `rg.toml`, the env files, the age identity and the key to the
//! off-site bucket. One command on an empty server brings back roles, databases, directories and
//! the app's bucket.

use std::fs;

use rg_tests::{Postgres, S3Bucket, S3Server, Sandbox, TABLES, age_key, on_every_server, sandbox};

on_every_server! {
    an_empty_machine_is_rebuilt_by_one_command_from_the_off_site_store,
}

/// A cluster as a distribution makes it: nobody but its superuser, who comes in by the socket as
/// the owner of the server's processes.
fn fresh_cluster() -> Postgres {
    let cluster = Postgres::setup()
        .setting("unix_socket_directories", "/tmp")
        .start();
    let data = cluster.socket_dir().join("data");
    let owner = fs::metadata(data.join("PG_VERSION")).expect("a cluster");
    let owner = owner_name(std::os::unix::fs::MetadataExt::uid(&owner));
    let hba = data.join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).expect("its rules");
    fs::write(&hba, format!("local all postgres peer map=owner\n{rules}")).expect("written");
    fs::write(
        data.join("pg_ident.conf"),
        format!("owner {owner} postgres\n"),
    )
    .expect("written");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    cluster
}

fn owner_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    };
    users.lines().find_map(of).expect("the server's user")
}

/// What an operator keeps outside of the machine, written onto a new one.
fn kit(machine: &Sandbox, offsite: &S3Bucket, app: &S3Bucket, port: u16, recipient: &str) {
    let env = format!(
        "DATABASE_URL=postgresql+asyncpg://app:s3cret-and-more@127.0.0.1:{port}/app\n{}",
        app.env()
    );
    machine.write("env", env);
    machine.write("offsite.env", offsite.key.env());
    fs::set_permissions(
        machine.path("offsite.env"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .expect("its mode");
    machine.config(&format!(
        "host = \"vps-1\"\nstate = \"{{root}}/state\"\n\n[stores.offsite]\nurl = \"s3://{}/vps-1\"\nendpoint = \"{}\"\n\
         credentials = \"offsite.env\"\n\n[encryption]\nrecipients = [\"{recipient}\"]\n\n\
         [environments.app]\nenv_file = \"env\"\n\n[environments.app.database]\nurl = \"$DATABASE_URL\"\n\n\
         [environments.app.files.uploads]\npath = \"uploads\"\n\n{}",
        offsite.name,
        offsite.endpoint,
        app.toml("artifacts")
    ));
}

fn an_empty_machine_is_rebuilt_by_one_command_from_the_off_site_store(server: &'static S3Server) {
    let (offsite, app) = (S3Bucket::new(server), S3Bucket::new(server));
    let safe = sandbox!();
    let (recipient, identity) = age_key(&safe);

    // What was there.
    let old = Postgres::start();
    old.psql(
        "postgres",
        "CREATE ROLE app LOGIN PASSWORD 's3cret-and-more'; CREATE ROLE readers",
    );
    old.psql(
        "postgres",
        "GRANT readers TO app; CREATE DATABASE app OWNER app",
    );
    old.psql(
        "app",
        &format!("SET ROLE app; {TABLES} GRANT SELECT ON customers TO readers;"),
    );
    let rows = old.digest("app");
    let machine = sandbox!();
    machine.write("uploads/a/one.txt", "one");
    machine.write("uploads/two.bin", vec![9; 100_000]);
    app.put_with("reports/1.pdf", vec![5; 70_000], "application/pdf", "first");
    app.put("reports/2.pdf", vec![6; 3]);
    let objects = app.content();
    kit(&machine, &offsite, &app, old.port(), &recipient);
    machine.run("rg-backup", ["run"]).ok();
    drop(machine);
    drop(old);
    for key in app.keys() {
        app.delete(&key);
    }

    // A new machine, and the operator's kit.
    let new = fresh_cluster();
    let machine = sandbox!();
    kit(&machine, &offsite, &app, new.port(), &recipient);
    let key = identity.display().to_string();
    machine.run("rg-restore", ["list"]).ok();
    let output = machine
        .run(
            "rg-restore",
            ["run", "globals", "app", "--identity", &key, "--yes"],
        )
        .ok();
    assert!(
        !format!("{output:?}").contains("s3cret-and-more"),
        "{output:?}"
    );
    assert_eq!(new.digest("app"), rows);
    let login = format!(
        "postgresql://app:s3cret-and-more@127.0.0.1:{}/app",
        new.port()
    );
    let may = "SELECT pg_has_role('app', 'readers', 'member'), has_table_privilege('readers', 'customers', 'select')";
    let asked = machine
        .program("psql", ["-XAt", &login, "-c", may])
        .run()
        .ok();
    assert_eq!(asked.out(), "t|t\n");
    assert_eq!(machine.read("uploads/a/one.txt"), "one");
    assert_eq!(
        fs::read(machine.path("uploads/two.bin")).expect("a file"),
        vec![9; 100_000]
    );
    assert!(
        app.content() == objects,
        "the bucket holds {:?}",
        app.keys()
    );
    let (kind, note) = app.headers("reports/1.pdf");
    assert_eq!(
        (kind.as_deref(), note.as_deref()),
        (Some("application/pdf"), Some("first"))
    );
    // The rebuilt machine backs itself up, and what it holds can be drilled.
    new.psql("postgres", "ALTER ROLE app CREATEDB");
    machine.run("rg-backup", ["run"]).ok();
    machine
        .run("rg-restore", ["drill", "--identity", &key])
        .ok();
}
