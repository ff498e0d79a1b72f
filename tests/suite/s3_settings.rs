//! What `rg.toml` says of a store in a bucket, as it arrives: the storage class, the bucket's name in
//! the host's, and the keys from wherever an operator keeps them.

use rg_tests::{
    Need, Op, Output, S3FaultProxy, S3Server, Sandbox, on_every_server, s3_client, sandbox,
};

on_every_server! {
    large_objects_are_kept_in_the_class_that_is_configured_and_small_ones_are_not,
    a_bucket_in_the_hosts_name_is_found_there_and_backed_up_and_restored_from,
    keys_come_from_a_systemd_credential,
    keys_come_from_systemd_credentials_of_their_own_names,
    keys_come_from_the_environment,
}

/// Longer than a part of five MiB, and of a kind that does not compress.
const LONG: usize = 6 << 20;
const UPLOADS: &str = "[environments.app.files.uploads]\npath = \"uploads\"\n";
/// The kit's name lies in `/etc/hosts`, for one process and what it starts.
const WITH_HOSTS: &str = "mount --bind \"$1\" /etc/hosts || exit 99; shift";

/// A place with one directory to back up into a bucket, at an endpoint; `rest` are further keys of the
/// store. No keys are configured yet.
fn place(endpoint: &str, bucket: &str, rest: &str) -> Sandbox {
    let place = sandbox!();
    place.write("uploads/short", "short");
    let words = (0u64..).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    place.write("uploads/long", words.take(LONG).collect::<Vec<u8>>());
    place.config(&format!(
        "[stores.offsite]\nurl = \"s3://{bucket}/vps-1\"\nendpoint = \"{endpoint}\"\npart_mib = 5\n{rest}\n{UPLOADS}"
    ));
    place
}

/// The same with the keys in a file beside `rg.toml`.
fn place_with_keys(endpoint: &str, server: &S3Server, bucket: &str, rest: &str) -> Sandbox {
    let rest = format!("credentials = \"offsite.env\"\n{rest}");
    let place = place(endpoint, bucket, &rest);
    place.write("offsite.env", server.admin.env());
    place
}

/// What was backed up is in the bucket.
#[track_caller]
fn arrived(server: &S3Server, bucket: &str) {
    let keys = server.keys(bucket);
    let manifests = keys.iter().filter(|key| key.ends_with(".manifest.json"));
    assert_eq!(manifests.count(), 1, "{keys:?}");
    assert_eq!(server.open_uploads(bucket), [""; 0]);
}

fn large_objects_are_kept_in_the_class_that_is_configured_and_small_ones_are_not(
    server: &'static S3Server,
) {
    const CLASS: &str = "REDUCED_REDUNDANCY"; // MinIO's front end knows no other.
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let class = format!("storage_class = \"{CLASS}\"");
    let place = place_with_keys(&proxy.endpoint(), server, &bucket, &class);
    place.run("rg-backup", ["run"]).ok();
    arrived(server, &bucket);
    // A dump is sent in parts; a manifest is read again and again, and billed as a longer one.
    let asked = |op| proxy.headers(op, "x-amz-storage-class");
    assert_eq!(asked(Op::Begin), [Some(CLASS.to_owned())]);
    assert!(
        asked(Op::Put).iter().all(Option::is_none),
        "{:?}",
        asked(Op::Put)
    );
    // One in a single piece that is long enough.
    place.write("uploads/long", vec![7; 200 << 10]);
    let words = (0u32..).flat_map(|n| {
        n.wrapping_mul(0x9E37_79B9)
            .to_be_bytes()
            .into_iter()
            .take(2)
    });
    place.write("uploads/long", words.take(300 << 10).collect::<Vec<u8>>());
    proxy.heal();
    place.run("rg-backup", ["run"]).ok();
    assert_eq!(asked(Op::Begin), []);
    let classes: Vec<String> = asked(Op::Put).into_iter().flatten().collect();
    assert_eq!(classes, [CLASS]);
    if !server.can(Need::StorageClass) {
        return;
    }
    let client = s3_client(&server.endpoint(), &server.admin);
    for key in server.keys(&bucket) {
        let call = client.sdk().head_object().bucket(&bucket).key(&key).send();
        let head = client.call(call).expect("a head");
        let kept = head.storage_class().map(|class| class.as_str().to_owned());
        let data = key.ends_with(".tar.zst");
        assert_eq!(kept.as_deref() == Some(CLASS), data, "{key}: {kept:?}");
    }
}

