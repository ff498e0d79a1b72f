//! TLS in libpq's meaning of `sslmode`, on rustls.
//!
//! `require` encrypts without looking at the certificate, `verify-ca` wants a trusted authority,
//! `verify-full` also the right name. A certificate that stands itself in `sslrootcert` is trusted,
//! as libpq does; a file of trusted certificates that holds none is an error, not "trust nobody".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{DatabaseUrl, TlsMode};
use crate::failure::{Failure, OrFail, Result};

/// Where distributions keep the bundle of trusted certificates, for libpq's programs.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// How a server's certificate is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    Nothing,
    Authority,
    AuthorityAndName,
}

fn judge(url: &DatabaseUrl) -> Judge {
    match url.tls {
        TlsMode::VerifyFull => Judge::AuthorityAndName,
        TlsMode::VerifyCa => Judge::Authority,
        // libpq: with a file of trusted certificates `require` means `verify-ca`.
        TlsMode::Require if url.root_certificates.is_some() => Judge::Authority,
        _ => Judge::Nothing,
    }
}

/// The file of trusted certificates for libpq's programs, where the URL asks for verification:
/// the URL's own, else the system's bundle.
pub(super) fn root_file(url: &DatabaseUrl) -> Option<PathBuf> {
    if judge(url) == Judge::Nothing {
        return None;
    }
    let system = || {
        let paths = SYSTEM_BUNDLES.iter().map(Path::new);
        paths.into_iter().find(|path| path.exists()).map(Into::into)
    };
    url.root_certificates.clone().or_else(system)
}

/// The TLS side of a connection to `url`.
pub(super) fn connector(url: &DatabaseUrl) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let judge = judge(url);
    let certificates = match judge {
        Judge::Nothing => Vec::new(),
        _ => trusted(url)?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let verifier = Verifier {
        judge,
        roots,
        // The system's authorities are no servers; only a file that was named can hold one.
        pinned: if url.root_certificates.is_some() {
            certificates
        } else {
            Vec::new()
        },
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail(|| "cannot set up TLS".to_owned())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn trusted(url: &DatabaseUrl) -> Result<Vec<CertificateDer<'static>>> {
    let Some(path) = &url.root_certificates else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(Failure::new("this system has no trusted certificates")
                .hint("install ca-certificates, or name a file with sslrootcert=/path"));
        }
        return Ok(found.certs);
    };
    let what = || format!("cannot read the trusted certificates {}", path.display());
    let pem = std::fs::read(path).or_fail(what)?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificates.push(certificate.or_fail(what)?);
    }
    if certificates.is_empty() {
        return Err(Failure::new(format!(
            "the trusted certificates {} hold no certificate",
            path.display()
        ))
        .hint("it is a PEM file with -----BEGIN CERTIFICATE-----"));
    }
    Ok(certificates)
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    roots: RootCertStore,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.judge == Judge::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let signed = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        );
        match signed {
            Ok(()) => {}
            // The server's own certificate, named by the operator: rustls wants an authority above it.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if self.pinned.iter().any(|one| one == certificate) => {}
            Err(error) => return Err(error),
        }
        if self.judge == Judge::AuthorityAndName {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Nobody was authenticated, so a signature by nobody in particular proves nothing; and
        // old self-made certificates could not be parsed for it.
        if self.judge == Judge::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.judge == Judge::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
