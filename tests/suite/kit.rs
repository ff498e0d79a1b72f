//! The kit proves itself: what the other suites lean on holds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

use rg_tests::{
    ArgvWatch, Chance, Damage, FakeProgram, FullDisk, HttpSink, Postgres, Sandbox, Scale, Signal,
    eventually, fake_docker, load_demo, sandbox, write_uploads,
};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(30);

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in brackets; a zombie has ended.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn a_program_that_fails_is_seen_with_all_that_it_said() {
    let place = sandbox!();
    let script = "echo out; echo err >&2; exit 3";
    let output = place.program("sh", ["-c", script]).run().fails(3);
    assert_eq!(
        (output.out(), output.err()),
        ("out\n".into(), "err\n".into())
    );
    let output = place.program("sh", ["-c", "kill -9 $$"]).run();
    assert_eq!(output.code(), 137);
}

#[test]
fn a_program_over_its_time_limit_is_killed_and_the_test_fails() {
    let place = sandbox!();
    let limit = Duration::from_millis(200);
    let tool = place
        .program("sh", ["-c", "echo started; sleep 600 & wait"])
        .time_limit(limit);
    let panic = std::thread::spawn(|| tool.run())
        .join()
        .expect_err("a panic");
    assert!(eventually(SOON, || place.leftovers().is_empty()));
    let message = panic.downcast_ref::<String>().expect("with a message");
    assert!(message.starts_with("killed after 200ms: "), "{message}");
    assert!(message.contains("--- stdout\nstarted\n"), "{message}");
}

#[test]
fn what_a_killed_program_leaves_behind_is_seen_and_ended() {
    let place = sandbox!();
    let running = place
        .program("sh", ["-c", "sleep 601 & echo $!; wait"])
        .spawn();
    assert!(eventually(SOON, || running.stdout_so_far().ends_with('\n')));
    let left: u32 = running.stdout_so_far().trim().parse().expect("its pid");
    running.kill();
    assert!(eventually(SOON, || !running.is_running()));
    assert_eq!(place.leftovers(), ["sleep 601 "]);
    drop(place);
    assert!(eventually(SOON, || !alive(left)));
}

#[test]
fn nothing_of_the_outside_environment_reaches_a_tool() {
    let place = sandbox!();
    place.config("[stores.local]\nurl = \"file://{root}/store\"\n");
    let output = place.program("env", [""; 0]).run().ok();
    let mut names: Vec<_> = output
        .out()
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .collect();
    names.sort();
    assert_eq!(names, ["HOME", "LANG", "PATH", "RG_CONFIG"]);
    let toml = place.read("rg.toml");
    assert!(
        toml.starts_with("host = \"test-host\"\nstate = \"/"),
        "{toml}"
    );
}

#[test]
fn the_peak_of_memory_is_that_of_the_program() {
    let place = sandbox!();
    let held = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); sleep 0.1; echo ${#x}";
    let output = place.program("bash", ["-c", held]).run().ok();
    assert!(
        (60_000..400_000).contains(&output.rss_kib_max),
        "{} KiB",
        output.rss_kib_max
    );
}

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_directory() {
    let mut cluster = Postgres::start();
    let (pid, dir) = (cluster.pid(), cluster.socket_dir().to_owned());
    assert_eq!(cluster.psql("postgres", "SELECT 1"), "1");
    cluster.stop();
    assert!(!alive(pid));
    cluster
        .try_psql("postgres", "postgres", "SELECT 1")
        .fails(2);
    cluster.start_again();
    let pid = cluster.pid();
    assert_eq!(cluster.psql("postgres", "SELECT 1"), "1");
    drop(cluster);
    assert!(!alive(pid));
    assert!(!dir.exists());
}

#[test]
fn a_killed_owner_leaves_no_server_behind() {
    let place = sandbox!();
    // Standard input stays open, as a person would hold it: only the kill ends this owner.
    let owner = place
        .program(
            "sh",
            [
                "-c",
                "sleep 600 | \"$0\"",
                env!("CARGO_BIN_EXE_kit-cluster"),
            ],
        )
        .spawn();
    let mut found = None;
    eventually(SOON, || {
        let line = owner.stdout_so_far();
        let word = |name: &str| {
            let rest = line.split_once(name)?.1;
            Some(
                rest.split_whitespace()
                    .next()?
                    .trim_matches('\'')
                    .to_owned(),
            )
        };
        found = line
            .ends_with('\n')
            .then(|| (word("server_pid="), word("server_dir=")));
        found.is_some()
    });
    let (Some(server), Some(dir)) = found.expect("the owner started a cluster") else {
        panic!("{}", owner.stdout_so_far());
    };
    let server: u32 = server.parse().expect("a process id");
    assert!(alive(server));
    // SIGKILL to the owner and all of its process group.
    drop(owner);
    assert!(eventually(SOON, || !alive(server)), "the server lives on");
    assert!(
        eventually(SOON, || !Path::new(&dir).exists()),
        "{dir} stays"
    );
}

