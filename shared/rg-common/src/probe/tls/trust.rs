//! Is a served chain good, and if not, why: the reason in words that lead to the remedy.
//!
//! The handshake takes any certificate; the proof comes after it, by webpki with the system's
//! authorities and those of a file. So the facts of a bad certificate are there to be shown.

use std::path::Path;

use jiff::Timestamp;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::certificate::{Certificate, read_pem};
use crate::failure::{Failure, Result};

/// Certificates that are trusted to vouch for others.
#[derive(Default, Clone)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    /// Named by the operator: a server's own certificate can be among them.
    named: bool,
}

impl Authorities {
    /// The system's.
    pub fn of_system() -> Result<Authorities> {
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err(Failure::new("this system has no trusted certificates"));
        }
        Ok(Authorities::from(found, false))
    }

    /// Those of a PEM file; they count beside the system's.
    pub fn read(path: &Path) -> Result<Authorities> {
        let found = read_pem(path)?;
        if found.is_empty() {
            return Err(
                Failure::new(format!("{} holds no certificate", path.display()))
                    .hint("it is a PEM file with -----BEGIN CERTIFICATE-----"),
            );
        }
        Ok(Authorities::from(found, true))
    }

    fn from(certificates: Vec<CertificateDer<'static>>, named: bool) -> Authorities {
        // An old one that cannot be parsed vouches for nobody.
        let anchors = certificates
            .iter()
            .filter_map(|one| Some(anchor_from_trusted_cert(one).ok()?.to_owned()))
            .collect();
        Authorities {
            certificates,
            anchors,
            named,
        }
    }

    /// The certificate of an anchor at which a proof ended.
    fn certificate_of(&self, anchor: &TrustAnchor<'_>) -> Option<Certificate> {
        let der = self.certificates.iter().find(|one| {
            anchor_from_trusted_cert(one).is_ok_and(|found| {
                found.subject == anchor.subject
                    && found.subject_public_key_info == anchor.subject_public_key_info
            })
        })?;
        Certificate::parse(der).ok()
    }
}

/// A chain that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The certificates that the proof went through, the server's own first, the authority's last.
    /// Others that the server sent besides do not count.
    pub path: Vec<Certificate>,
}

impl Proved {
    /// The one that expires first.
    pub fn first_to_expire(&self) -> Option<&Certificate> {
        self.path.iter().min_by_key(|one| one.not_after)
    }
}

/// Why a chain is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// A certificate is over.
    Expired {
        /// Whose.
        subject: String,
        /// Whether it is the server's own.
        own: bool,
        /// Its last second.
        not_after: Timestamp,
    },
    /// A certificate has not begun, or a clock is wrong.
    NotYetValid {
        /// Whose.
        subject: String,
        /// Its first second.
        not_before: Timestamp,
    },
    /// It is for others.
    WrongName {
        /// The name that was asked for.
        wanted: String,
        /// The names that it is for.
        names: Vec<String>,
    },
    /// The server sends its own certificate only, and its issuer is no authority of this system.
    IncompleteChain {
        /// Whose certificate is missing.
        issuer: String,
    },
    /// The chain ends at somebody whom this system does not trust.
    UnknownAuthority {
        /// At whom.
        authority: String,
        /// Whether the server vouches for itself.
        self_signed: bool,
    },
    /// Anything else, in the verifier's words.
    Other(String),
}

impl Distrust {
    /// `expired`, `wrong name`, …: stable words for figures and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Distrust::Expired { .. } => "expired",
            Distrust::NotYetValid { .. } => "not yet valid",
            Distrust::WrongName { .. } => "wrong name",
            Distrust::IncompleteChain { .. } => "incomplete chain",
            Distrust::UnknownAuthority { .. } => "unknown authority",
            Distrust::Other(_) => "not valid",
        }
    }

    /// What to do next.
    pub fn fix(&self) -> &'static str {
        match self {
            Distrust::Expired { .. } => "renew it (`certbot renew`), then reload the server",
            Distrust::NotYetValid { .. } => "is this machine's clock right? `timedatectl`",
            Distrust::WrongName { .. } => {
                "the server took the certificate of another site: look at its server names, or add the name to the certificate"
            }
            Distrust::IncompleteChain { .. } => {
                "serve fullchain.pem instead of cert.pem; a private authority has to be named"
            }
            Distrust::UnknownAuthority { .. } => {
                "serve a certificate of a public authority, or name the private one"
            }
            Distrust::Other(_) => "`openssl s_client -connect HOST:PORT` shows it",
        }
    }
}

