//! Mail: by SMTP where the channel has a url, by the machine's own `sendmail` otherwise.
//!
//! `smtps://user:$PASS@host:465` is TLS from the first byte; `smtp://host:587` must offer STARTTLS
//! with a certificate that is valid for the host, else nothing is sent, no password either. Only to
//! a server on loopback mail goes in the clear. The Message-ID is the message's key, so that a mail
//! that is sent again after a crash is the same mail.

use std::io::Write;

use lettre::message::{Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use percent_encoding::percent_decode_str;

use super::{ATTEMPT, Message, Undelivered, address, one_line, within};
use crate::config::NotifyConfig;
use crate::failure::{Failure, OrFail, Result};
use crate::program::Program;

/// The most text of a mail; nobody reads on at 3 a.m.
const TEXT_BYTES: usize = 64 << 10;
/// The most of a server's words that is quoted.
const SAID_BYTES: usize = 300;
/// Where `sendmail` is when it is not on cron's short `PATH`.
const SENDMAIL: [&str; 3] = ["sendmail", "/usr/sbin/sendmail", "/usr/lib/sendmail"];

/// One attempt.
pub(super) async fn send(
    channel: &NotifyConfig,
    message: &Message,
) -> std::result::Result<(), Undelivered> {
    let mail = write(channel, message).map_err(Undelivered::certain)?;
    if channel.url.is_none() {
        return sendmail(mail).await;
    }
    let url = address(channel).map_err(Undelivered::certain)?;
    let server = Server::parse(url.reveal()).map_err(Undelivered::certain)?;
    server.send(&message.host, &mail, None).await
}

/// How the way to a server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, or nothing is sent.
    StartTls,
    /// None: the server is this machine.
    Loopback,
}

/// A server as the address names it.
struct Server {
    host: String,
    port: u16,
    protection: Protection,
    user: Option<Credentials>,
}

impl Server {
    fn parse(url: &str) -> Result<Server> {
        let wrong = |what: &str| {
            Failure::new(format!("its url {what}"))
                .hint("write it as smtps://USER:$PASSWORD@HOST:465 or smtp://HOST:587")
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme"))?;
        let rest = rest.trim_end_matches('/');
        // A password that was put in for `$NAME` may hold an @ of its own.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port
                    .parse()
                    .map_err(|_| wrong("has a port that is no number"))?;
                (host, Some(port))
            }
            _ => (place, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '?', ' ']) {
            return Err(wrong("names no host"));
        }
        let (protection, standard) = match scheme {
            "smtps" => (Protection::Tls, 465),
            "smtp" if is_loopback(host) => (Protection::Loopback, 25),
            "smtp" => (Protection::StartTls, 587),
            _ => return Err(wrong("is neither smtps:// nor smtp://")),
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            Credentials::new(decoded(name), decoded(password))
        });
        Ok(Server {
            host: host.to_owned(),
            port: port.unwrap_or(standard),
            protection,
            user,
        })
    }

    /// `authority` is trusted besides the system's.
    async fn send(
        &self,
        our_name: &str,
        mail: &lettre::Message,
        authority: Option<Certificate>,
    ) -> std::result::Result<(), Undelivered> {
        let tls = || {
            let builder = TlsParameters::builder(self.host.clone());
            let builder = match authority {
                Some(authority) => builder.add_root_certificate(authority),
                None => builder,
            };
            builder.build().map_err(|error| {
                let failure = Failure::new(words(&error)).context("cannot speak TLS");
                Undelivered::certain(failure)
            })
        };
        let tls = match self.protection {
            Protection::Tls => Tls::Wrapper(tls()?),
            Protection::StartTls => Tls::Required(tls()?),
            Protection::Loopback => Tls::None,
        };
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(self.host.as_str())
                .port(self.port)
                .tls(tls)
                .hello_name(ClientId::Domain(our_name.to_owned()))
                .timeout(Some(ATTEMPT));
        if let Some(user) = &self.user {
            transport = transport.credentials(user.clone());
        }
        let sent = transport.build::<Tokio1Executor>().send(mail.clone()).await;
        sent.map(drop).map_err(|error| self.undelivered(&error))
    }

    fn undelivered(&self, error: &lettre::transport::smtp::Error) -> Undelivered {
        let text = words(error);
        // What is left is a connection that broke or fell silent: open is how far the mail came.
        let certain = error.status().is_some()
            || error.is_tls()
            || error.is_client()
            || text.starts_with("Connection error");
        let mut failure = Failure::new(format!("{}:{}: {text}", self.host, self.port));
        if self.protection == Protection::StartTls && (error.is_client() || error.is_tls()) {
            failure = failure.hint(
                "smtp:// needs STARTTLS and a certificate that is valid for the host; smtps:// is TLS from the first byte",
            );
        }
        Undelivered { failure, certain }
    }
}

fn words(error: &lettre::transport::smtp::Error) -> String {
    one_line(&within(&error.to_string(), SAID_BYTES))
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `%40` is an @; a % that begins no such pair stands for itself.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The mail itself, with its envelope.
fn write(channel: &NotifyConfig, message: &Message) -> Result<lettre::Message> {
    let standard = format!("rg@{}", message.host);
    let from = channel.from.as_deref().unwrap_or(&standard);
    let from = from.parse().or_fail(|| {
        format!(
            "its sender `{from}` is no mail address; set `from` under [notify.{}]",
            channel.name
        )
    })?;
    let to = channel.to.as_deref().unwrap_or_default();
    let to: Mailboxes = to
        .parse()
        .or_fail(|| format!("`{to}` is no list of mail addresses"))?;
    lettre::Message::builder()
        .from(from)
        .mailbox(header::To::from(to))
        .subject(one_line(&message.subject))
        .message_id(Some(format!("<{}@{}>", message.key, message.host)))
        // Answers of absent people must not come back to a machine (RFC 3834).
        .raw_header(header::HeaderValue::new(
            header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .header(header::ContentType::TEXT_PLAIN)
        .body(within(&message.text, TEXT_BYTES))
        .or_fail(|| "cannot write the mail".to_owned())
}

/// A program that hangs must not hold us: it runs on a thread of its own and ends with us.
async fn sendmail(mail: lettre::Message) -> std::result::Result<(), Undelivered> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Fails only when the deadline has passed and nobody waits any more.
        tell.send(run_sendmail(&mail)).ok();
    });
    match told.await {
        Ok(outcome) => outcome.map_err(Undelivered::certain),
        Err(_) => Err(Undelivered::perhaps(Failure::new(
            "sendmail: its thread died",
        ))),
    }
}

fn run_sendmail(mail: &lettre::Message) -> Result<()> {
    let mut missing = None;
    for path in SENDMAIL {
        let envelope = mail.envelope();
        let mut program = Program::new(path).arg("-i");
        if let Some(from) = envelope.from() {
            program = program.arg("-f").arg(from.to_string());
        }
        let to = envelope.to().iter().map(ToString::to_string);
        match program.arg("--").args(to).writer() {
            Ok(mut writer) => {
                let bytes = mail.formatted();
                writer
                    .write_all(&bytes)
                    .map_err(|error| Failure::from_io("cannot hand the mail over", error))?;
                return writer.finish();
            }
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    let missing = missing.unwrap_or_else(|| Failure::new("no sendmail"));
    Err(missing.hint("without a mail server on this machine give the channel a url: smtps://USER:$PASSWORD@HOST:465"))
}

#[cfg(test)]
mod tests;