#[test]
fn a_killed_keeper_leaves_no_server_behind() {
    let cluster = Postgres::start();
    let server = cluster.pid();
    let status = fs::read_to_string(format!("/proc/{server}/status")).expect("its status");
    let keeper = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let keeper = keeper.and_then(|pid| pid.trim().parse().ok());
    let keeper = Pid::from_raw(keeper.expect("a parent")).expect("a process id");
    kill_process(keeper, Signal::KILL).expect("the keeper is ours to kill");
    assert!(eventually(SOON, || !alive(server)), "the server lives on");
}

#[test]
fn a_wrong_password_is_refused_by_the_cluster() {
    let cluster = Postgres::shared();
    cluster.role("kit_reader", "LOGIN");
    let url = cluster.create_database_of("kit_passwords", "kit_reader");
    let place = sandbox!();
    place
        .program("psql", ["-XAtc", "SELECT 1", &url])
        .run()
        .ok();
    let wrong = url.replace(&cluster.password("kit_reader"), "wrong");
    let output = place.program("psql", ["-XAtc", "SELECT 1", &wrong]).run();
    output.fails(2).says("password authentication failed");
}

#[test]
fn the_demo_data_is_the_same_each_time_and_a_change_shows() {
    let cluster = Postgres::shared();
    cluster.role("kit_owner", "LOGIN");
    cluster.create_database("kit_demo_a");
    cluster.create_database_of("kit_demo_b", "kit_owner");
    load_demo(cluster, "kit_demo_a", "postgres", Scale::Small);
    load_demo(cluster, "kit_demo_b", "kit_owner", Scale::Small);
    let (a, b) = (cluster.digest("kit_demo_a"), cluster.digest("kit_demo_b"));
    assert_eq!(a, b);
    for table in ["executions", "artifacts", "toolkit_chunks", "strategies"] {
        assert!(a[&format!("public.{table}")].rows > 0, "{table} is empty");
    }
    cluster.psql(
        "kit_demo_b",
        "UPDATE workers SET hostname = 'x' WHERE id = (SELECT min(id) FROM workers)",
    );
    let changed = cluster.digest("kit_demo_b");
    let differing: Vec<_> = a.keys().filter(|name| a[*name] != changed[*name]).collect();
    assert_eq!(differing, ["public.workers"]);
}

fn docker(place: &Sandbox) -> FakeProgram {
    fake_docker(place, "docker", "postgres-production", Postgres::shared())
}

#[test]
fn the_fake_docker_speaks_as_docker_does() {
    let place = sandbox!();
    docker(&place);
    let run = |args: &[&str]| place.program("docker", args.iter().copied()).run();
    run(&["exec", "nobody", "true"])
        .fails(1)
        .says("Error response from daemon: No such container: nobody");
    run(&["ps"])
        .fails(1)
        .says("docker: unknown command: docker ps");
    run(&["exec", "postgres-production", "no-such-program"])
        .fails(127)
        .says("executable file not found in $PATH");
}

#[test]
fn the_fake_docker_passes_streams_environment_and_status() {
    let place = sandbox!();
    let docker = docker(&place);
    let script = "cat; echo \"[$GIVEN|$HIDDEN]\"; echo words >&2; exit 7";
    let run = |options: &[&str]| {
        let inner = ["postgres-production", "sh", "-c", script];
        let args = ["exec"].iter().chain(options).chain(&inner).copied();
        let tool = place.program("docker", args).stdin("stdin\n");
        tool.env("GIVEN", "a b").env("HIDDEN", "h").run().fails(7)
    };
    let output = run(&["-i", "-e", "GIVEN"]);
    assert_eq!(output.out(), "stdin\n[a b|]\n");
    assert_eq!(output.err(), "words\n");
    assert_eq!(run(&[]).out(), "[|]\n", "without -i there is no input");
    let calls = docker.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0][..4], ["exec", "-i", "-e", "GIVEN"]);
    assert_eq!(calls[1].last().map(String::as_str), Some(script));
}

