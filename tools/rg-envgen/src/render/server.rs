//! `render cloud-init`: the user data that makes a fresh server ready for this deployment.
//!
//! The promise: there is no secret in it, for the machine and its provider keep user data readable.
//! It holds public keys, names and settings; the secrets are made on the server by `rg-envgen init`,
//! which the same file installs and starts. What goes into a script or into YAML is refused unless
//! it is made of characters that mean nothing there.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{Environment as Templates, UndefinedBehavior, Value, context};
use rg_common::secret::Secret;
use rg_common::{Failure, OrFail, Result};

use super::{Rendered, known};
use crate::args::{Proxy, Server};
use crate::derive::{self, How, Known};
use crate::generate;
use crate::place::{self, Place};
use crate::profile::Profile;
use crate::safe;
use crate::schema::{Environment, Schema};

/// User data above this size is refused: Amazon takes 16 KiB, others at least twice that.
const BYTES_MAX: usize = 16 << 10;
/// More keys than this are a mistake.
const KEYS_MAX: usize = 20;
/// The major of PostgreSQL where it does not run in docker; pgvector comes with it.
const POSTGRES: u32 = 15;

macro_rules! shipped {
    ($file:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../packaging/cloud-init/",
            $file
        ))
    };
}

/// A file that cloud-init writes: its path, its mode, its template.
type Written = (&'static str, &'static str, &'static str);

const FILES: [Written; 4] = [
    (
        "/etc/ssh/sshd_config.d/00-rg.conf",
        "0600",
        shipped!("sshd.conf"),
    ),
    ("/etc/fail2ban/jail.local", "0644", shipped!("jail.local")),
    (
        "/etc/apt/apt.conf.d/51rg-upgrades",
        "0644",
        shipped!("upgrades.conf"),
    ),
    ("/usr/local/sbin/rg-setup", "0755", shipped!("setup.sh")),
];
const DOCKER_FILES: [Written; 2] = [
    ("/etc/docker/daemon.json", "0644", shipped!("daemon.json")),
    (
        "/etc/rg/docker-user.rules",
        "0644",
        shipped!("docker-user.rules"),
    ),
];

/// What a profile's server has beyond its schema.
struct Host {
    title: &'static str,
    app_user: &'static str,
    /// Of the app's user, made in this order.
    directories: &'static [&'static str],
    /// What is there once the app is deployed.
    program: &'static str,
    docker: bool,
    proxy: Proxy,
}

fn host(profile: &Profile) -> Host {
    match profile.name {
        "rgrid" => Host {
            title: "RGrid",
            app_user: "deploy",
            directories: &["/home/deploy/rgrid"],
            program: "/home/deploy/rgrid/venv/bin/uvicorn",
            docker: true,
            proxy: Proxy::Nginx,
        },
        _ => Host {
            title: "ToolkitRAG",
            app_user: "deployer",
            directories: &[
                "/opt/toolkitrag",
                "/opt/toolkitrag/app",
                "/opt/toolkitrag/data",
                "/opt/toolkitrag/data/uploads",
            ],
            program: "/opt/toolkitrag/app/venv/bin/uvicorn",
            docker: false,
            proxy: Proxy::Caddy,
        },
    }
}

