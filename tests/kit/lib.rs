//! What the suite stands on: places to work in, real servers, other people's programs that fail
//! as told, damage, full disks.
//!
//! The promise: a test that ends, however it ends, leaves no process, no mount and no server
//! behind; and what a test meets is the real thing (a real PostgreSQL, a real `ENOSPC`, a real
//! `kill -9`) wherever the machine can give it. Nothing here is skipped when something is missing:
//! it fails and says what to install.
//!
//! A test reads like this:
//!
//! ```text
//! let place = sandbox!();
//! let cluster = Postgres::shared();
//! cluster.role("app", "LOGIN CREATEDB");
//! let url = cluster.create_database_of("app", "app");
//! load_demo(cluster, "app", "app", Scale::Small);
//! place.write(".env", format!("DATABASE_URL={url}\n"));
//! place.config("[stores.local]\nurl = \"file://{root}/store\"\n …");
//! FakeProgram::new(&place, "pg_dump").dies_after("/usr/bin/pg_dump", 100_000, 1);
//! place.run("rg-backup", ["run"]).fails(2).says("pg_dump");
//! assert_eq!(place.files("store"), [""; 0]);
//! ```

// This crate is the outside world of the tools: it starts programs, reads the clock and the
// environment, and speaks to whoever runs the suite.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

mod argv_watch;
mod chance;
mod damage;
mod demo;
mod deployment;
mod env_readers;
mod fake_program;
mod full_disk;
mod gate;
mod http_sink;
mod majors;
mod many_backups;
mod outside;
mod postgres;
mod run;
mod s3_bucket;
mod s3_fault_proxy;
mod s3_further;
mod s3_server;
mod s3_servers;
mod sandbox;
mod site;

pub use argv_watch::ArgvWatch;
pub use chance::{Chance, rounds};
pub use damage::Damage;
pub use demo::{Scale, load_demo, write_uploads};
pub use deployment::{Deployment, Held};
pub use env_readers::{Answer, EnvCase, ask_env_readers, env_cases, judge, recorded_compose};
pub use fake_program::{FakeProgram, fake_docker};
pub use full_disk::FullDisk;
pub use gate::{Gate, Moment};
pub use http_sink::{HttpSink, Request};
pub use majors::fetched_majors;
pub use many_backups::many_backups;
pub use outside::{before_now, figures, kills, wished};
pub use postgres::{Postgres, Setup, TableDigest};
pub use run::{Output, Running, Tool, eventually};
pub use s3_bucket::S3Bucket;
pub use s3_fault_proxy::{Fault, Op, S3FaultProxy};
pub use s3_further::{Moto, Rclone};
pub use s3_server::{
    JuiceFs, S3Key, S3Server, SeaweedFs, juicefs, s3_client, s3_network, s3_store,
};
pub use s3_servers::{
    CANNOT, Need, can, every_server, servers_for_slow_tests, servers_for_the_contract,
};
pub use sandbox::Sandbox;
pub use site::{Site, TABLES, age_key, programs_for};

pub use rustix::process::Signal;
