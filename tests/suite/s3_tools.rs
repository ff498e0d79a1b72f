//! The tools with stores in buckets: off-site copies, an outage, a bucket as the only store, and a
//! restore straight out of it.

use std::time::Duration;

use rg_tests::{
    Chance, Fault, Op, Postgres, S3FaultProxy, S3Server, SeaweedFs, Signal, Site, eventually,
    figures, many_backups, on_every_server, rounds, site, wished,
};

on_every_server! {
    a_backup_is_copied_off_site_and_can_be_verified_and_restored_from_there_alone,
    a_bucket_as_the_only_store_takes_a_backup_and_prunes_it,
    an_off_site_store_that_is_down_is_a_warning_and_sync_catches_up,
    a_dump_that_dies_leaves_nothing_in_the_bucket,
    a_signal_while_parts_travel_aborts_the_upload_and_sync_catches_up;
    slow:
    a_connection_that_breaks_for_good_at_any_request_leaves_no_half_backup,
    half_a_gigabyte_goes_there_and_back_in_constant_memory,
    many_backups_in_a_bucket_are_read_side_by_side,
}

/// A database's name that tests of other servers do not take.
fn named(word: &str, server: &S3Server) -> String {
    format!("{word}_{}", server.name().to_lowercase())
}

/// A store of `rg.toml` in a bucket, and its credentials beside it.
fn store(site: &Site, name: &str, endpoint: &str, server: &S3Server, bucket: &str) -> String {
    site.write(format!("{name}.env"), server.admin.env());
    format!(
        "[stores.{name}]\nurl = \"s3://{bucket}/vps-1\"\nendpoint = \"{endpoint}\"\n\
         credentials = \"{name}.env\"\n"
    )
}

const LOCAL: &str = "[stores.local]\nurl = \"file://{root}/store\"\n";
const UPLOADS: &str = "[environments.app.files.uploads]\npath = \"uploads\"\n";

fn uploads(site: &Site) {
    site.write("uploads/a.txt", "a");
    site.write("uploads/deep/b.txt", "b");
}

/// What a local store holds, without locks and proofs, as it would be called in the bucket.
fn as_in_bucket(site: &Site) -> Vec<String> {
    let names = site.files("store").into_iter();
    let names = names.filter(|name| !name.contains(".rg-") && !name.ends_with(".proof.json"));
    names.map(|name| format!("vps-1/{name}")).collect()
}

/// What a bucket holds, without proofs.
fn content(server: &S3Server, bucket: &str) -> Vec<String> {
    let keys = server.keys(bucket).into_iter();
    keys.filter(|key| !key.ends_with(".proof.json")).collect()
}

fn a_backup_is_copied_off_site_and_can_be_verified_and_restored_from_there_alone(
    server: &'static S3Server,
) {
    let site = site!(&named("s3_copy", server));
    uploads(&site);
    let bucket = server.bucket();
    let offsite = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&format!("{LOCAL}{offsite}"), UPLOADS);
    site.rg_backup(&["run", "app"]).ok();
    assert_eq!(content(server, &bucket), as_in_bucket(&site));
    assert_eq!(server.open_uploads(&bucket), [""; 0]);
    site.rg_backup(&["verify", "--all", "--store", "offsite"])
        .ok();
    // The machine's own store is gone, and so is the directory.
    std::fs::remove_dir_all(site.path("store")).expect("the local store lost");
    std::fs::remove_dir_all(site.path("uploads")).expect("the uploads lost");
    site.configure_stores(&offsite, UPLOADS);
    site.rg_backup(&["list"]).ok();
    site.run("rg-restore", ["run", "app/files/uploads", "--yes"])
        .ok();
    assert_eq!(site.read("uploads/deep/b.txt"), "b");
    site.run("rg-restore", ["drill", "app/database"]).ok();
    let id = site
        .list()
        .into_iter()
        .find(|id| id.starts_with("app/database@"));
    let id = id.expect("the database's backup");
    std::fs::create_dir(site.path("fetched")).expect("a directory");
    site.run("rg-restore", ["fetch", &id, "-o", "fetched"]).ok();
    assert_eq!(site.files("fetched").len(), 1);
    site.all_whole();
}

