//! `rg-envgen render cloud-init`: user data that cloud-init takes, whose files are taken by the
//! programs that they are for, and whose script makes a deployment; no secret is in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rg_tests::{FakeProgram, Output, Sandbox, Tool, judge, sandbox};
use serde_json::Value;

const PROFILES: [(&str, &str, &str); 2] = [
    ("rgrid", "nginx", "deploy"),
    ("toolkitrag", "caddy", "deployer"),
];
/// The longest user data that Amazon takes.
const BYTES_MAX: usize = 16384;

/// A deployment's configuration, and the key of the one who will log in.
fn place(profile: &str) -> Sandbox {
    let place = sandbox!();
    let given = ["DOMAIN=app.acme.org", "ADMIN_MAIL=ops@acme.org"];
    let args = ["init", "--profile", profile, "--dir", "d"].into_iter();
    let args = args.chain(given.into_iter().flat_map(|one| ["--set", one]));
    place.run("rg-envgen", args).ok();
    let key = [
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "me@laptop",
        "-f",
        "key",
    ];
    place.program("ssh-keygen", key).run().ok();
    place
}

fn render(place: &Sandbox, more: &[&str]) -> Output {
    let args = ["--config", "d/rg.toml", "render", "cloud-init"];
    place.run("rg-envgen", args.iter().chain(more))
}

/// The user data as cloud-init reads it.
fn rendered(place: &Sandbox, more: &[&str]) -> Value {
    let keys = ["--ssh-key", "key.pub", "-o", "."].iter().chain(more);
    render(place, &keys.copied().collect::<Vec<_>>()).ok();
    let read = "import sys, json, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let args = ["-c", read, "user-data.yml"];
    place.program("/usr/bin/python3", args).run().ok().json()
}

fn content(data: &Value, path: &str) -> String {
    let files = data["write_files"].as_array().expect("files");
    let file = files.iter().find(|file| file["path"] == path);
    let file = file.unwrap_or_else(|| panic!("no {path}"));
    file["content"].as_str().expect("a text").to_owned()
}

/// cloud-init's own opinion.
fn schema(place: &Sandbox, file: &str) -> Tool {
    let args = ["-m", "cloudinit.cmd.main", "schema", "--config-file", file];
    place
        .program(&judge("python/bin/python"), args)
        .env("PYTHONPATH", judge("server/usr/lib/python3/dist-packages"))
}

#[test]
fn cloud_init_takes_it_and_no_secret_is_in_it() {
    for (profile, _, _) in PROFILES {
        let place = place(profile);
        for proxy in ["nginx", "caddy"] {
            let data = rendered(&place, &["--proxy", proxy]);
            let keys = data.as_object().expect("keys").keys();
            // An unknown one is passed over by cloud-init without a word.
            let unknown = keys.filter(|key| {
                let known = [
                    "users",
                    "disable_root",
                    "ssh_pwauth",
                    "package_update",
                    "package_upgrade",
                    "packages",
                    "write_files",
                    "runcmd",
                    "final_message",
                ];
                !known.contains(&key.as_str())
            });
            assert_eq!(unknown.count(), 0);
            schema(&place, "user-data.yml").run().ok();
            let text = place.read("user-data.yml");
            assert!(text.len() < BYTES_MAX, "{}", text.len());
            for word in [
                "{{",
                "{%",
                "undefined",
                "none",
                "CHANGE",
                "example",
                "PRIVATE",
            ] {
                assert!(!text.contains(word), "{word}");
            }
            let mut secrets = 0;
            for file in place
                .files("d")
                .iter()
                .filter(|name| name.starts_with(".env"))
            {
                let values = place.read(format!("d/{file}"));
                for (name, value) in values.lines().filter_map(|line| line.split_once('=')) {
                    let secret = ["SECRET", "PASSWORD", "ACCESS", "DATABASE_URL"];
                    if secret.iter().any(|word| name.contains(word)) {
                        assert!(!text.contains(value), "{name}");
                        secrets += 1;
                    }
                }
            }
            assert!(secrets >= 3);
        }
        let broken = place
            .read("user-data.yml")
            .replace("package_update: true", "package_update: [1]");
        place.write("broken.yml", broken);
        schema(&place, "broken.yml").run().fails(1);
    }
}

