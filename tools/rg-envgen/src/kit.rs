//! The recovery kit: everything that rebuilds a deployment in one file encrypted by age.
//!
//! Inside is a tar archive, so that `age -d kit.age | tar xv` restores it without us: `kit.json`
//! first, which says what each file is, then the files under their paths without the first `/`. The
//! promise: what was written opens again, which is tried at once, and an archive that is not whole
//! or does not match its list is refused as a whole.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use age::secrecy::SecretString;
use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

/// A kit is refused above this size, packed and unpacked: it holds text files.
const BYTES_MAX: u64 = 32 << 20;
/// The list's name in the archive.
const LIST: &str = "kit.json";
/// The version of the list.
const FORMAT: u32 = 1;

/// A kit, unpacked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kit {
    format: u32,
    /// The machine that it was made on.
    pub host: String,
    /// When.
    pub time: jiff::Timestamp,
    /// The tool that made it.
    pub tool: String,
    /// The files, in the archive's order.
    pub files: Vec<Packed>,
}

/// One file of a kit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packed {
    /// Where it was: an absolute path.
    pub path: PathBuf,
    /// What it is.
    pub role: Role,
    /// Its permissions.
    pub mode: u32,
    /// Its owner's and its group's name, where the machine had one.
    pub owner: (Option<String>, Option<String>),
    /// Of its content.
    sha256: String,
    /// Its content; in the archive, not in the list.
    #[serde(skip)]
    pub content: Vec<u8>,
}

/// What a file of a kit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `rg.toml`.
    Config,
    /// `env.schema.toml`.
    Schema,
    /// An env file of an environment.
    Env,
    /// Another file with keys that `rg.toml` names.
    Keys,
}

impl Kit {
    /// A kit without files.
    pub fn new(host: &str, time: jiff::Timestamp, tool: &str) -> Kit {
        Kit {
            format: FORMAT,
            host: host.to_owned(),
            time,
            tool: tool.to_owned(),
            files: Vec::new(),
        }
    }

    /// Takes a file in.
    pub fn add(
        &mut self,
        path: PathBuf,
        role: Role,
        mode: u32,
        owner: (Option<String>, Option<String>),
        content: Vec<u8>,
    ) {
        let sha256 = digest(&content);
        self.files.push(Packed {
            path,
            role,
            mode,
            owner,
            sha256,
            content,
        });
    }

    /// The archive.
    pub fn packed(&self) -> Result<Vec<u8>> {
        let what = || "cannot pack the kit".to_owned();
        let mut archive = tar::Builder::new(Vec::new());
        let list = serde_json::to_vec_pretty(self).or_fail(what)?;
        let time = self.time.as_second().max(0).unsigned_abs();
        let mut put = |name: &Path, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_mtime(time);
            archive
                .append_data(&mut header, name, content)
                .or_fail(what)
        };
        put(Path::new(LIST), 0o600, &list)?;
        for file in &self.files {
            put(&inside(&file.path), file.mode, &file.content)?;
        }
        archive.into_inner().or_fail(what)
    }

    /// Reads an archive; every file of the list is there, whole, and nothing else.
    pub fn unpacked(archive: &[u8]) -> Result<Kit> {
        let what = || "cannot read the kit".to_owned();
        let mut archive = tar::Archive::new(archive);
        let mut contents: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for entry in archive.entries().or_fail(what)? {
            let mut entry = entry.or_fail(what)?;
            let path = entry.path().or_fail(what)?.into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).or_fail(what)?;
            contents.insert(path, content);
        }
        let list = contents.remove(Path::new(LIST)).ok_or_else(|| {
            Failure::new(format!(
                "there is no {LIST} in it: it is no kit of rg-envgen"
            ))
        })?;
        let mut kit: Kit = serde_json::from_slice(&list).or_fail(what)?;
        if kit.format != FORMAT {
            return Err(Failure::new(format!(
                "the kit has format {}, and this program knows {FORMAT}",
                kit.format
            )));
        }
        for file in &mut kit.files {
            let climbs = file
                .path
                .components()
                .any(|part| matches!(part, Component::ParentDir | Component::CurDir));
            if !file.path.is_absolute() || climbs {
                return Err(Failure::new(format!(
                    "the kit has a file with the path {}",
                    file.path.display()
                )));
            }
            file.content = contents.remove(&inside(&file.path)).ok_or_else(|| {
                Failure::new(format!("{} is missing in the kit", file.path.display()))
            })?;
            if digest(&file.content) != file.sha256 {
                return Err(Failure::new(format!(
                    "{} is damaged in the kit",
                    file.path.display()
                )));
            }
        }
        if let Some(stranger) = contents.keys().next() {
            return Err(Failure::new(format!(
                "{} is in the kit and not in its list",
                stranger.display()
            )));
        }
        Ok(kit)
    }
}

/// Whom a kit is for.
pub enum Lock {
    /// Public keys.
    Recipients(Vec<age::x25519::Recipient>),
    /// A passphrase.
    Passphrase(SecretString),
}

/// What opens a kit.
pub enum Key {
    /// Secret keys.
    Identities(Vec<age::x25519::Identity>),
    /// A passphrase.
    Passphrase(SecretString),
}