/// The user data for the deployment's server, with all of its environments.
pub fn user_data(place: &Place, profile: &Profile, args: &Server) -> Result<Rendered> {
    let name = "user-data.yml".to_owned();
    let shipped = Schema::parse(profile.schema)?;
    let host = host(profile);
    let proxy = args.proxy.unwrap_or(host.proxy);
    let keys = public_keys(&args.ssh_key)?;
    let admin = user(args.admin.as_str(), host.app_user)?;
    let package = package(args)?;
    let (sets, mut domains, mut mail) = (settings(place)?, Vec::new(), None);
    for environment in &place.schema.environments {
        let values = known(place, environment)?;
        let wanted = |id: &str| values.get(id).map(|value| value.reveal().to_owned());
        domains.push(wanted("DOMAIN").ok_or_else(|| {
            Failure::new(format!(
                "the server needs the domain of {}",
                environment.name
            ))
            .hint(format!(
                "set `environments.{}.app.domain` in rg.toml",
                environment.name
            ))
        })?);
        mail = mail.or_else(|| wanted("ADMIN_MAIL"));
    }
    for text in domains.iter().chain(&mail) {
        safe::check("DOMAIN or ADMIN_MAIL", text)?;
    }
    let mut packages = vec![
        "ufw",
        "fail2ban",
        "python3-systemd",
        "unattended-upgrades",
        "logrotate",
        "ca-certificates",
        "curl",
        "git",
        "python3-venv",
    ];
    packages.push(if host.docker {
        "docker.io"
    } else {
        "postgresql-common"
    });
    match proxy {
        Proxy::Nginx => packages.extend(["nginx", "certbot"]),
        Proxy::Caddy => packages.push("caddy"),
    }
    let docker_files: &[Written] = if host.docker { &DOCKER_FILES } else { &[] };
    let environments: Vec<String> = place
        .schema
        .environments
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let certbot_mail = match &mail {
        Some(mail) => format!("-m {mail}"),
        None => "--register-unsafely-without-email".to_owned(),
    };
    let values = context! {
        title => host.title,
        profile => profile.name,
        admin,
        keys,
        app_user => host.app_user,
        directories => host.directories.to_vec(),
        program => host.program,
        docker => host.docker,
        home => place.schema.home.to_string_lossy(),
        environments,
        proxy => proxy.name(),
        packages,
        package,
        sets,
        domains,
        postgres => POSTGRES,
        certbot_mail,
    };
    let mut files = Vec::new();
    for (path, mode, template) in docker_files.iter().chain(&FILES) {
        files.push(
            context! { path => *path, mode => *mode, text => filled(path, template, &values)? },
        );
    }
    let own = place::read(&place.schema_path)?;
    if own != profile.schema || place.schema != shipped {
        files.push(context! { path => "/etc/rg/env.schema.toml", mode => "0640", text => own });
    }
    let values = context! { files, ..values };
    let text = filled(&name, shipped!("user-data.yml"), &values)? + "\n";
    if text.len() > BYTES_MAX {
        return Err(Failure::new(format!(
            "{name} would be {} bytes, and not every provider takes more than {BYTES_MAX}",
            text.len()
        ))
        .hint("a shorter env.schema.toml, or fewer keys; `rg-envgen import` brings the rest afterwards"));
    }
    Ok(Rendered {
        name,
        path: None,
        changed: true,
        text,
    })
}

fn filled(name: &str, template: &str, values: &Value) -> Result<String> {
    let mut engine = Templates::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.add_filter("quoted", |text: String| {
        format!("'{}'", text.replace('\'', r"'\''"))
    });
    engine
        .render_str(template, values)
        .or_fail(|| format!("cannot make {name}"))
}