#[test]
fn who_comes_in_is_named_and_nothing_else_gets_into_the_script() {
    let place = place("toolkitrag");
    let nobody = "a server without a key lets nobody in";
    render(&place, &[]).fails(2).says(nobody);
    render(&place, &["--ssh-key", "key"])
        .fails(2)
        .says("key is a private key")
        .says(".pub");
    let key = place.read("key.pub");
    place.write("odd.pub", key.replace("me@laptop", "me\"]: $(id)"));
    render(&place, &["--ssh-key", "odd.pub"])
        .fails(2)
        .says("no public key of ssh");
    for (args, said) in [
        (["--admin", "root"], "cannot be called \"root\""),
        (["--admin", "deployer"], "cannot be called"),
        (["--env", "production"], "user data is for a server"),
    ] {
        let args = ["--ssh-key", "key.pub"].iter().chain(&args);
        render(&place, &args.copied().collect::<Vec<_>>())
            .fails(2)
            .says(said);
    }
    let sha256 = "0".repeat(64);
    let package = |url: &str| {
        let args = ["--ssh-key", "key.pub", "--package", url, "--package-sha256"];
        render(&place, &[&args[..], &[&sha256]].concat())
    };
    package("http://acme.org/rg.deb").fails(2).says("https://");
    package("https://acme.org/rg.deb?token=1")
        .fails(2)
        .says("user data can be read");
    assert!(
        package("https://acme.org/rg.deb")
            .ok()
            .out()
            .contains(&sha256)
    );
    let config = place.read("d/rg.toml");
    for domain in [
        "a.org; rm -rf /",
        "a.org\\nuser root",
        "$(id).org",
        "a b.org",
    ] {
        place.write("d/rg.toml", config.replace("app.acme.org", domain));
        render(&place, &["--ssh-key", "key.pub"]).fails(2);
        let args = ["--config", "d/rg.toml", "render", "nginx"];
        place.run("rg-envgen", args).fails(2).says("DOMAIN");
    }
    place.write("d/rg.toml", config);
    let args = [
        "--config",
        "d/rg.toml",
        "render",
        "nginx",
        "--proxy",
        "nginx",
    ];
    place
        .run("rg-envgen", args)
        .fails(2)
        .says("are for the server's user data");
}

#[test]
fn sshd_lets_keys_in_and_nothing_else_whatever_others_wrote() {
    let place = place("rgrid");
    let data = rendered(&place, &["--admin", "anna"]);
    place.write(
        "ssh/00-rg.conf",
        content(&data, "/etc/ssh/sshd_config.d/00-rg.conf"),
    );
    // What providers' images bring, and what the distribution says at the end.
    place.write(
        "ssh/50-cloud-init.conf",
        "PasswordAuthentication yes\nPermitRootLogin yes\n",
    );
    let root = place.root().display().to_string();
    let main = format!("Include {root}/ssh/*.conf\nKbdInteractiveAuthentication yes\nUsePAM yes\n");
    place.write("sshd_config", main);
    let key = ["-q", "-t", "ed25519", "-N", "", "-f", "host"];
    place.program("ssh-keygen", key).run().ok();
    // As root it wants a user and a directory that the package would make.
    let root_is_none = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    fs::set_permissions(place.path("host"), Permissions::from_mode(0o644)).expect("a mode");
    // Into the place, where everybody may go: sshd and the library that it brings.
    let lib = judge("server/usr/lib");
    let copy = "cp \"$1\" sshd && cp \"$2\"/*/libwrap.so.0 .";
    let from = ["-c", copy, "copy", &judge("server/usr/sbin/sshd"), &lib];
    place.program("sh", from).run().ok();
    let sshd = format!("{root}/sshd");
    let asked = |words: &[&str]| {
        let host = format!("{root}/host");
        let config = format!("{root}/sshd_config");
        let words = [&[sshd.as_str(), "-f", &config, "-h", &host], words].concat();
        let tool = match rustix::process::geteuid().is_root() {
            true => place.program("setpriv", [&root_is_none[..], &words].concat()),
            false => place.program(words[0], words[1..].iter()),
        };
        tool.env("LD_LIBRARY_PATH", place.root()).run()
    };
    asked(&["-t"]).ok();
    let effective = asked(&["-T", "-C", "user=anna,host=h,addr=198.51.100.1"]).ok();
    for line in [
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "pubkeyauthentication yes",
        "authenticationmethods publickey",
        "allowusers anna",
        "allowtcpforwarding local",
    ] {
        let out = effective.out();
        assert!(out.lines().any(|one| one == line), "{line}: {out}");
    }
    place.write("ssh/00-rg.conf", "PermitRotLogin no\n");
    asked(&["-t"]).fails(255).says("PermitRotLogin");
}