fn a_bucket_as_the_only_store_takes_a_backup_and_prunes_it(server: &'static S3Server) {
    let site = site!(&named("s3_only", server));
    let bucket = server.bucket();
    let only = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&only, "keep = { last = 2 }\n");
    let ids: Vec<String> = (0..4).map(|_| site.backup()).collect();
    assert_eq!(site.list(), ids[2..]);
    site.all_whole();
    site.rg_backup(&["pin", &ids[2]]).ok();
    site.rg_backup(&["prune"]).ok();
    assert_eq!(server.open_uploads(&bucket), [""; 0]);
    let cluster = Postgres::shared();
    let before = cluster.digest(site.database());
    cluster.psql(site.database(), "DELETE FROM customers");
    site.run("rg-restore", ["run", "app/database", "--yes"])
        .ok();
    assert_eq!(cluster.digest(site.database()), before);
}

fn an_off_site_store_that_is_down_is_a_warning_and_sync_catches_up(server: &'static S3Server) {
    let site = site!(&named("s3_down", server));
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let offsite = store(&site, "offsite", &proxy.endpoint(), server, &bucket);
    site.configure_stores(&format!("{LOCAL}{offsite}"), "");
    for op in [Op::Get, Op::Put, Op::List, Op::Delete] {
        proxy.on(op, 1..=9_999, Fault::ResetBefore);
    }
    let output = site.rg_backup(&["run", "app"]).fails(1);
    let said = output.out();
    assert!(said.contains("no copy in store `offsite`: "), "{output:?}");
    assert!(said.contains("cannot be reached: "), "{output:?}");
    assert!(said.contains("`rg-backup sync` catches up"), "{output:?}");
    site.rg_backup(&["sync"]).fails(2);
    site.rg_backup(&["list"]).fails(2);
    assert_eq!(server.keys(&bucket), [""; 0]);
    proxy.heal();
    site.rg_backup(&["sync"]).ok();
    assert_eq!(content(server, &bucket), as_in_bucket(&site));
    site.all_whole();
}

#[test]
fn a_first_store_that_is_down_is_a_failure() {
    let site = site!("s3_first_down");
    site.write(
        "offsite.env",
        "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n",
    );
    let stores = format!(
        "[stores.offsite]\nurl = \"s3://backups/vps-1\"\nendpoint = \"http://127.0.0.1:9\"\n\
         credentials = \"offsite.env\"\n{LOCAL}"
    );
    site.configure_stores(&stores, "");
    let output = site.try_backup().fails(2);
    assert!(
        output
            .out()
            .contains("http://127.0.0.1:9 cannot be reached: "),
        "{output:?}"
    );
    assert_eq!(site.files("store"), [""; 0]);
}

fn a_dump_that_dies_leaves_nothing_in_the_bucket(server: &'static S3Server) {
    let site = site!(&named("s3_dies", server));
    let bucket = server.bucket();
    let only = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&only, "");
    site.pg_dump_does("\"$real\" \"$@\" | head -c 200000\nexit 1");
    let output = site.try_backup().fails(2);
    assert!(output.out().contains("pg_dump"), "{output:?}");
    assert_eq!(server.keys(&bucket), [""; 0]);
    assert_eq!(server.open_uploads(&bucket), [""; 0]);
}

/// Whatever breaks at whatever request: no manifest without its object, nothing left begun, and the
/// next run does well.
fn a_connection_that_breaks_for_good_at_any_request_leaves_no_half_backup(
    server: &'static S3Server,
) {
    let site = site!(&named("s3_any_request", server));
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let through = store(&site, "offsite", &proxy.endpoint(), server, &bucket);
    site.configure_stores(&through, "");
    let mut failed = 0;
    for op in [Op::Put, Op::Get, Op::List, Op::Delete] {
        for from in 1..=3 * rounds(1) as u32 {
            proxy.heal();
            proxy.on(op, from..=9_999, Fault::Answer(403, "AccessDenied"));
            let output = site.try_backup();
            failed += u32::from(output.code() == 2);
            proxy.heal();
            // What is listed is whole, and what is not is no stranger.
            site.all_whole();
            assert_eq!(server.open_uploads(&bucket), [""; 0]);
        }
    }
    assert!(failed >= 8, "the faults were met: {failed}");
    site.backup();
    let left = content(server, &bucket);
    let marks = left.iter().filter(|key| key.ends_with(".unfinished"));
    assert_eq!(marks.count(), 0, "{left:?}");
}

