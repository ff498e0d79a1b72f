//! Further S3 servers that nobody here wrote, for the contract of stores in `make test-s3`: rclone
//! over a directory, and moto, which holds everything in memory and knows no keys.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use crate::s3_server::{Answers, S3Server, admin, free_ports, program};

/// `rclone serve s3` over a directory.
pub struct Rclone;

impl Rclone {
    /// The one that all tests of this process share.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let rclone = program("bin/rclone");
            let answers = Answers {
                stranger: 400,
                reader: false,
            };
            S3Server::start("rclone", answers, |dir| {
                let port = free_ports(1);
                let data = dir.join("data");
                fs::create_dir(&data).expect("the directory of rclone");
                let key = admin();
                let mut command = Command::new(&rclone);
                command
                    .args(["serve", "s3", "--config"])
                    .arg(dir.join("none.conf"))
                    .arg(format!("--addr=127.0.0.1:{port}"))
                    .arg(format!("--auth-key={},{}", key.access, key.secret))
                    .arg(data);
                (command, port)
            })
        })
    }
}

/// moto: AWS's answers, from memory.
pub struct Moto;

impl Moto {
    /// The one that all tests of this process share.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let moto = program("moto/bin/moto_server");
            let answers = Answers {
                stranger: 200,
                reader: false,
            };
            S3Server::start("moto", answers, |_| {
                let port = free_ports(1);
                let mut command = Command::new(&moto);
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
                (command, port)
            })
        })
    }
}
