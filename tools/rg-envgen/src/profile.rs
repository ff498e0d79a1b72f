//! The deployments that ship with the tool, whole inside the program.

use crate::args::{self, Kind};

/// One deployment: its schema and the templates of what is made from it.
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// `env.schema.toml`.
    pub schema: &'static str,
    /// The template of `rg.toml`.
    pub config: &'static str,
    /// The templates of `render`.
    pub templates: &'static [Template],
}

/// One template of a file.
pub struct Template {
    /// What it is.
    pub kind: Kind,
    /// The file's name, with `{env}` for the environment's.
    pub name: &'static str,
    /// The template; its first line says what it needs.
    pub text: &'static str,
}

impl Template {
    /// The ids of the variables that it cannot do without.
    pub fn needs(&self) -> impl Iterator<Item = &'static str> {
        let line = self.text.lines().next().unwrap_or_default();
        let list = line
            .trim_start_matches("{#- needs:")
            .trim_end_matches("-#}");
        list.split_whitespace()
    }
}

macro_rules! shipped {
    ($file:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../packaging/profiles/",
            $file
        ))
    };
}

/// Staging and production side by side, in docker.
pub static RGRID: Profile = Profile {
    name: "rgrid",
    schema: shipped!("rgrid/env.schema.toml"),
    config: shipped!("rgrid/rg.toml"),
    templates: &[
        Template {
            kind: Kind::Compose,
            name: "compose.{env}.yml",
            text: shipped!("rgrid/compose.yml"),
        },
        Template {
            kind: Kind::Systemd,
            name: "rgrid-api-{env}.service",
            text: shipped!("rgrid/api.service"),
        },
        Template {
            kind: Kind::Systemd,
            name: "rgrid-runner-{env}.service",
            text: shipped!("rgrid/runner.service"),
        },
        Template {
            kind: Kind::Nginx,
            name: "rgrid-{env}.conf",
            text: shipped!("rgrid/nginx.conf"),
        },
        Template {
            kind: Kind::Caddy,
            name: "rgrid-{env}.caddyfile",
            text: shipped!("rgrid/Caddyfile"),
        },
    ],
};

/// One environment without docker.
pub static TOOLKITRAG: Profile = Profile {
    name: "toolkitrag",
    schema: shipped!("toolkitrag/env.schema.toml"),
    config: shipped!("toolkitrag/rg.toml"),
    templates: &[
        Template {
            kind: Kind::Systemd,
            name: "toolkitrag.service",
            text: shipped!("toolkitrag/app.service"),
        },
        Template {
            kind: Kind::Systemd,
            name: "toolkitrag.logrotate",
            text: shipped!("toolkitrag/logrotate"),
        },
        Template {
            kind: Kind::Nginx,
            name: "toolkitrag.conf",
            text: shipped!("toolkitrag/nginx.conf"),
        },
        Template {
            kind: Kind::Caddy,
            name: "Caddyfile",
            text: shipped!("toolkitrag/Caddyfile"),
        },
    ],
};

/// The profile that a person chose.
pub fn of(choice: args::Profile) -> &'static Profile {
    match choice {
        args::Profile::Rgrid => &RGRID,
        args::Profile::Toolkitrag => &TOOLKITRAG,
    }
}

/// The profile of that name.
pub fn named(name: &str) -> Option<&'static Profile> {
    [&RGRID, &TOOLKITRAG]
        .into_iter()
        .find(|profile| profile.name == name)
}