fn a_signal_while_parts_travel_aborts_the_upload_and_sync_catches_up(server: &'static S3Server) {
    let site = site!(&named("s3_signal", server));
    let bucket = server.bucket();
    let offsite = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&format!("{LOCAL}{offsite}"), UPLOADS);
    // Does not compress, and takes a while.
    let mut noise = vec![0; 96 << 20];
    Chance::seeded(1).fill(&mut noise);
    site.write("uploads/noise", &noise);
    let running = site.spawn_backup(&["run", "app/files/uploads"]);
    let begun = eventually(Duration::from_secs(100), || {
        !server.open_uploads(&bucket).is_empty()
    });
    assert!(begun, "{}", running.stderr_so_far());
    running.signal(Signal::TERM);
    let output = running.wait().fails(2);
    assert!(output.out().contains("stopped by a signal"), "{output:?}");
    assert_eq!(server.open_uploads(&bucket), [""; 0]);
    assert_eq!(content(server, &bucket), [""; 0]);
    assert_eq!(site.all_whole().len(), 1);
    site.rg_backup(&["sync"]).ok();
    assert_eq!(content(server, &bucket), as_in_bucket(&site));
}

fn half_a_gigabyte_goes_there_and_back_in_constant_memory(server: &'static S3Server) {
    // `make test-s3` sets 5 GiB.
    let mib: u64 = wished("RG_S3_MIB", 512);
    // The promise is 128 MiB. What is resident of an unoptimised program's own code comes on top.
    const CODE_KIB: u64 = if cfg!(debug_assertions) { 16 << 10 } else { 0 };
    const RESIDENT_KIB_MAX: u64 = (128 << 10) + CODE_KIB;
    let site = site!(&named("s3_memory", server));
    let bucket = server.bucket();
    let only = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&only, UPLOADS);
    let mut noise = vec![0; 1 << 20];
    let mut all = Vec::new();
    for seed in 0..64 {
        Chance::seeded(seed).fill(&mut noise);
        all.extend_from_slice(&noise);
    }
    for copy in 0..mib / 64 {
        site.write(format!("uploads/noise-{copy}"), &all);
    }
    drop(all);
    let patience = Duration::from_secs(120 + mib);
    let up = site
        .backup_tool(&["run", "app/files/uploads"])
        .time_limit(patience)
        .run()
        .ok();
    assert!(up.rss_kib_max < RESIDENT_KIB_MAX, "{} KiB", up.rss_kib_max);
    let down = site
        .backup_tool(&["verify", "--all"])
        .time_limit(patience)
        .run()
        .ok();
    assert!(
        down.rss_kib_max < RESIDENT_KIB_MAX,
        "{} KiB",
        down.rss_kib_max
    );
    figures(&format!(
        "{mib} MiB: {} KiB and {:?} up with reading back, {} KiB and {:?} down",
        up.rss_kib_max, up.wall, down.rss_kib_max, down.wall
    ));
}

/// The newest manifest in the local store, as it lies there.
fn a_manifest(site: &Site) -> Vec<u8> {
    let (path, _) = site.manifests("store").pop().expect("a manifest");
    std::fs::read(&path).expect("a manifest")
}