#[test]
fn fail2ban_apt_and_the_shell_take_their_files() {
    for (profile, _, _) in PROFILES {
        let place = place(profile);
        let data = rendered(&place, &[]);
        let copy = ["-r", &judge("server/etc/fail2ban"), "fail2ban"];
        place.program("cp", copy).run().ok();
        let fail2ban = || {
            let client = judge("server/usr/bin/fail2ban-client");
            place
                .program(
                    &judge("python/bin/python"),
                    [&client, "-c", "fail2ban", "-t"],
                )
                .env("PYTHONPATH", judge("server/usr/lib/python3/dist-packages"))
                .run()
        };
        // Without it: what Debian 12 ships looks for a log that is not there.
        place.write(
            "fail2ban/jail.d/log.conf",
            "[sshd]\nlogpath = /nowhere/auth.log\n",
        );
        fail2ban()
            .fails(255)
            .says("Have not found any log file for sshd");
        place.write(
            "fail2ban/jail.local",
            content(&data, "/etc/fail2ban/jail.local"),
        );
        fail2ban().ok();

        let apt = content(&data, "/etc/apt/apt.conf.d/51rg-upgrades");
        place.write("apt.conf", apt);
        let dump = place
            .program("apt-config", ["-c", "apt.conf", "dump"])
            .run()
            .ok();
        assert!(
            dump.out()
                .contains("APT::Periodic::Unattended-Upgrade \"1\";")
        );
        let script = content(&data, "/usr/local/sbin/rg-setup");
        assert!(script.starts_with("#!/bin/bash\n"));
        place.write("rg-setup", script);
        place.program("bash", ["-n", "rg-setup"]).run().ok();
        if profile == "rgrid" {
            let daemon = content(&data, "/etc/docker/daemon.json");
            let daemon: Value = serde_json::from_str(&daemon).expect("JSON");
            assert_eq!(daemon["ip"], "127.0.0.1");
        }
    }
}

/// The folders of the machine that the script writes to are the place's own, below `server/`.
const ON_A_SERVER: &str = "for one in etc home opt run var; do mount --bind \"$1/server/$one\" /$one || exit 99; done; shift";

/// A machine as cloud-init leaves it before the script: users, packages, written files.
fn server(place: &Sandbox, data: &Value, user: &str) {
    let folders = [
        "home",
        "opt",
        "run",
        "etc/ufw",
        "etc/caddy",
        "etc/nginx/conf.d",
        "etc/systemd/system",
        "etc/logrotate.d",
        "var/lib",
        "var/log",
        "var/tmp",
        "var/backups",
        "var/www/html",
    ];
    for folder in folders {
        fs::create_dir_all(place.path(format!("server/{folder}"))).expect(folder);
    }
    for file in [
        "passwd",
        "group",
        "nsswitch.conf",
        "ld.so.cache",
        "hosts",
        "resolv.conf",
    ] {
        let text = fs::read(format!("/etc/{file}")).unwrap_or_default();
        place.write(format!("server/etc/{file}"), text);
    }
    let line = format!("{user}:x:4242:4242::/home/{user}:/bin/bash\n");
    let passwd = place.read("server/etc/passwd") + &line;
    place.write("server/etc/passwd", passwd);
    let group = place.read("server/etc/group") + &format!("{user}:x:4242:\n");
    place.write("server/etc/group", group);
    for rules in ["after.rules", "after6.rules"] {
        place.write(format!("server/etc/ufw/{rules}"), "*filter\nCOMMIT\n");
    }
    for file in data["write_files"].as_array().expect("files") {
        let path = file["path"].as_str().expect("a path");
        let name = match path.starts_with("/etc/") {
            true => format!("server{path}"),
            false => "rg-setup".to_owned(),
        };
        place.write(name, file["content"].as_str().expect("a text"));
    }
}

