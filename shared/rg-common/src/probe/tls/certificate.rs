//! What stands in a certificate: for whom, by whom, from when to when.

use std::path::Path;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::certificate::{CertificateInner, Profile};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::failure::{Failure, OrFail, Result};
use crate::probe::excerpt;

/// The most names of a certificate that are kept.
const NAMES_MAX: usize = 100;
/// The largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject's common name, else the whole subject.
    pub subject: String,
    /// Its issuer's common name, else the whole issuer.
    pub issuer: String,
    /// The names that it is for; a common name does not count. [`NAMES_MAX`] at most.
    pub names: Vec<String>,
    /// Its first second.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// The SHA-256 of its DER bytes, as `openssl x509 -fingerprint -sha256` shows it.
    pub sha256: [u8; 32],
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
}

/// Takes what is served, whatever its serial number is like: the dates are what counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Lenient;

impl Profile for Lenient {
    fn check_serial_number(
        _: &x509_cert::serial_number::SerialNumber<Self>,
    ) -> x509_cert::der::Result<()> {
        Ok(())
    }
}

impl Certificate {
    /// Parses a certificate in DER.
    pub fn parse(der: &[u8]) -> Result<Certificate> {
        let parsed = CertificateInner::<Lenient>::from_der(der)
            .or_fail(|| "cannot read a certificate".to_owned())?;
        let parts = &parsed.tbs_certificate;
        let moment = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        let encoded = |name: &Name| x509_cert::der::Encode::to_der(name).unwrap_or_default();
        Ok(Certificate {
            subject: called(&parts.subject),
            issuer: called(&parts.issuer),
            names: names(parts.get::<SubjectAltName>().ok().flatten()),
            not_before: moment(parts.validity.not_before),
            not_after: moment(parts.validity.not_after),
            sha256: sha256(der),
            subject_der: encoded(&parts.subject),
            issuer_der: encoded(&parts.issuer),
        })
    }

    /// The first certificate of a PEM file: a server's own, in a file of its chain.
    pub fn first_of(path: &Path) -> Result<Certificate> {
        let first = read_pem(path)?.into_iter().next();
        let first = first.ok_or_else(|| {
            Failure::new(format!("{} holds no certificate", path.display()))
                .hint("it is a PEM file with -----BEGIN CERTIFICATE-----")
        })?;
        Certificate::parse(&first).map_err(|failure| failure.context(path.display().to_string()))
    }

    /// Whether it was issued by the subject of `other`, going by the name.
    pub(super) fn names_as_issuer(&self, other: &Certificate) -> bool {
        self.issuer_der == other.subject_der
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der == self.subject_der
    }
}

/// All certificates of a PEM file.
pub(super) fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    use std::io::Read;
    let what = || format!("cannot read the certificate {}", path.display());
    let file = std::fs::File::open(path).or_fail(what)?;
    let mut pem = Vec::new();
    let mut bounded = file.take(FILE_BYTES_MAX);
    bounded.read_to_end(&mut pem).or_fail(what)?;
    CertificateDer::pem_slice_iter(&pem)
        .map(|one| one.or_fail(what))
        .collect()
}

fn sha256(der: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, der).as_ref());
    sum
}

/// The common name of a subject or issuer, else all of it.
fn called(name: &Name) -> String {
    let attributes = name.0.iter().flat_map(|set| set.0.iter());
    let common = attributes
        .filter(|one| one.oid == x509_cert::der::oid::db::rfc4519::CN)
        .filter_map(|one| std::str::from_utf8(one.value.value()).ok())
        .find(|text| !text.is_empty());
    match common {
        Some(text) => excerpt::text(text),
        None => excerpt::text(&name.to_string()),
    }
}

fn names(extension: Option<(bool, SubjectAltName)>) -> Vec<String> {
    let Some((_, SubjectAltName(all))) = extension else {
        return Vec::new();
    };
    let word = |name: GeneralName| match name {
        GeneralName::DnsName(dns) => Some(excerpt::text(dns.as_str())),
        GeneralName::IpAddress(ip) => ip_word(ip.as_bytes()),
        _ => None,
    };
    all.into_iter().filter_map(word).take(NAMES_MAX).collect()
}

fn ip_word(bytes: &[u8]) -> Option<String> {
    let ip: std::net::IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some(ip.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::authority;
    use super::*;

    #[test]
    fn the_facts_of_a_certificate_are_read() {
        let root = authority("Test Root");
        let der = root.leaf(&["app.test", "127.0.0.1"], (2026, 1, 1), (2026, 4, 1));
        let facts = Certificate::parse(&der.der).unwrap();
        assert_eq!(facts.names, ["app.test", "127.0.0.1"]);
        assert_eq!(facts.issuer, "Test Root");
        assert_eq!(facts.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(facts.not_after.to_string(), "2026-04-01T00:00:00Z");
        assert!(!facts.is_self_issued());
        assert!(facts.names_as_issuer(&Certificate::parse(&root.der()).unwrap()));
    }

    #[test]
    fn a_file_without_a_certificate_is_said() {
        let words = Certificate::first_of(Path::new("/dev/null")).unwrap_err();
        assert_eq!(words.to_string(), "/dev/null holds no certificate");
        let words = Certificate::first_of(Path::new("/nonexistent.pem")).unwrap_err();
        assert!(words.to_string().contains("/nonexistent.pem"), "{words}");
    }

    proptest! {
        #[test]
        fn broken_der_is_an_error_and_no_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
            static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
                authority("Root").leaf(&["a.test"], (2026, 1, 1), (2026, 4, 1)).der.to_vec()
            });
            let mut broken = DER.clone();
            let length = broken.len();
            broken[at % length] = byte;
            broken.truncate(length - cut % length);
            drop(Certificate::parse(&broken));
        }
    }
}
