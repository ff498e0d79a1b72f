//! `rg-envgen render`: what it makes is taken by the programs that it is for, opens no port to the
//! world, and holds neither a secret nor a placeholder.

use std::fs;

use rg_tests::{Output, Postgres, Sandbox, judge, sandbox};

const KINDS: [&str; 4] = ["compose", "systemd", "nginx", "caddy"];

/// Both deployments, rendered: `rgrid/…` and `toolkitrag/…`.
fn rendered() -> Sandbox {
    let place = sandbox!();
    for (profile, given) in [
        ("rgrid", "ADMIN_MAIL=ops@acme.org"),
        ("toolkitrag", "DOMAIN=rag.acme.org"),
    ] {
        place
            .run(
                "rg-envgen",
                [
                    "init",
                    "--profile",
                    profile,
                    "--dir",
                    profile,
                    "--set",
                    given,
                ],
            )
            .ok();
        for kind in KINDS {
            let output = render(&place, profile, &[kind, "-o", &format!("{profile}/out")]);
            if (profile, kind) == ("toolkitrag", "compose") {
                output
                    .fails(2)
                    .says("the profile toolkitrag has nothing of that kind");
            } else {
                output.ok();
            }
        }
    }
    place
}

fn render(place: &Sandbox, profile: &str, args: &[&str]) -> Output {
    let config = format!("{profile}/rg.toml");
    let head = ["--config", &config, "render"];
    place.run("rg-envgen", head.into_iter().chain(args.iter().copied()))
}

/// The rendered files whose name ends so.
fn files(place: &Sandbox, ending: &str) -> Vec<String> {
    let all = ["rgrid/out", "toolkitrag/out"].into_iter();
    let all = all.flat_map(|dir| {
        place
            .files(dir)
            .into_iter()
            .map(move |name| format!("{dir}/{name}"))
    });
    let found: Vec<String> = all.filter(|name| name.ends_with(ending)).collect();
    assert!(!found.is_empty(), "nothing ends in {ending}");
    found
}

#[test]
fn no_secret_no_placeholder_and_no_open_port() {
    let place = rendered();
    let mut secrets = Vec::new();
    for file in [
        "rgrid/.env.staging",
        "rgrid/.env.production",
        "toolkitrag/.env",
    ] {
        let text = place.read(file);
        let values = text.lines().filter_map(|line| line.split_once('='));
        let secret = |(name, _): &(&str, &str)| name.contains("SECRET") || name.contains("URL");
        secrets.extend(values.filter(secret).map(|(_, value)| value.to_owned()));
    }
    assert!(secrets.len() >= 8);
    for file in files(&place, "") {
        let text = place.read(&file);
        for secret in secrets.iter().filter(|secret| secret.len() > 20) {
            assert!(!text.contains(secret.as_str()), "a secret in {file}");
        }
        for word in [
            "0.0.0.0",
            "{{",
            "{%",
            "yourdomain",
            "example.com",
            "CHANGE",
            "<",
            "undefined",
            "none",
        ] {
            let comparison = word == "none" && text.contains("nonewprivileges");
            assert!(comparison || !text.contains(word), "{word} in {file}");
        }
    }
    // The same source gives the same bytes, and a second run writes nothing.
    let output = render(&place, "rgrid", &["compose", "-o", "rgrid/out"]).ok();
    assert!(
        output
            .out()
            .lines()
            .all(|line| line.starts_with("unchanged")),
        "{}",
        output.out()
    );
    let printed = render(&place, "rgrid", &["compose", "--env", "staging"]).ok();
    assert_eq!(printed.out(), place.read("rgrid/out/compose.staging.yml"));
}

#[test]
fn what_is_missing_is_named_with_its_place() {
    let place = sandbox!();
    place
        .run(
            "rg-envgen",
            ["init", "--profile", "toolkitrag", "--dir", "toolkitrag"],
        )
        .ok();
    let output = render(&place, "toolkitrag", &["nginx"]);
    output
        .fails(2)
        .says("needs DOMAIN")
        .says("set `environments.production.app.domain` in rg.toml");
}