/// The reason in words.
impl std::fmt::Display for Distrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Distrust::Expired {
                subject,
                own: true,
                not_after,
            } => write!(f, "the certificate of `{subject}` expired on {not_after}"),
            Distrust::Expired {
                subject, not_after, ..
            } => write!(
                f,
                "expired: the intermediate certificate `{subject}` in the chain, on {not_after}"
            ),
            Distrust::NotYetValid {
                subject,
                not_before,
            } => write!(
                f,
                "the certificate of `{subject}` is not yet valid: it begins on {not_before}"
            ),
            Distrust::WrongName { wanted, names } if names.is_empty() => write!(
                f,
                "wrong name: the certificate has no names at all, `{wanted}` was asked for"
            ),
            Distrust::WrongName { wanted, names } => {
                let shown = names.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
                let more = if names.len() > 6 { ", …" } else { "" };
                write!(
                    f,
                    "wrong name: the certificate is for {shown}{more}, not for `{wanted}`"
                )
            }
            Distrust::IncompleteChain { issuer } => write!(
                f,
                "incomplete chain: the certificate of its issuer `{issuer}` is not sent, and is not one this system trusts"
            ),
            Distrust::UnknownAuthority {
                self_signed: true, ..
            } => f.write_str("unknown authority: the certificate is self-signed"),
            Distrust::UnknownAuthority { authority, .. } => write!(
                f,
                "unknown authority: the chain ends at `{authority}`, whom this system does not trust"
            ),
            Distrust::Other(why) => write!(f, "the certificate is not valid: {why}"),
        }
    }
}

/// Proves a served chain (the server's own certificate first) for `name` at `now`.
pub(super) fn prove(
    chain: &[CertificateDer<'_>],
    served: &[Certificate],
    name: &ServerName<'_>,
    now: Timestamp,
    system: &Authorities,
    named: Option<&Authorities>,
) -> Result<Proved, Distrust> {
    let (Some(own), Some(facts)) = (chain.first(), served.first()) else {
        return Err(Distrust::Other(
            "the server sent no readable one".to_owned(),
        ));
    };
    dates(facts, now, true)?;
    let pinned = named.is_some_and(|a| a.named && a.certificates.iter().any(|one| one == own));
    let leaf = match EndEntityCert::try_from(own) {
        Ok(leaf) => leaf,
        Err(error) => return Err(Distrust::Other(words(&error))),
    };
    let path = if pinned {
        vec![facts.clone()]
    } else {
        let mut outcome = path(&leaf, facts, &chain[1..], now, system);
        if let (Err(_), Some(named)) = (&outcome, named) {
            // The system's reason is only better where the named ones do not know the chain at all.
            outcome = match (path(&leaf, facts, &chain[1..], now, named), outcome) {
                (Err(webpki::Error::UnknownIssuer), systems) => systems,
                (nameds, _) => nameds,
            };
        }
        outcome.map_err(|error| reason(&error, served, now))?
    };
    leaf.verify_is_valid_for_subject_name(name)
        .map_err(|error| match error {
            webpki::Error::CertNotValidForName(_) => Distrust::WrongName {
                wanted: name.to_str().into_owned(),
                names: facts.names.clone(),
            },
            other => Distrust::Other(words(&other)),
        })?;
    Ok(Proved { path })
}

fn path(
    leaf: &EndEntityCert<'_>,
    facts: &Certificate,
    intermediates: &[CertificateDer<'_>],
    now: Timestamp,
    authorities: &Authorities,
) -> Result<Vec<Certificate>, webpki::Error> {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let proved = leaf.verify_for_usage(
        default_provider().signature_verification_algorithms.all,
        &authorities.anchors,
        intermediates,
        time,
        KeyUsage::server_auth(),
        None,
        None,
    )?;
    let mut path = vec![facts.clone()];
    for one in proved.intermediate_certificates() {
        path.extend(Certificate::parse(&one.der()));
    }
    path.extend(authorities.certificate_of(proved.anchor()));
    Ok(path)
}

fn dates(facts: &Certificate, now: Timestamp, own: bool) -> Result<(), Distrust> {
    if facts.not_after < now {
        return Err(Distrust::Expired {
            subject: facts.subject.clone(),
            own,
            not_after: facts.not_after,
        });
    }
    if facts.not_before > now {
        return Err(Distrust::NotYetValid {
            subject: facts.subject.clone(),
            not_before: facts.not_before,
        });
    }
    Ok(())
}

/// Why there was no path, going by what was served.
fn reason(error: &webpki::Error, served: &[Certificate], now: Timestamp) -> Distrust {
    use webpki::Error;
    // From the server's own certificate upwards, as far as what was sent reaches.
    let mut top = 0;
    let mut seen = vec![0];
    while let Some(next) =
        (0..served.len()).find(|at| !seen.contains(at) && served[top].names_as_issuer(&served[*at]))
    {
        seen.push(next);
        top = next;
    }
    for at in &seen {
        if let Err(distrust) = dates(&served[*at], now, *at == 0) {
            return distrust;
        }
    }
    let last = &served[top];
    match error {
        Error::UnknownIssuer | Error::CaUsedAsEndEntity if last.is_self_issued() => {
            Distrust::UnknownAuthority {
                authority: last.subject.clone(),
                self_signed: top == 0,
            }
        }
        Error::UnknownIssuer if top == 0 => Distrust::IncompleteChain {
            issuer: last.issuer.clone(),
        },
        Error::UnknownIssuer => Distrust::UnknownAuthority {
            authority: last.issuer.clone(),
            self_signed: false,
        },
        other => Distrust::Other(words(other)),
    }
}

/// webpki's name for an error, as words.
fn words(error: &webpki::Error) -> String {
    let name = format!("{error:?}");
    let name = name.split(['(', ' ', '{']).next().unwrap_or_default();
    let mut words = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}
