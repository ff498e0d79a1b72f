//! A docker daemon on a Unix socket that gives recorded answers (docker 27 and 29), or none.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use super::*;
use crate::check::State;

const VERSION: &str = r#"{"Version":"29.0.1","ApiVersion":"1.52","MinAPIVersion":"1.44"}"#;
const LIST: &str = r#"[{"Id":"aa11","Names":["/postgres-production"],"State":"running"},{"Id":"bb22","Names":["/minio-production"],"State":"exited"}]"#;
const HEALTHY: &str = r#"{"Id":"aa11","RestartCount":0,"State":{"Status":"running","ExitCode":0,"OOMKilled":false,"Health":{"Status":"healthy","FailingStreak":0,"Log":[{"ExitCode":0,"Output":"ok\n"}]}},"HostConfig":{"RestartPolicy":{"Name":"unless-stopped","MaximumRetryCount":0}}}"#;
const ENDED: &str = r#"{"Id":"bb22","RestartCount":4,"State":{"Status":"exited","ExitCode":137,"OOMKilled":true},"HostConfig":{"RestartPolicy":{"Name":"always"}}}"#;

/// A daemon for a test; its socket goes with it.
struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    fn new(name: &str, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Daemon {
        let file = format!("rg-docker-{}-{name}.sock", std::process::id());
        let socket = std::env::temp_dir().join(file);
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = Vec::new();
                let mut byte = [0u8; 1];
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read(&mut byte).is_ok_and(|n| n == 1)
                {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                // Whoever hung up has what it wanted.
                stream.write_all(&answer(&path)).ok();
            }
        });
        Daemon { socket }
    }

    fn engine(&self) -> Engine {
        Engine::at(&self.socket)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).ok();
    }
}

fn http(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    let (one, two) = body.split_at(body.len() / 2);
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len()).into_bytes()
}

fn recorded(path: &str) -> Vec<u8> {
    match path {
        "/version" => http(200, VERSION),
        "/v1.52/containers/json?all=1" => chunked(LIST),
        "/v1.52/containers/aa11/json" => chunked(HEALTHY),
        "/v1.52/containers/bb22/json" => http(200, ENDED),
        path if path.contains("/logs?") => {
            let mut log = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            for line in ["FATAL: password=hunter2\n", "bye\n"] {
                log.extend([2, 0, 0, 0, 0, 0, 0, line.len() as u8]);
                log.extend(line.as_bytes());
            }
            log
        }
        _ => http(404, r#"{"message":"no such route"}"#),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn containers_are_judged_in_exact_words() {
    let daemon = Daemon::new("recorded", recorded);
    let asked = names(&[
        "postgres-production",
        "minio-production",
        "postgres-prodution",
    ]);
    let census = daemon.engine().census(&asked).unwrap();
    let verdict = judge("postgres-production", &census, None);
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Pass, "postgres-production is running and healthy")
    );
    let verdict = judge("minio-production", &census, None);
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (
            State::Fail,
            "minio-production has ended with exit code 137 for lack of memory"
        )
    );
    assert_eq!(
        verdict.fix.as_deref(),
        Some("docker logs --tail 50 minio-production; docker start minio-production")
    );
    let verdict = judge("postgres-prodution", &census, None);
    assert_eq!(
        verdict.found,
        "there is no container postgres-prodution; there is `postgres-production`"
    );
    assert_eq!(
        daemon.engine().evidence("aa11"),
        ["FATAL: password=***", "bye"]
    );
}

#[test]
fn what_runs_may_be_bad_all_the_same() {
    let running = Container {
        status: "running".into(),
        policy: "always".into(),
        ..Container::default()
    };
    let said = |container: Container, restarts: Option<&Recent>| {
        let asked = BTreeMap::from([("db".to_owned(), Some(container))]);
        let verdict = judge(
            "db",
            &Census::Known {
                asked,
                names: Vec::new(),
            },
            restarts,
        );
        (verdict.state, verdict.found)
    };
    assert_eq!(
        said(running.clone(), None),
        (State::Pass, "db is running".into())
    );
    let unhealthy = Container {
        health: Some("unhealthy".into()),
        health_said: "no response".into(),
        ..running.clone()
    };
    assert_eq!(
        said(unhealthy, None),
        (
            State::Fail,
            "db is running, but unhealthy: no response".into()
        )
    );
    let forgotten = Container {
        policy: "no".into(),
        ..running.clone()
    };
    assert_eq!(
        said(forgotten, None),
        (
            State::Warn,
            "db will not come up after a boot: its restart policy is `no`".into()
        )
    );
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let first = remember(None, &running, now);
    let looping = Container {
        restarts: 5,
        ..running
    };
    let second = remember(Some(&first), &looping, now);
    assert_eq!(
        said(looping, Some(&second)),
        (
            State::Fail,
            "db was restarted 5 times within an hour: it restarts in a loop".into()
        )
    );
}

#[test]
fn an_engine_that_is_gone_is_bad_news_and_one_that_comes_back_is_good() {
    let daemon = Daemon::new("gone", recorded);
    let engine = daemon.engine();
    let asked = names(&["postgres-production"]);
    std::fs::remove_file(&daemon.socket).unwrap();
    let census = engine.census(&asked).unwrap();
    let verdict = judge("postgres-production", &census, None);
    assert_eq!(verdict.state, State::Fail);
    let gone = format!("no container runs: there is no {}", daemon.socket.display());
    assert_eq!(verdict.found, gone);
    // A socket that a dead daemon left.
    drop(UnixListener::bind(&daemon.socket).unwrap());
    assert!(
        matches!(engine.census(&asked).unwrap(), Census::NoEngine(why) if why.starts_with("nothing listens at "))
    );
    std::fs::remove_file(&daemon.socket).unwrap();
    let back = Daemon::new("gone", recorded);
    let census = back.engine().census(&asked).unwrap();
    assert_eq!(
        judge("postgres-production", &census, None).state,
        State::Pass
    );
}

#[test]
fn an_engine_that_answers_nonsense_leaves_it_unknown() {
    type Reply = fn(&str) -> Vec<u8>;
    let cases: [(&str, Reply, &str); 4] = [
        (
            "garbage",
            |_| b"220 mail ready\r\n".to_vec(),
            "the answer to /version is not HTTP",
        ),
        (
            "cut",
            |_| b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec(),
            "the answer to /version is not HTTP",
        ),
        (
            "error",
            |_| http(500, "out of order"),
            "/version was answered with status 500: out of order",
        ),
        (
            "endless",
            |_| [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 9 << 20]].concat(),
            "it is longer than 8388608 bytes",
        ),
    ];
    for (name, reply, words) in cases {
        let daemon = Daemon::new(name, reply);
        let failure = daemon.engine().census(&[]).unwrap_err().to_string();
        assert!(
            failure.starts_with("cannot ask the container engine at /"),
            "{failure}"
        );
        assert!(failure.ends_with(words), "{failure}");
    }
}

#[test]
fn an_engine_that_hangs_is_given_up_in_time() {
    let daemon = Daemon::new("hangs", |_| {
        std::thread::park();
        Vec::new()
    });
    let asking = Asking::new(&daemon.socket, Instant::now() + Duration::from_millis(200));
    let failure = asking.get("/version").err().unwrap();
    assert_eq!(failure.to_string(), "no answer to /version in time");
    assert_eq!(
        failure.hints(),
        ["the engine hangs: systemctl restart docker"]
    );
}
