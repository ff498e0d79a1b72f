//! Where a request goes: the parts of an address, and how it is shown without its secrets.

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderValue;
use url::{Host, Url};

use crate::failure::{Failure, OrFail, Result};
use crate::s3::base64;

/// An `http` or `https` address in its parts.
#[derive(Debug, Clone)]
pub(super) struct Target {
    url: Url,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

impl Target {
    /// The address is a secret: an error does not carry it.
    pub fn parse(text: &str) -> Result<Target> {
        let url = Url::parse(text).or_fail(|| "the address is not a URL".to_owned())?;
        Target::of(url)
    }

    fn of(url: Url) -> Result<Target> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => {
                return Err(Failure::new(format!(
                    "`{other}:` is neither http nor https"
                )));
            }
        };
        let host = match url.host() {
            Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => return Err(Failure::new("the address has no host")),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Target {
            url,
            host,
            port,
            tls,
        })
    }

    /// Where a `Location` leads from here.
    pub fn follow(&self, location: &str) -> Result<Target> {
        let what = || "its Location is not a URL".to_owned();
        Target::of(self.url.join(location).or_fail(what)?)
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// For people: without name, password and query, and without what looks like a key.
    pub fn shown(&self) -> String {
        crate::probe::excerpt::text(&format!("{}{}", self.origin(), self.url.path()))
    }

    /// What is sent: a GET that asks for the connection's end after it.
    pub fn request(&self, headers: &[(String, String)]) -> Result<Vec<u8>> {
        let host = self.url.host_str().unwrap_or_default();
        let host = match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let query = self.url.query().map_or(String::new(), |q| format!("?{q}"));
        let mut head = format!(
            "GET {}{query} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rg/{} (health check)\r\n\
             Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n",
            self.url.path(),
            env!("CARGO_PKG_VERSION"),
        );
        for (name, value) in headers {
            let plain = HeaderValue::from_str(value).is_ok()
                && reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
            if !plain {
                return Err(Failure::new(format!("`{name}` is not a header to send")));
            }
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(word) = self.authorization() {
            head.push_str(&format!("Authorization: Basic {word}\r\n"));
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// Name and password of the address, as Basic credentials.
    fn authorization(&self) -> Option<String> {
        let name = self.url.username();
        if name.is_empty() && self.url.password().is_none() {
            return None;
        }
        let mut pair: Vec<u8> = percent_decode_str(name).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(self.url.password().unwrap_or_default()));
        Some(base64(&pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let target = Target::parse("https://bob:hunter2@app.test:8443/a/b?key=x#f").unwrap();
        assert_eq!(target.shown(), "https://app.test:8443/a/b");
        let target = Target::parse("http://[::1]/sk_live_51HxQ2eKZ0abcdEFGH9").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 80));
        assert_eq!(target.shown(), "http://[::1]/***");
        for (wrong, words) in [
            ("app.test/x", "the address is not a URL"),
            ("ftp://app.test", "`ftp:` is neither http nor https"),
        ] {
            let failure = Target::parse(wrong).unwrap_err().to_string();
            assert!(failure.starts_with(words), "{failure}");
        }
    }

    #[test]
    fn a_request_has_the_host_and_no_foreign_lines() {
        let target = Target::parse("http://a:b%20@app.test:81/x y?q=1").unwrap();
        let request = String::from_utf8(target.request(&[]).unwrap()).unwrap();
        assert!(request.starts_with("GET /x%20y?q=1 HTTP/1.1\r\nHost: app.test:81\r\n"));
        assert!(request.ends_with("\r\nAuthorization: Basic YTpiIA==\r\n\r\n"));
        let evil = [("X-A".to_owned(), "1\r\nX-B: 2".to_owned())];
        assert!(target.request(&evil).is_err());
    }
}