/// What a person chose of the settings that `rg.toml` keeps, as `init --set` takes them; what is as
/// the schema says is left out.
fn settings(place: &Place) -> Result<Vec<String>> {
    let mut sets: Vec<String> = Vec::new();
    for environment in &place.schema.environments {
        let chosen = known(place, environment)?;
        let by_itself = fresh(&place.schema, environment)?;
        for variable in &place.schema.variables {
            let Some((value, How::Kept)) = chosen.values.get(&variable.id) else {
                continue;
            };
            if variable.config.is_none()
                || variable.is_secret()
                || by_itself.get(&variable.id) == Some(value)
            {
                continue;
            }
            let name = variable.name_in(&environment.name);
            let value = value.reveal();
            variable
                .kind
                .accepts(value)
                .map_err(|why| Failure::new(format!("the value of {name} in rg.toml {why}")))?;
            safe::check(&name, value)?;
            let of_all = variable
                .config
                .as_ref()
                .is_some_and(|key| !key.contains("{env}"));
            let set = match of_all {
                true => format!("{name}={value}"),
                false => format!("{}.{name}={value}", environment.name),
            };
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
    }
    Ok(sets)
}

/// What a first `init` would find by itself.
fn fresh(schema: &Schema, environment: &Environment) -> Result<derive::Values> {
    let nothing: BTreeMap<String, Secret> = BTreeMap::new();
    let known = Known {
        schema,
        environment,
        found: nothing.clone(),
        given: nothing,
    };
    derive::values(known, &mut generate::System, &|_| None)
}

/// The public keys in the files, one a line.
fn public_keys(paths: &[impl AsRef<Path>]) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let text = place::read(path)?;
        if text.contains("PRIVATE KEY") {
            return Err(Failure::new(format!("{} is a private key", path.display()))
                .hint("the public one is beside it, in a file whose name ends in .pub"));
        }
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !is_public_key(line) {
                return Err(Failure::new(format!(
                    "{} has a line that is no public key of ssh",
                    path.display()
                ))
                .hint("a line is `ssh-ed25519 AAAA… name`, without options"));
            }
            keys.push(line.to_owned());
        }
    }
    match keys.len() {
        0 => Err(
            Failure::new("a server without a key lets nobody in, not even you")
                .hint("name your public key: --ssh-key ~/.ssh/id_ed25519.pub"),
        ),
        1..=KEYS_MAX => Ok(keys),
        count => Err(Failure::new(format!(
            "{count} keys are more than {KEYS_MAX}"
        ))),
    }
}

/// The kinds that OpenSSH 8.9 and later take by themselves; `ssh-dss` is none of them.
fn is_public_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let known = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    let body = words.next().unwrap_or_default();
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.@+:/=".contains(&b);
    known.contains(&kind)
        && body.starts_with("AAAA")
        && body.len() >= 60
        && body.bytes().all(base64)
        && line.bytes().all(plain)
}

fn user(name: &str, app_user: &str) -> Result<String> {
    let fits = name.len() <= 31
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !fits || name == "root" || name == app_user {
        return Err(
            Failure::new(format!("the administrator cannot be called {name:?}")).hint(format!(
                "a name of a-z, 0-9, `-` and `_` that is neither root nor the app's user {app_user}"
            )),
        );
    }
    Ok(name.to_owned())
}

fn package(args: &Server) -> Result<Option<Value>> {
    let (Some(url), Some(sha256)) = (&args.package, &args.package_sha256) else {
        return Ok(None);
    };
    if !url.starts_with("https://") {
        return Err(Failure::new("the package is fetched by https:// only"));
    }
    if !url
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~:/%+=".contains(&b))
    {
        return Err(
            Failure::new("the package's address has a character in it that is not plain")
                .hint("no `?…`: an address that is signed is a secret, and user data can be read"),
        );
    }
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::new("--package-sha256 is 64 hexadecimal digits")
            .hint("sha256sum PACKAGE.deb prints them"));
    }
    let sha256 = sha256.to_ascii_lowercase();
    Ok(Some(context! { url, sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_without_options_are_taken() {
        let body = format!("AAAA{}", "C3Nz".repeat(16));
        for line in [
            format!("ssh-dss {body} me"),
            format!("command=\"sh\" ssh-rsa {body}"),
            format!("ssh-ed25519 {body} me\": x"),
            format!("ssh-ed25519 {body}; me'"),
            "ssh-ed25519 AAAA me".to_owned(),
            "ssh-ed25519".to_owned(),
        ] {
            assert!(!is_public_key(&line), "{line}");
        }
        assert!(is_public_key(&format!("ssh-ed25519 {body} me@laptop")));
        assert!(is_public_key(&format!("sk-ssh-ed25519@openssh.com {body}")));
    }

    #[test]
    fn the_administrator_is_neither_root_nor_the_app() {
        for name in ["", "root", "deploy", "Me", "a b", "-x", "1x", "x:y"] {
            assert!(user(name, "deploy").is_err(), "{name}");
        }
        assert_eq!(user("ops", "deploy").unwrap(), "ops");
    }
}
