//! What a server shows of itself in the handshake: its certificates, whether they are good, and
//! whether they are those on disk.
//!
//! Sessions are never resumed: a resumed one would show the certificate of the last time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub mod certificate;
mod judge;
pub mod trust;

pub use certificate::Certificate;
pub use judge::judge;
pub use trust::{Authorities, Distrust, Proved};

use super::clock::{Clock, Limits, Times};
use super::dns::host_and_port;
use super::network::{Family, Network};
use super::tcp::reach;
use super::trouble::{Phase, Trouble, TroubleKind, trouble};
use crate::failure::{OrFail, Result};

/// The most certificates of a chain that are looked at.
pub const CHAIN_MAX: usize = 10;

/// What is asked of a server.
#[derive(Clone)]
pub struct TlsRequest {
    /// `host:port`
    pub address: String,
    /// The name that the certificate must be for; the host of the address otherwise.
    pub server_name: Option<String>,
    /// The file whose first certificate must be the one that is served.
    pub on_disk: Option<PathBuf>,
    /// Authorities beside the system's.
    pub authorities: Option<Authorities>,
    /// Which addresses are tried.
    pub family: Family,
    /// How long it may take.
    pub limits: Limits,
}

impl TlsRequest {
    /// A request to `host:port` and nothing special.
    pub fn new(address: impl Into<String>) -> TlsRequest {
        TlsRequest {
            address: address.into(),
            server_name: None,
            on_disk: None,
            authorities: None,
            family: Family::Any,
            limits: Limits::default(),
        }
    }
}

/// What came of a handshake.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// `host:port`
    pub address: String,
    /// What the server served, good or not; none if it did not come to that.
    pub served: Option<Served>,
    /// Why it did not.
    pub trouble: Option<Trouble>,
    /// The certificate on disk with its file, where one was named.
    pub on_disk: Option<(PathBuf, Certificate)>,
    /// Where the time went.
    pub times: Times,
}

/// What a server served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The chain as it was sent, the server's own first; [`CHAIN_MAX`] at most.
    pub chain: Vec<Certificate>,
    /// Whether it proves the name.
    pub proved: Result<Proved, Distrust>,
    /// `TLSv1.3`
    pub protocol: String,
}

/// Shakes hands with a server, sends nothing, and closes.
pub async fn probe(network: &Network, request: &TlsRequest, now: Timestamp) -> Result<TlsFacts> {
    let (host, port) = host_and_port(&request.address)?;
    let on_disk = request.on_disk.as_deref().map(on_disk).transpose()?;
    let name = request.server_name.as_deref().unwrap_or(host);
    let mut clock = Clock::start(request.limits);
    let mut facts = TlsFacts {
        address: request.address.clone(),
        served: None,
        trouble: None,
        on_disk,
        times: Times::default(),
    };
    match reach(network, &mut clock, host, port, request.family).await? {
        Err(trouble) => facts.trouble = Some(trouble),
        Ok((stream, _)) => {
            let asked = Asked {
                name,
                alpn: false,
                now,
                authorities: request.authorities.as_ref(),
            };
            match handshake(network, &mut clock, stream, &asked).await? {
                Err(trouble) => facts.trouble = Some(trouble),
                Ok((_, served)) => facts.served = Some(served),
            }
        }
    }
    facts.times = clock.times();
    Ok(facts)
}

fn on_disk(path: &Path) -> Result<(PathBuf, Certificate)> {
    Ok((path.to_owned(), Certificate::first_of(path)?))
}

/// How a handshake is made.
pub(super) struct Asked<'a> {
    /// The name for SNI and for the proof.
    pub name: &'a str,
    /// Whether `http/1.1` is asked for.
    pub alpn: bool,
    /// The time of the proof.
    pub now: Timestamp,
    /// Authorities beside the system's.
    pub authorities: Option<&'a Authorities>,
}

/// A handshake that takes any certificate; whether it is good stands in [`Served`].
pub(super) async fn handshake(
    network: &Network,
    clock: &mut Clock,
    stream: TcpStream,
    asked: &Asked<'_>,
) -> Result<Result<(TlsStream<TcpStream>, Served), Trouble>> {
    let name = ServerName::try_from(asked.name.to_owned())
        .or_fail(|| format!("`{}` is not a name for a certificate", asked.name))?;
    let system = network.system_authorities()?;
    let connector = network.client.connector(asked.alpn);
    let stream = match clock
        .phase(Phase::Tls, connector.connect(name.clone(), stream))
        .await
    {
        Err(late) => return Ok(Err(late)),
        Ok(Err(error)) => return handshake_trouble(&error, asked.name).map(Err),
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = &chain[..chain.len().min(CHAIN_MAX)];
    let facts: Vec<Certificate> = chain
        .iter()
        .map_while(|one| Certificate::parse(one).ok())
        .collect();
    let proved = trust::prove(chain, &facts, &name, asked.now, system, asked.authorities);
    let protocol = session.protocol_version().and_then(|one| one.as_str());
    let served = Served {
        chain: facts,
        proved,
        protocol: protocol.unwrap_or("unknown").to_owned(),
    };
    Ok(Ok((stream, served)))
}

fn handshake_trouble(error: &std::io::Error, name: &str) -> Result<Trouble> {
    use rustls::{AlertDescription, Error};
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let what = match inner {
        None => return trouble(Phase::Tls, error, name),
        Some(Error::InvalidMessage(_)) => format!("`{name}` does not speak TLS there"),
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
            format!("the server has no certificate for `{name}` (alert unrecognised name)")
        }
        Some(Error::AlertReceived(alert)) => {
            format!("`{name}` ended the TLS handshake: alert {alert:?}")
        }
        Some(Error::PeerIncompatible(_)) => {
            format!("`{name}` offers neither TLS 1.2 nor TLS 1.3 with a safe cipher")
        }
        Some(other) => format!("the TLS handshake with `{name}` failed: {other}"),
    };
    let what = super::excerpt::text(&what);
    Ok(Trouble::new(Phase::Tls, TroubleKind::Garbage, what))
}

/// How all probes shake hands.
pub(super) struct Client {
    plain: TlsConnector,
    http: TlsConnector,
}

impl Client {
    pub(super) fn new() -> Result<Client> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(TakeAny(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .or_fail(|| "cannot set up TLS".to_owned())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let mut http = config.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Client {
            plain: TlsConnector::from(Arc::new(config)),
            http: TlsConnector::from(Arc::new(http)),
        })
    }

    fn connector(&self, alpn: bool) -> &TlsConnector {
        if alpn { &self.http } else { &self.plain }
    }
}

/// Takes any certificate whose owner signs the handshake; `trust` judges it afterwards.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if cannot_be_proved(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if cannot_be_proved(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Old self-made certificates that webpki cannot parse: their proof fails for certain, so the
/// handshake goes on without a signature, for the sake of the reason.
fn cannot_be_proved(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_err()
}

#[cfg(test)]
pub(super) mod tests;
