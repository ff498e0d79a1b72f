//! The deployments that ship with the tool, whole inside the program.

use crate::args;

/// One deployment: its schema and the templates of what is made from it.
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// `env.schema.toml`.
    pub schema: &'static str,
    /// The template of `rg.toml`.
    pub config: &'static str,
}

macro_rules! shipped {
    ($name:literal) => {
        Profile {
            name: $name,
            schema: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../packaging/profiles/",
                $name,
                "/env.schema.toml"
            )),
            config: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../packaging/profiles/",
                $name,
                "/rg.toml"
            )),
        }
    };
}

/// Staging and production side by side, in docker.
pub static RGRID: Profile = shipped!("rgrid");
/// One environment without docker.
pub static TOOLKITRAG: Profile = shipped!("toolkitrag");

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
