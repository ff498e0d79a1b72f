//! `kit-s3 serve N`: starts a private S3 server with two buckets, `acme-backups` and the app's with
//! N objects, prints how to reach them as shell assignments, and holds it until its standard input
//! ends. `kit-s3 digest`: every key of the app's bucket with the SHA-256 of its content. `kit-s3
//! lose`: deletes every object of it. `kit-s3 put FILE` and `kit-s3 get FILE`: a file into a store in
//! `acme-backups` and back, by the store that backups use. `kit-s3 many N MANIFEST`: N backups into
//! that store, each with a manifest like this one. All take `S3_ENDPOINT S3_BUCKET S3_KEY S3_SECRET`
//! from the environment, the last three also `S3_PLACE`, a folder of their own.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for the shell scripts of the demo
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use rg_common::config::StorePlace;
use rg_common::store::{Key, Store};
use rg_tests::{S3Bucket, S3Key, SeaweedFs, many_backups, s3_network, s3_store};

/// The app's bucket.
const APP: &str = "rgrid-production";
/// Every so many objects one is larger than what is sent in one piece.
const LARGE_EVERY: usize = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", count] => match count.parse() {
            Ok(count) => serve(count),
            Err(_) => return usage(),
        },
        ["digest"] => {
            for (key, content) in app().content() {
                let digest = rg_common::sha256::Sha256::digest(&content);
                println!("{} {key}", rg_common::catalog::manifest::hex(&digest));
            }
        }
        ["lose"] => {
            let app = app();
            for key in app.keys() {
                app.delete(&key);
            }
        }
        ["put", file] => {
            let (store, key) = (store("bench"), one());
            let mut file = File::open(file).expect("the file");
            store.put(&key, &mut file).expect("it is put");
        }
        ["many", count, manifest] => {
            let Ok(count) = count.parse() else {
                return usage();
            };
            let manifest = std::fs::read(manifest).expect("the manifest");
            many_backups(&manifest, &*store("many"), count);
        }
        ["get", file] => {
            let (store, key) = (store("bench"), one());
            let mut object = store.get(&key).expect("it is there");
            let mut file = File::create(file).expect("a file");
            std::io::copy(&mut object, &mut file).expect("it is read");
        }
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

/// The one object of the bench.
fn one() -> Key {
    Key::new("one").expect("a key")
}

/// A store of the bench, as `rg.toml` would configure it.
fn store(prefix: &str) -> Box<dyn Store> {
    let app = app();
    let place = PathBuf::from(std::env::var("S3_PLACE").expect("S3_PLACE"));
    let mut config = s3_store(
        &app.endpoint,
        &app.key,
        ("bench", "acme-backups", prefix),
        &place,
    );
    if let StorePlace::Bucket(bucket) = &mut config.place {
        bucket.part_mib = 10;
    }
    let _inside = s3_network().enter();
    rg_common::store::open(&config).expect("a store")
}

fn serve(count: usize) {
    let server = SeaweedFs::start();
    S3Bucket::create(&server, "acme-backups");
    let app = S3Bucket::create(&server, APP);
    for number in 0..count {
        let length = match number % LARGE_EVERY {
            0 => 9 << 20,
            _ => 1000 + number * 37 % 60_000,
        };
        let content = format!("artifact {number}\n").repeat(length / 12);
        let key = format!("executions/{:03}/artifact {number}.txt", number % 40);
        app.put_with(&key, content, "text/plain", "demo");
    }
    println!("{}", app.env().trim_end().replace('\n', " "));
    std::io::stdout().flush().ok();
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}

fn app() -> S3Bucket {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let key = S3Key {
        access: get("S3_KEY"),
        secret: get("S3_SECRET"),
    };
    S3Bucket::at(&get("S3_ENDPOINT"), &key, &get("S3_BUCKET"))
}

fn usage() -> ExitCode {
    eprintln!("usage: kit-s3 serve N | digest | lose | put FILE | get FILE | many N MANIFEST");
    ExitCode::from(2)
}