/// Encrypts, and opens what came out again before it is given away. Without an identity for it a
/// further key proves that, made for the purpose and forgotten at the end of this function.
pub fn sealed(plain: &[u8], lock: &Lock, proof: Option<&Key>) -> Result<Vec<u8>> {
    let what = || "cannot encrypt the kit".to_owned();
    let once = age::x25519::Identity::generate();
    let (encryptor, key) = match lock {
        Lock::Passphrase(passphrase) => (
            age::Encryptor::with_user_passphrase(passphrase.clone()),
            Key::Passphrase(passphrase.clone()),
        ),
        Lock::Recipients(keys) => {
            let own = once.to_public();
            let mut all: Vec<&dyn age::Recipient> =
                keys.iter().map(|key| key as &dyn age::Recipient).collect();
            if proof.is_none() {
                all.push(&own);
            }
            let encryptor = age::Encryptor::with_recipients(all.into_iter()).or_fail(what)?;
            (encryptor, Key::Identities(vec![once]))
        }
    };
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).or_fail(what)?;
    std::io::Write::write_all(&mut writer, plain).or_fail(what)?;
    writer.finish().or_fail(what)?;
    let again = opened(&sealed, proof.unwrap_or(&key)).map_err(|failure| {
        failure.context("what was encrypted does not open again; nothing was written")
    })?;
    if again != plain {
        return Err(Failure::new(
            "what was encrypted opens as something else; nothing was written",
        ));
    }
    Ok(sealed)
}

/// Decrypts.
pub fn opened(sealed: &[u8], key: &Key) -> Result<Vec<u8>> {
    let what = || "cannot open the kit".to_owned();
    let decryptor =
        age::Decryptor::new_buffered(age::armor::ArmoredReader::new(sealed)).or_fail(what)?;
    let by_passphrase = decryptor.is_scrypt();
    let reader = match key {
        Key::Passphrase(_) if !by_passphrase => {
            return Err(Failure::new("the kit is not locked by a passphrase")
                .hint("name the secret key with --identity FILE"));
        }
        Key::Identities(_) if by_passphrase => {
            return Err(Failure::new("the kit is locked by a passphrase")
                .hint("leave out --identity, or use --passphrase-file FILE"));
        }
        Key::Passphrase(passphrase) => {
            let identity = age::scrypt::Identity::new(passphrase.clone());
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        }
        Key::Identities(keys) => {
            decryptor.decrypt(keys.iter().map(|key| key as &dyn age::Identity))
        }
    };
    let mut plain = Vec::new();
    let reader = reader.map_err(|error| {
        Failure::because(what(), error).hint("is it the right key or passphrase?")
    })?;
    reader
        .take(BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .or_fail(what)?;
    if plain.len() as u64 > BYTES_MAX {
        return Err(Failure::new("the kit is larger than 32 MiB"));
    }
    Ok(plain)
}

/// A file's bytes, refused above what a kit can be.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).or_fail(what)?;
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .or_fail(what)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::new(format!(
            "{} is larger than 32 MiB",
            path.display()
        )));
    }
    Ok(bytes)
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn digest(content: &[u8]) -> String {
    let digest = rg_common::sha256::Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit() -> Kit {
        let mut kit = Kit::new("h", jiff::Timestamp::UNIX_EPOCH, "t");
        let long = format!("/srv/{}/env", "d".repeat(150));
        for (path, role) in [("/etc/rg/rg.toml", Role::Config), (&long, Role::Env)] {
            kit.add(
                path.into(),
                role,
                0o640,
                (None, None),
                path.as_bytes().to_vec(),
            );
        }
        kit
    }

    #[test]
    fn a_damaged_or_foreign_archive_is_refused_as_a_whole() {
        let archive = kit().packed().unwrap();
        assert_eq!(Kit::unpacked(&archive).unwrap().files.len(), 2);
        let at = archive
            .windows(15)
            .rposition(|w| w == b"/etc/rg/rg.toml")
            .unwrap();
        let mut damaged = archive.clone();
        damaged[at] = b'X';
        assert_eq!(
            Kit::unpacked(&damaged).unwrap_err().to_string(),
            "/etc/rg/rg.toml is damaged in the kit"
        );
        assert!(Kit::unpacked(&archive[..700]).is_err());
        assert!(Kit::unpacked(b"").is_err());
        let mut climbing = kit();
        climbing.files[0].path = "/etc/../root/x".into();
        assert!(Kit::unpacked(&climbing.packed().unwrap_or_default()).is_err());
    }

    #[test]
    fn only_the_right_key_opens_it_and_a_flipped_bit_is_found() {
        let identity = age::x25519::Identity::generate();
        let lock = Lock::Recipients(vec![identity.to_public()]);
        let key = Key::Identities(vec![identity]);
        let sealed_bytes = sealed(b"plain", &lock, None).unwrap();
        assert_eq!(opened(&sealed_bytes, &key).unwrap(), b"plain");
        let other = Key::Identities(vec![age::x25519::Identity::generate()]);
        assert!(opened(&sealed_bytes, &other).is_err());
        assert!(sealed(b"plain", &lock, Some(&other)).is_err());
        let mut damaged = sealed_bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(opened(&damaged, &key).is_err());
    }
}