/// What would show is work that grows with the square of their number: ten times as many would take
/// a hundred times as long. (How long it takes at all is a release build's business.)
#[test]
fn ten_thousand_backups_in_a_folder_are_listed_in_time_that_grows_with_their_number() {
    const COUNT: u32 = 10_000;
    let site = site!("s3_many_folder");
    site.backup();
    let folder = rg_common::store::Folder::new("local", &site.path("store"));
    let list = |wanted: u32| {
        many_backups(&a_manifest(&site), &folder, wanted);
        let listed = site.rg_backup(&["list", "--json"]).ok();
        let count = listed.json()["backups"].as_array().expect("a list").len();
        assert_eq!(count, wanted as usize + 1);
        figures(&format!(
            "{count} backups in a folder listed in {:?}, {} KiB",
            listed.wall, listed.rss_kib_max
        ));
        listed.wall
    };
    let (few, many) = (list(COUNT / 10), list(COUNT));
    assert!(many < few * 40, "{few:?} and {many:?}");
}

fn many_backups_in_a_bucket_are_read_side_by_side(server: &'static S3Server) {
    const COUNT: u32 = 1_500;
    let site = site!(&named("s3_many_bucket", server));
    let bucket = server.bucket();
    site.backup();
    let _inside = rg_tests::s3_network().enter();
    let config = server.store("offsite", &bucket, "vps-1", site.root());
    let there = rg_common::store::open(&config).expect("a store");
    many_backups(&a_manifest(&site), &*there, COUNT);
    let proxy = S3FaultProxy::before(server);
    let offsite = store(&site, "offsite", &proxy.endpoint(), server, &bucket);
    site.configure_stores(&offsite, "");
    let listed = site.rg_backup(&["list", "--json"]).ok();
    let count = listed.json()["backups"].as_array().expect("a list").len();
    assert_eq!(count, COUNT as usize);
    // One request for each manifest and no more, a handful for the list.
    assert_eq!(proxy.count(Op::Get), COUNT);
    assert_eq!(proxy.count(Op::List), COUNT.div_ceil(500));
    let at_once = proxy.most_at_once();
    assert!((4..=16).contains(&at_once), "{at_once} requests at once");
    let direct = store(&site, "offsite", &server.endpoint(), server, &bucket);
    site.configure_stores(&direct, "");
    let listed = site.rg_backup(&["list"]).ok();
    figures(&format!(
        "{count} backups in a bucket listed in {:?}, {} KiB",
        listed.wall, listed.rss_kib_max
    ));
}

#[test]
fn a_private_authority_is_trusted_when_named_and_refused_otherwise() {
    let site = site!("s3_tls");
    let made = |args: &[&str]| {
        site.program("openssl", args.iter().copied()).run().ok();
    };
    made(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=authority of the suite",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    ]);
    made(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=s3.test",
        "-keyout",
        "s3.key",
        "-out",
        "s3.csr",
    ]);
    site.write(
        "s3.ext",
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    );
    made(&[
        "x509",
        "-req",
        "-in",
        "s3.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "s3.ext",
        "-out",
        "s3.crt",
    ]);
    let server = SeaweedFs::start_tls(&site.path("s3.crt"), &site.path("s3.key"));
    let bucket = server.bucket();
    let endpoint = format!("https://127.0.0.1:{}", server.tls_port());
    site.configure_stores(
        &store(&site, "offsite", &endpoint, &server, &bucket),
        UPLOADS,
    );
    // Longer than a part, so that parts travel unsigned under TLS too.
    let mut noise = vec![0; 24 << 20];
    Chance::seeded(7).fill(&mut noise);
    site.write("uploads/noise", &noise);
    let output = site.rg_backup(&["run", "app/files/uploads"]).fails(2);
    assert!(output.out().contains("is not trusted: "), "{output:?}");
    assert!(
        output
            .out()
            .contains("hint: for a private authority, name its certificate in SSL_CERT_FILE"),
        "{output:?}"
    );
    let trusting = |args: &[&str]| {
        let tool = site
            .backup_tool(args)
            .env("SSL_CERT_FILE", site.path("ca.crt"));
        tool.run().ok()
    };
    trusting(&["run", "app/files/uploads"]);
    trusting(&["verify", "--all"]);
    assert_eq!(server.open_uploads(&bucket), [""; 0]);
}