#[test]
fn compose_files_publish_on_loopback_and_want_every_variable() {
    let place = rendered();
    let read = "import sys, json, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut names = Vec::new();
    for file in files(&place, ".yml") {
        let output = place
            .program("/usr/bin/python3", ["-c", read, file.as_str()])
            .run()
            .ok();
        let document = output.json();
        names.push(
            document["name"]
                .as_str()
                .expect("a project name")
                .to_owned(),
        );
        let services = document["services"].as_object().expect("services");
        assert_eq!(services.len(), 2);
        for (name, service) in services {
            let text = |key: &str| service[key].as_str().unwrap_or_default();
            let (_, tag) = text("image").rsplit_once(':').expect("a tag");
            assert!(
                tag.contains(|c: char| c.is_ascii_digit()) && tag.contains(['-', '.']),
                "{name}: the image {tag} can become another one by itself"
            );
            assert_eq!(text("restart"), "unless-stopped", "{name}");
            assert!(service["healthcheck"]["test"].is_array(), "{name}");
            assert!(text("mem_limit").ends_with('m'), "{name}");
            for port in service["ports"].as_array().expect("ports") {
                let port = port.as_str().expect("a text");
                assert!(
                    port.starts_with("127.0.0.1:${") && port.contains(":?missing}:"),
                    "{name} {port}"
                );
            }
        }
        let environment = if file.contains("staging") {
            "staging"
        } else {
            "production"
        };
        let values = place.read(format!("rgrid/.env.{environment}.compose"));
        for reference in place.read(&file).split("${").skip(1) {
            let (variable, rest) = reference.split_once(":?").expect("an error when missing");
            assert!(rest.starts_with("missing}"));
            assert!(
                values.contains(&format!("\n{variable}=")),
                "{variable} is in no env file"
            );
        }
    }
    assert_eq!(names, ["rgrid-production", "rgrid-staging"]);
}

#[test]
fn the_schema_of_compose_takes_the_files() {
    let place = rendered();
    let node = judge("python/bin/node");
    let lint = judge("node_modules/dclint/bin/dclint.cjs");
    for file in files(&place, ".yml") {
        let check = |file: &str| place.program(&node, [lint.as_str(), "--quiet", file]).run();
        check(&file).ok();
        let broken = place.read(&file).replace("healthcheck:", "healthchecks:");
        place.write("broken/compose.yml", broken);
        let output = check("broken/compose.yml").fails(1);
        assert!(output.out().contains("invalid-schema"), "{}", output.out());
    }
}

#[test]
fn systemd_takes_the_units() {
    let place = rendered();
    for file in files(&place, ".service") {
        let text = place.read(&file);
        let begin = text.find("ExecStart=").expect("a command") + "ExecStart=".len();
        let end = begin + text[begin..].find(' ').expect("arguments");
        // The app is not installed here; everything else is as it is.
        let here = format!("{}/usr/bin/true{}", &text[..begin], &text[end..]);
        let path = place.write(format!("units/{}", file.replace('/', "-")), here);
        let path = path.to_str().expect("a path");
        place
            .program(
                "systemd-analyze",
                ["verify", "--man=no", "--recursive-errors=no", path],
            )
            .run()
            .ok();
        let output = place
            .program(
                "systemd-analyze",
                ["security", "--offline=yes", "--threshold=30", path],
            )
            .run();
        // Only the runner, which starts containers, may be more exposed than 3.0.
        assert!(
            file.contains("runner") || output.code() == 0,
            "{}",
            output.out()
        );
    }
    let broken = place
        .read("rgrid/out/rgrid-api-staging.service")
        .replace("Restart=always", "Restrat=always");
    let broken = place.write("units/broken.service", broken);
    let output = place
        .program(
            "systemd-analyze",
            ["verify", "--man=no", broken.to_str().expect("a path")],
        )
        .run();
    assert!(
        output.err().contains("Restrat"),
        "the check would find nothing: {}",
        output.err()
    );
}

