//! `rg.toml` as it is written, and its way into validated types.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    host: Option<String>,
    state: Option<PathBuf>,
    #[serde(default)]
    stores: Ordered<Store>,
    encryption: Option<Encryption>,
    #[serde(default)]
    notify: Ordered<Notify>,
    #[serde(default)]
    environments: Ordered<Env>,
    globals: Option<Globals>,
    #[serde(default, rename = "check")]
    checks: Vec<checks::CheckRaw>,
    #[serde(default)]
    alerts: checks::AlertsRaw,
    #[serde(default)]
    maintenance: Vec<checks::MaintenanceRaw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    credentials: Option<PathBuf>,
    storage_class: Option<String>,
    lock_days: Option<u32>,
    part_mib: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encryption {
    recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notify {
    kind: NotifyKind,
    url: Option<String>,
    env_file: Option<PathBuf>,
    to: Option<String>,
    from: Option<String>,
    #[serde(default)]
    level: NotifyLevel,
    #[serde(default)]
    fallback: bool,
    #[serde(default)]
    tools: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Globals {
    schedule: Option<String>,
    keep: Option<Keep>,
    stores: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Env {
    env_file: Option<PathBuf>,
    database: Option<Database>,
    #[serde(default)]
    files: Ordered<Files>,
    #[serde(default)]
    buckets: Ordered<Bucket>,
    #[serde(default)]
    app: AppRaw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    url: String,
    #[serde(default = "local")]
    via: String,
    #[serde(default)]
    format: DumpFormat,
    #[serde(default)]
    compression: CompressionKind,
    schedule: Option<String>,
    keep: Option<Keep>,
    stores: Option<Vec<String>>,
    #[serde(default)]
    required_tables: Vec<String>,
    #[serde(default)]
    extensions: Vec<String>,
}

fn local() -> String {
    "local".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    path: PathBuf,
    schedule: Option<String>,
    keep: Option<Keep>,
    stores: Option<Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    owner: Option<String>,
    #[serde(default)]
    compression: CompressionKind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    name: String,
    access_key: Option<String>,
    secret_key: Option<String>,
    admin_credentials: Option<PathBuf>,
    access: Option<Access>,
    versioning: Option<bool>,
    expire_days: Option<u32>,
    noncurrent_days: Option<u32>,
    abandoned_upload_days: Option<u32>,
    cors: Option<Vec<CorsRule>>,
    lock: Option<LockConfig>,
    schedule: Option<String>,
    keep: Option<Keep>,
    stores: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AppRaw {
    #[serde(default)]
    units: Vec<String>,
    #[serde(default)]
    containers: Vec<String>,
    domain: Option<String>,
    #[serde(default)]
    ports: Ordered<u16>,
    #[serde(default)]
    health: Vec<HealthRaw>,
    log: Option<LogRaw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogRaw {
    unit: Option<String>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthRaw {
    url: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    json: Ordered<serde_json::Value>,
    max_ms: Option<u64>,
}

fn ok() -> u16 {
    200
}

/// The tools that tell somebody.
const TOOLS: [&str; 3] = ["rg-backup", "rg-restore", "rg-healthcheck"];

/// Parses and validates; relative paths are relative to `base`. The path is filled in by the caller.
pub(super) fn parse(text: &str, base: &Path, hostname: &str) -> Result<Config> {
    let file: File = toml::from_str(text).map_err(|error| explain(text, &error))?;
    let state = base.join(file.state.unwrap_or_else(|| "/var/lib/rg".into()));
    let stores: Vec<StoreConfig> = file
        .stores
        .0
        .into_iter()
        .map(|(name, raw)| store(name, raw, base, &state))
        .collect::<Result<_>>()?;
    let same = |a: &StoreConfig| {
        stores
            .iter()
            .find(|b| a.name != b.name && a.place.is_same(&b.place))
    };
    if let Some((one, other)) = stores.iter().find_map(|a| same(a).map(|b| (a, b))) {
        return Err(Failure::new(format!(
            "the stores `{}` and `{}` are the same place",
            one.name, other.name
        ))
        .hint("a copy beside the original is lost with it: name another disk or machine"));
    }
    if stores.is_empty() {
        return Err(Failure::new("no store is configured")
            .hint("add [stores.local] with url = \"file:///var/backups/rg\""));
    }
    let mut config = Config {
        path: PathBuf::new(),
        host: file.host.unwrap_or_else(|| hostname.to_owned()),
        state,
        stores,
        recipients: file.encryption.map(|e| e.recipients).unwrap_or_default(),
        notify: Vec::new(),
        datasets: Vec::new(),
        environments: Vec::new(),
        checks: Vec::new(),
        alerts: checks::alerts(file.alerts)?,
        maintenance: Vec::new(),
    };
    for (name, raw) in file.notify.0 {
        config.notify.push(notify(name, raw, base)?);
    }
    for (name, raw) in file.environments.0 {
        environment(&mut config, name, raw, base)?;
    }
    config.checks = checks::checks(file.checks, base, &config.environments)?;
    config.maintenance = checks::maintenance(file.maintenance, &config.environments)?;
    add_globals(&mut config, file.globals)?;
    Ok(config)
}

fn store(name: String, raw: Store, base: &Path, state: &Path) -> Result<StoreConfig> {
    check_word("a store", &name)?;
    let place = if let Some(path) = raw.url.strip_prefix("file://") {
        if path.is_empty() {
            return Err(Failure::new(format!(
                "stores.{name}.url names no directory"
            )));
        }
        StorePlace::Folder(base.join(path))
    } else if let Some(place) = raw.url.strip_prefix("s3://") {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let at = |failure: Failure| failure.context(format!("stores.{name}.url is `{}`", raw.url));
        bucket::check_name(bucket).map_err(at)?;
        bucket::check_prefix(prefix).map_err(at)?;
        if raw.lock_days == Some(0) {
            return Err(Failure::new(format!("stores.{name}.lock_days is 0"))
                .hint("leave it out where nothing is to be locked"));
        }
        StorePlace::Bucket(Box::new(BucketStore {
            url: raw.url.clone(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: raw.endpoint,
            region: raw.region,
            path_style: raw.path_style,
            credentials: match raw.credentials {
                Some(path) => CredentialsPlace::File(bucket::credentials_path(&path, base)?),
                None => CredentialsPlace::Environment,
            },
            storage_class: raw.storage_class,
            lock_days: raw.lock_days,
            part_mib: bucket::check_part(raw.part_mib).map_err(at)?,
            locks: state.join("locks"),
        }))
    } else {
        return Err(Failure::new(format!("stores.{name}.url is `{}`", raw.url))
            .hint("a store's url begins with file:// or s3://"));
    };
    Ok(StoreConfig { name, place })
}

fn notify(name: String, raw: Notify, base: &Path) -> Result<NotifyConfig> {
    let url = raw.url.as_deref().map(Value::parse).transpose()?;
    if url.is_none() && raw.kind != NotifyKind::Mail {
        return Err(Failure::new(format!("notify.{name} has no url")));
    }
    if raw.kind == NotifyKind::Mail && raw.to.is_none() {
        return Err(
            Failure::new(format!("notify.{name} does not say whom to mail"))
                .hint("add to = \"admin@example.org\""),
        );
    }
    for tool in &raw.tools {
        if !TOOLS.contains(&tool.as_str()) {
            let failure = Failure::new(format!("notify.{name}.tools names `{tool}`"));
            return Err(match nearest(tool, TOOLS) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint(format!("known are: {}", TOOLS.join(", "))),
            });
        }
    }
    let env_file = raw.env_file.map(|path| base.join(path));
    Ok(NotifyConfig {
        name,
        kind: raw.kind,
        url,
        env_file,
        to: raw.to,
        from: raw.from,
        level: raw.level,
        fallback: raw.fallback,
        tools: raw.tools,
    })
}

fn environment(config: &mut Config, name: String, raw: Env, base: &Path) -> Result<()> {
    check_word("an environment", &name)?;
    if name == "globals" {
        return Err(Failure::new(
            "an environment cannot be called `globals`: it is a dataset's name",
        ));
    }
    let mut add = |rest: &str,
                   kind,
                   schedule: Option<String>,
                   keep: Option<Keep>,
                   stores: Option<Vec<String>>| {
        let name_of = format!("{name}/{rest}");
        let at = |failure: Failure| {
            failure.context(format!("[environments.{}]", name_of.replace('/', ".")))
        };
        let dataset = DatasetConfig {
            name: name_of.parse().map_err(at)?,
            environment: name.clone(),
            kind,
            schedule: schedule
                .as_deref()
                .map(Schedule::parse)
                .transpose()
                .map_err(at)?,
            keep: checked_keep(keep).map_err(at)?,
            stores: chosen_stores(&config.stores, stores).map_err(at)?,
        };
        config.datasets.push(dataset);
        Ok::<(), Failure>(())
    };
    if let Some(db) = raw.database {
        let database = DatabaseConfig {
            url: Value::parse(&db.url)?,
            via: db.via,
            format: db.format,
            compression: db.compression,
            required_tables: db.required_tables,
            extensions: db.extensions,
        };
        add(
            "database",
            DatasetKind::Database(database),
            db.schedule,
            db.keep,
            db.stores,
        )?;
    }
    for (word, files) in raw.files.0 {
        check_word("a directory", &word)?;
        let kind = DatasetKind::Files(FilesConfig {
            path: base.join(files.path),
            exclude: files.exclude,
            owner: files.owner,
            compression: files.compression,
        });
        add(
            &format!("files/{word}"),
            kind,
            files.schedule,
            files.keep,
            files.stores,
        )?;
    }
    for (word, bucket) in raw.buckets.0 {
        check_word("a bucket", &word)?;
        let parse = |text: Option<&str>| text.map(Value::parse).transpose();
        let kind = DatasetKind::Bucket(Box::new(BucketConfig {
            endpoint: parse(bucket.endpoint.as_deref())?,
            region: parse(bucket.region.as_deref())?,
            path_style: bucket.path_style,
            name: Value::parse(&bucket.name)?,
            access_key: parse(bucket.access_key.as_deref())?,
            secret_key: bucket
                .secret_key
                .as_deref()
                .map(super::bucket::secret)
                .transpose()?,
            admin_credentials: bucket
                .admin_credentials
                .map(|path| bucket::credentials_path(&path, base))
                .transpose()?,
            access: bucket.access,
            versioning: bucket.versioning,
            expire_days: bucket.expire_days,
            noncurrent_days: bucket.noncurrent_days,
            abandoned_upload_days: bucket.abandoned_upload_days,
            cors: bucket.cors,
            lock: bucket.lock,
        }));
        add(
            &format!("buckets/{word}"),
            kind,
            bucket.schedule,
            bucket.keep,
            bucket.stores,
        )?;
    }
    let health = raw.app.health.into_iter();
    let health = health
        .map(|h| HealthConfig {
            url: h.url,
            status: h.status,
            json: h.json.0,
            max_ms: h.max_ms,
        })
        .collect();
    let at = |failure: Failure| failure.context(format!("[environments.{name}.app]"));
    let log = raw
        .app
        .log
        .map(|log| checks::log_place(log.unit, log.file, base))
        .transpose()
        .map_err(at)?;
    config.environments.push(Environment {
        name,
        env_file: raw.env_file.map(|path| base.join(path)),
        app: App {
            units: raw.app.units,
            containers: raw.app.containers,
            domain: raw.app.domain,
            ports: raw.app.ports.0,
            health,
            log,
        },
    });
    Ok(())
}

/// Every server's globals, once: `globals` where there is one server, `globals/ENV` where there
/// are several. Schedule and retention are the database's own unless `[globals]` says otherwise.
fn add_globals(config: &mut Config, raw: Option<Globals>) -> Result<()> {
    let mut servers: Vec<(String, DatasetConfig)> = Vec::new();
    for dataset in &config.datasets {
        let DatasetKind::Database(database) = &dataset.kind else {
            continue;
        };
        // Whether two URLs are one server is known only when they are looked up: the place where
        // pg_dump runs and the env file tell them apart without reading a secret.
        let env_file = config
            .environment(&dataset.environment)
            .and_then(|e| e.env_file.clone());
        let server = format!(
            "{} {} {env_file:?}",
            database.via,
            database.url.as_written()
        );
        if servers.iter().all(|(known, _)| *known != server) {
            let mut globals = dataset.clone();
            globals.kind = DatasetKind::Globals(database.clone());
            servers.push((server, globals));
        }
    }
    let alone = servers.len() == 1;
    let raw = raw.unwrap_or(Globals {
        schedule: None,
        keep: None,
        stores: None,
    });
    let schedule = raw.schedule.as_deref().map(Schedule::parse).transpose()?;
    let keep = checked_keep(raw.keep)?;
    let mut all = Vec::new();
    for (_, mut globals) in servers {
        let name = if alone {
            "globals".to_owned()
        } else {
            format!("globals/{}", globals.environment)
        };
        globals.name = name.parse()?;
        globals.schedule = schedule.clone().or(globals.schedule);
        globals.keep = keep.clone().or(globals.keep);
        if raw.stores.is_some() {
            globals.stores = chosen_stores(&config.stores, raw.stores.clone())?;
        }
        all.push(globals);
    }
    config.datasets.splice(0..0, all);
    Ok(())
}

fn checked_keep(keep: Option<Keep>) -> Result<Option<Keep>> {
    if let Some(keep) = &keep {
        keep.validate()?;
    }
    Ok(keep)
}

fn chosen_stores(known: &[StoreConfig], wanted: Option<Vec<String>>) -> Result<Vec<String>> {
    let names = || known.iter().map(|store| store.name.as_str());
    let Some(wanted) = wanted else {
        return Ok(names().map(str::to_owned).collect());
    };
    if wanted.is_empty() {
        return Err(Failure::new("stores = [] would keep no backup"));
    }
    if let Some(twice) = (1..wanted.len()).find(|at| wanted[..*at].contains(&wanted[*at])) {
        return Err(Failure::new(format!(
            "stores names `{}` twice",
            wanted[twice]
        )));
    }
    for name in &wanted {
        if !names().any(|known| known == name) {
            let failure = Failure::new(format!("no store `{name}` is configured"));
            return Err(match nearest(name, names()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            });
        }
    }
    Ok(wanted)
}

/// A TOML error in an operator's words: the line, what is wrong, and the nearest known key.
fn explain(text: &str, error: &toml::de::Error) -> Failure {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().to_owned();
    let place = line.map_or(String::new(), |line| format!("line {line}: "));
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let what = if message.starts_with("unknown field") {
            "key"
        } else {
            "value"
        };
        let word = quoted.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = quoted.collect();
        let failure = Failure::new(format!("{place}unknown {what} `{word}`"));
        return match nearest(&word, known.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("known here: {}", known.join(", "))),
        };
    }
    Failure::new(format!("{place}{message}"))
}
