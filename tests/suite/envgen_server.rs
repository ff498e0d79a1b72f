//! `rg-envgen render cloud-init`: user data that cloud-init takes, whose files are taken by the
//! programs that they are for, and whose script makes a deployment; no secret is in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rg_tests::{Output, Sandbox, Tool, judge, sandbox};
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