#[test]
fn nginx_takes_the_sites_all_at_once() {
    let place = rendered();
    let subject = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", "key",
        "-out", "cert",
    ];
    place.program("openssl", subject).run().ok();
    let root = place.root().to_str().expect("a path").to_owned();
    let mut sites = String::new();
    let mut sockets = 0;
    for file in files(&place, ".conf") {
        for line in place.read(&file).lines() {
            // Here it listens to nobody: sockets of its own instead of the ports of the world.
            if let Some(rest) = line.trim().strip_prefix("listen ") {
                let options = rest
                    .split_once(' ')
                    .map_or("", |(_, options)| options.trim_end_matches(';'));
                sockets += 1;
                sites.push_str(&format!("listen unix:{root}/s{sockets} {options};\n"));
                continue;
            }
            let line = match line.trim().split_once(' ') {
                Some(("ssl_certificate_key", _)) => format!("ssl_certificate_key {root}/key;"),
                Some((word @ ("ssl_certificate" | "ssl_trusted_certificate"), _)) => {
                    format!("{word} {root}/cert;")
                }
                _ => line.to_owned(),
            };
            sites.push_str(&line);
            sites.push('\n');
        }
    }
    assert_eq!(sockets, 12);
    let main = format!(
        "pid {root}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{sites}}}\n"
    );
    let path = place.write("nginx.conf", &main);
    let check = |path: &std::path::Path| {
        let path = path.to_str().expect("a path");
        place
            .program(
                "/usr/sbin/nginx",
                ["-t", "-q", "-p", root.as_str(), "-c", path],
            )
            .run()
    };
    check(&path).ok();
    let broken = place.write(
        "broken.conf",
        main.replace("limit_req zone=rgrid_staging_auth", "limit_req zone=other"),
    );
    check(&broken).fails(1);
    for text in [
        "rate=5r/m",
        "rate=20r/m",
        "Strict-Transport-Security",
        "ssl_stapling on",
        "gzip on",
        "Upgrade $http_upgrade",
        "return 301 https://",
    ] {
        assert!(main.contains(text), "{text}");
    }
}

#[test]
fn caddy_takes_the_caddyfiles() {
    let place = rendered();
    for file in files(&place, "addyfile")
        .into_iter()
        .chain(files(&place, ".caddyfile"))
    {
        let text = place
            .read(&file)
            .replace("/var/log/caddy", place.root().to_str().expect("a path"));
        let path = place.write(format!("caddy/{}", file.replace('/', "-")), text);
        let path = path.to_str().expect("a path");
        let validate = ["validate", "--adapter", "caddyfile", "--config", path];
        place.program("caddy", validate).run().ok();
        let broken = fs::read_to_string(path)
            .expect("it")
            .replace("encode zstd gzip", "encdoe zstd gzip");
        let broken = place.write("caddy/broken", broken);
        let validate = [
            "validate",
            "--adapter",
            "caddyfile",
            "--config",
            broken.to_str().expect("a path"),
        ];
        place.program("caddy", validate).run().fails(1);
    }
}

#[test]
fn the_database_is_made_without_its_password() {
    let place = sandbox!();
    let cluster = Postgres::shared();
    let password = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let url = format!(
        "postgresql://envgen_sql:{password}@127.0.0.1:{}/envgen sql'1",
        cluster.port()
    );
    let url = url.replace(' ', "%20").replace('\'', "%27");
    let args = [
        "init",
        "--profile",
        "toolkitrag",
        "--dir",
        "toolkitrag",
        "--set-from",
        "-",
    ];
    place
        .tool("rg-envgen", args)
        .stdin(format!("DATABASE_URL={url}\n"))
        .run()
        .ok();
    let text = place
        .read("toolkitrag/rg.toml")
        .replace("[\"vector\"]", "[\"pg_trgm\"]");
    place.write("toolkitrag/rg.toml", text);
    for _ in 0..2 {
        render(&place, "toolkitrag", &["database", "-o", "."]).ok();
        let sql = place.read("database-production.sql");
        assert!(!sql.contains(password) && sql.contains("SCRAM-SHA-256$"));
        let output = cluster.try_psql("postgres", "postgres", &sql);
        output.ok();
    }
    place
        .program(
            "psql",
            ["-XAtc", "SELECT similarity('a', 'a')", url.as_str()],
        )
        .run()
        .ok();
}