#[test]
fn the_fake_docker_reaches_the_server_in_its_container() {
    let place = sandbox!();
    docker(&place);
    let args = ["exec", "-i", "-e", "PGPASSWORD", "postgres-production"];
    let command = ["psql", "-U", "postgres", "-XAtc", "SELECT 40 + 2"];
    let output = place
        .program("docker", args.iter().chain(&command).copied())
        .env("PGPASSWORD", Postgres::shared().password("postgres"))
        .run()
        .ok();
    assert_eq!(output.out(), "42\n");
}

#[test]
fn a_fake_program_dies_half_way_as_told() {
    let place = sandbox!();
    let fake = FakeProgram::new(&place, "pg_dump");
    let run = || place.program("pg_dump", ["1000000"]).run();
    assert_eq!(fake.dies_after("seq", 100, 1).calls().len(), 0);
    assert_eq!(run().fails(1).stdout.len(), 100);
    fake.is_killed_after("seq", 100);
    assert_eq!(run().fails(137).stdout.len(), 100);
    fake.fails(2, "it's broken");
    run().fails(2).says("it's broken\n");
    fake.hangs_after("seq", 10);
    let running = place.program("pg_dump", ["1000000"]).spawn();
    assert!(eventually(SOON, || running.stdout_so_far().len() == 10));
    assert!(running.is_running());
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), 143);
    assert_eq!(fake.calls(), vec![["1000000"]; 4]);
}

#[test]
fn a_secret_among_the_arguments_is_seen() {
    let place = sandbox!();
    let watch = ArgvWatch::start("planted-s3cret");
    let running = place
        .program("sh", ["-c", "cat /dev/zero >/dev/null", "planted-s3cret"])
        .spawn();
    let looked = watch.looks();
    assert!(eventually(SOON, || watch.looks() > looked + 2));
    drop(running);
    let seen = watch.stop();
    assert!(
        seen.iter().any(|line| line.contains("planted-s3cret")),
        "{seen:?}"
    );

    let watch = ArgvWatch::start("in-the-environment-only");
    let running = place
        .program("sh", ["-c", "cat /dev/zero >/dev/null"])
        .env("SECRET", "in-the-environment-only")
        .spawn();
    assert!(eventually(SOON, || watch.looks() > 2));
    drop(running);
    assert_eq!(watch.stop(), [""; 0]);
}

#[test]
fn a_full_disk_says_so_and_has_room_again() {
    let place = sandbox!();
    let disk = FullDisk::mount(&place, "small", 4);
    disk.fill_but(64 * 1024);
    let error = fs::write(disk.path().join("big"), vec![1; 1 << 20]).expect_err("it is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    fs::remove_file(disk.path().join("big")).expect("the partial file");
    disk.free();
    fs::write(disk.path().join("big"), vec![1; 1 << 20]).expect("room");
    let path = disk.path().to_owned();
    drop(disk);
    assert!(!path.join("big").exists(), "still mounted");
}

#[test]
fn damage_is_exactly_what_was_asked_for() {
    let place = sandbox!();
    let file = place.write("data", [0; 100]);
    let damage = Damage::to(&file);
    damage.flip_bit(41, 3);
    let bytes = fs::read(&file).expect("the file");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1);
    assert_eq!(bytes[41], 8);
    damage.flip_bit(41, 3);
    assert_eq!(fs::read(&file).expect("the file"), [0; 100]);
    let place_of = |seed| damage.flip_any_bit(&mut Chance::seeded(seed));
    assert_eq!(place_of(7), place_of(7), "the same seed, the same place");
    damage.cut_off(60);
    assert_eq!(damage.size(), 40);
}

#[test]
fn the_sink_notes_requests_and_answers_as_told() {
    let sink = HttpSink::start();
    let ask = |text: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", sink.port())).expect("the sink");
        stream.write_all(text.as_bytes()).expect("the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer");
        answer
    };
    let post = "POST /ping/fail?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    assert!(ask(post).starts_with("HTTP/1.1 200 "));
    sink.answer("/ping/fail", 503, "down");
    let answer = ask(post);
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndown"),
        "{answer}"
    );
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    ask(chunked);
    let requests = sink.wait_for(3, SOON);
    assert_eq!(requests[0].path, "/ping/fail?x=1");
    assert_eq!(
        (requests[0].body.as_str(), requests[2].body.as_str()),
        ("hello", "abc")
    );
}

#[test]
fn uploads_are_the_same_tree_each_time() {
    let place = sandbox!();
    let start = Instant::now();
    for dir in ["a", "b"] {
        write_uploads(&place.path(dir), 300).expect("uploads");
    }
    assert!(start.elapsed() < SOON);
    assert_eq!(place.files("a").len(), 300);
    place.program("diff", ["-r", "a", "b"]).run().ok();
}