fn a_bucket_in_the_hosts_name_is_found_there_and_backed_up_and_restored_from(
    server: &'static S3Server,
) {
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let endpoint = format!("http://localhost:{}", proxy.port());
    let place = place_with_keys(&endpoint, server, &bucket, "path_style = false");
    let host = format!("{bucket}.localhost");
    place.write("hosts", format!("127.0.0.1 localhost {host}\n"));
    let driver = std::path::Path::new(env!("CARGO_BIN_EXE_rg-driver"));
    let run = |tool: &str, args: &[&str]| -> Output {
        let words = [
            place.path("hosts").as_os_str().to_owned(),
            driver.into(),
            tool.into(),
        ];
        let tool = place.behind(WITH_HOSTS, words);
        args.iter().fold(tool, |tool, arg| tool.arg(arg)).run().ok()
    };
    run("rg-backup", &["run"]);
    arrived(server, &bucket);
    run("rg-backup", &["verify", "--all"]);
    std::fs::remove_dir_all(place.path("uploads")).expect("the uploads lost");
    run("rg-restore", &["run", "app/files/uploads", "--yes"]);
    assert_eq!(place.read("uploads/short"), "short");
    for op in [
        Op::Put,
        Op::Begin,
        Op::Part,
        Op::Complete,
        Op::Head,
        Op::Get,
        Op::List,
    ] {
        let hosts = proxy.headers(op, "host");
        assert!(!hosts.is_empty(), "{op:?}");
        let wanted = format!("{host}:{}", proxy.port());
        for host in hosts {
            assert_eq!(host.as_deref(), Some(&*wanted), "{op:?}");
        }
    }
}

fn keys_come_from_a_systemd_credential(server: &'static S3Server) {
    let bucket = server.bucket();
    let credentials = "credentials = \"$CREDENTIALS_DIRECTORY/offsite\"";
    let place = place(&server.endpoint(), &bucket, credentials);
    place.write("given/offsite", server.admin.env());
    let run = |folder: &str| {
        let tool = place.tool("rg-backup", ["run"]);
        tool.env("CREDENTIALS_DIRECTORY", place.path(folder)).run()
    };
    let missing = run("elsewhere").fails(2);
    assert!(missing.out().contains("elsewhere/offsite"), "{missing:?}");
    run("given").ok();
    arrived(server, &bucket);
    // Outside of the unit nobody has given it.
    place
        .run("rg-backup", ["run"])
        .fails(2)
        .says("CREDENTIALS_DIRECTORY");
}

fn keys_come_from_systemd_credentials_of_their_own_names(server: &'static S3Server) {
    let bucket = server.bucket();
    let place = place(&server.endpoint(), &bucket, "");
    place.write(
        "given/AWS_ACCESS_KEY_ID",
        format!("{}\n", server.admin.access),
    );
    place.write(
        "given/AWS_SECRET_ACCESS_KEY",
        format!("{}\n", server.admin.secret),
    );
    let tool = place.tool("rg-backup", ["run"]);
    // They go before what somebody has left in the environment.
    tool.env("CREDENTIALS_DIRECTORY", place.path("given"))
        .env("AWS_SECRET_ACCESS_KEY", "another")
        .run()
        .ok();
    arrived(server, &bucket);
}

fn keys_come_from_the_environment(server: &'static S3Server) {
    let bucket = server.bucket();
    let place = place(&server.endpoint(), &bucket, "");
    let none = place.run("rg-backup", ["run"]).fails(2);
    let wanted = "no AWS_ACCESS_KEY_ID in the environment\n   \
                  hint: name a file that has it: credentials = \"/etc/rg/NAME.env\"";
    assert!(none.out().contains(wanted), "{none:?}");
    let tool = place.tool("rg-backup", ["run"]);
    let output = tool
        .env("AWS_ACCESS_KEY_ID", &server.admin.access)
        .env("AWS_SECRET_ACCESS_KEY", &server.admin.secret)
        .run()
        .ok();
    assert!(!format!("{output:?}").contains(&server.admin.secret));
    arrived(server, &bucket);
}

#[test]
fn a_key_in_rg_toml_is_refused_and_not_shown() {
    const SECRET: &str = "hunter2-hunter2-hunter2";
    for (name, line) in [
        ("secret_key", format!("secret_key = \"{SECRET}\"")),
        (
            "AWS_SECRET_ACCESS_KEY",
            format!("AWS_SECRET_ACCESS_KEY = \"{SECRET}\""),
        ),
    ] {
        let place = place("http://127.0.0.1:9", "backups", &line);
        let output = place.run("rg-backup", ["list"]).fails(2);
        let output = output.says(&format!("unknown key `{name}`"));
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
    }
    let bucket = "[environments.app.buckets.artifacts]\nname = \"artifacts\"\n\
                  endpoint = \"http://127.0.0.1:9\"\naccess_key = \"key\"\n";
    let bucket = format!("{bucket}secret_key = \"{SECRET}\"\n");
    let place = place("http://127.0.0.1:9", "backups", &bucket);
    for tool in ["rg-backup", "rg-bucket"] {
        let output = place.run(tool, ["list"]).fails(2);
        let output = output.says("a secret key does not belong into rg.toml");
        let output = output.says("hint: write secret_key = \"$NAME\" here");
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
    }
}