/// The programs of a server: what they would change outside is noted and not done.
fn programs(place: &Sandbox) -> impl Fn(&str) -> Vec<String> {
    for tool in ["rg-envgen", "rg-backup"] {
        let body = format!("exec '{}' {tool} \"$@\"", place.driver().display());
        FakeProgram::new(place, tool).does(&body);
    }
    for name in [
        "apt-get",
        "systemctl",
        "ufw",
        "docker",
        "sshd",
        "nginx",
        "caddy",
        "rg-bucket",
    ] {
        FakeProgram::new(place, name);
    }
    FakeProgram::new(place, "dpkg-query").does("echo install ok installed");
    let root = place.root().display();
    let psql = format!("if [ \"$2\" = postgres ]; then cat >'{root}/sql'; fi");
    FakeProgram::new(place, "runuser").does(&psql);
    // The one who runs this may be nobody in particular: files stay theirs.
    FakeProgram::new(place, "install").does(
        "n=$#\nwhile [ $n -gt 0 ]; do a=$1; shift; n=$((n-1)); case $a in -o|-g) shift; n=$((n-1)) ;; *) set -- \"$@\" \"$a\" ;; esac; done\nexec /usr/bin/install \"$@\"",
    );
    let calls = place.path("calls");
    move |name| {
        let noted = fs::read_to_string(calls.join(name)).unwrap_or_default();
        let mut words = noted.split('\0');
        let mut found = Vec::new();
        while let Some(count) = words.next().and_then(|word| word.parse().ok()) {
            found.push(words.by_ref().take(count).collect::<Vec<_>>().join(" "));
        }
        found
    }
}

fn setup(place: &Sandbox) -> Output {
    let root = place.root().to_str().expect("a path").to_owned();
    let words = [root.as_str(), "bash", "rg-setup"];
    place.behind(ON_A_SERVER, words).run()
}

#[test]
fn the_script_makes_rgrid_with_secrets_of_its_own_and_may_run_again() {
    let place = place("rgrid");
    let data = rendered(&place, &[]);
    server(&place, &data, "deploy");
    let calls = programs(&place);
    let certbot = FakeProgram::new(&place, "certbot");
    certbot.fails(1, "the name does not resolve");
    let first = setup(&place).ok();
    let out = first.out();
    assert!(
        out.contains("let the name app.acme.org point to this server"),
        "{first:?}"
    );
    assert!(
        out.contains("deploy the app (/home/deploy/rgrid/venv/bin/uvicorn"),
        "{out}"
    );
    // Without its certificate nginx would not start: the sites wait.
    assert_eq!(place.files("server/etc/nginx/conf.d"), [""; 0]);
    assert_eq!(calls("sshd"), ["-t"]);
    assert_eq!(
        calls("ufw"),
        [
            "default deny incoming",
            "default allow outgoing",
            "allow 22/tcp",
            "allow 80/tcp",
            "allow 443/tcp",
            "--force enable"
        ]
    );
    let up = calls("docker")
        .into_iter()
        .filter(|call| call.contains(" up "));
    let wanted = ["staging", "production"].map(|env| {
        let home = "/home/deploy/rgrid";
        format!(
            "compose --env-file {home}/.env.{env}.compose -f {home}/compose.{env}.yml up -d --wait"
        )
    });
    assert_eq!(up.collect::<Vec<_>>(), wanted);
    assert_eq!(calls("rg-bucket"), ["apply --yes"]);

    let env = |place: &Sandbox| place.read("server/home/deploy/rgrid/.env.production");
    let (here, there) = (place.read("d/.env.production"), env(&place));
    let secret = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("API_SECRET_KEY="));
        line.expect("a secret").to_owned()
    };
    assert_ne!(
        secret(&here),
        secret(&there),
        "secrets are the server's own"
    );
    assert!(
        !first.out().contains(&secret(&there)[15..])
            && !first.err().contains(&secret(&there)[15..])
    );
    assert!(there.contains("ALLOWED_ORIGINS=https://app.acme.org\n"));
    assert!(
        place
            .read("server/etc/rg/rg.toml")
            .contains("to = \"ops@acme.org\"")
    );
    let units = place.files("server/etc/systemd/system");
    for unit in [
        "rgrid-api-staging.service",
        "rgrid-runner-production.service",
    ] {
        assert!(units.iter().any(|one| one == unit), "{units:?}");
    }
    assert!(
        units
            .iter()
            .any(|one| one.starts_with("rg-backup-") && one.ends_with(".timer"))
    );

    // The name resolves now, and the app is there.
    certbot.does("while [ \"$1\" != -d ]; do shift; done; mkdir -p /etc/letsencrypt/live/$2; touch /etc/letsencrypt/live/$2/fullchain.pem");
    let app = place.write("server/home/deploy/rgrid/venv/bin/uvicorn", "");
    fs::set_permissions(app, Permissions::from_mode(0o755)).expect("a mode");
    let second = setup(&place).ok();
    assert!(!second.out().contains("point to this server"), "{second:?}");
    assert_eq!(env(&place), there);
    let sites = place.files("server/etc/nginx/conf.d");
    assert_eq!(sites, ["rgrid-production.conf", "rgrid-staging.conf"]);
    assert!(calls("systemctl").contains(&"enable --now rgrid-api-production.service".to_owned()));
    for rules in ["after.rules", "after6.rules"] {
        let text = place.read(format!("server/etc/ufw/{rules}"));
        assert_eq!(text.matches("-A DOCKER-USER -j DROP").count(), 1, "{text}");
    }
}

#[test]
fn the_script_makes_toolkitrag_and_its_database_without_showing_the_password() {
    let place = place("toolkitrag");
    let data = rendered(&place, &[]);
    server(&place, &data, "deployer");
    let calls = programs(&place);
    let output = setup(&place).ok();
    let sql = place.read("sql");
    assert!(
        sql.contains("CREATE DATABASE") && sql.contains("SCRAM-SHA-256$"),
        "{sql}"
    );
    assert!(
        sql.contains("CREATE EXTENSION IF NOT EXISTS \"vector\""),
        "{sql}"
    );
    let env = place.read("server/etc/toolkitrag/.env");
    let url = env.lines().find(|line| line.starts_with("DATABASE_URL="));
    let password = url.and_then(|line| line.split(':').nth(2)?.split('@').next());
    let password = password.expect("a password");
    assert!(password.len() >= 32);
    for said in [&sql, &output.out(), &output.err()] {
        assert!(!said.contains(password), "{said}");
    }
    assert!(output.out().contains("OPENAI_API_KEY"), "{output:?}");
    assert!(calls("ufw").contains(&"allow 443/udp".to_owned()));
    assert_eq!(
        calls("runuser").last().expect("calls").as_str(),
        "-u caddy -- caddy validate --adapter caddyfile --config /etc/caddy/Caddyfile"
    );
    assert_eq!(
        place.read("server/etc/caddy/Caddyfile"),
        "import /etc/caddy/sites/*\n"
    );
    assert_eq!(place.files("server/etc/caddy/sites"), ["Caddyfile"]);
    assert_eq!(place.files("server/etc/logrotate.d"), ["toolkitrag"]);
}

#[test]
fn a_script_that_cannot_go_on_says_where_and_how_to_go_on() {
    let place = place("toolkitrag");
    let data = rendered(&place, &[]);
    server(&place, &data, "deployer");
    let calls = programs(&place);
    FakeProgram::new(&place, "sshd").fails(255, "bad configuration option");
    let output = setup(&place).fails(255).says("rg-setup: stopped at line");
    assert!(output.err().contains("run again: sudo rg-setup"));
    // ssh as it was, and nothing closed that somebody needs to mend it.
    assert_eq!(calls("systemctl"), [""; 0]);
    assert_eq!(calls("ufw"), [""; 0]);
}
