//! Messages by HTTP: what Slack, Discord, ntfy, a webhook and a dead man's switch want to be sent.
//!
//! The addresses are secrets: no error carries one. Each body is bounded to what the service takes,
//! so that a long alert is cut here and not refused there.

use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::{ATTEMPT, Event, Message, Tone, Undelivered, one_line, within};
use crate::config::NotifyKind;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Slack cuts a message's text at 40 000 characters and shows about 4 000 well.
const SLACK_BYTES: usize = 3_900;
/// Discord refuses a message of more than 2 000 characters.
const DISCORD_BYTES: usize = 2_000;
/// ntfy turns a longer text (4 096 bytes) into an attachment.
const NTFY_BYTES: usize = 4_000;
/// The most of a refusal that is quoted.
const REFUSAL_BYTES: usize = 200;
/// What stands around a text in Slack and Discord, so that columns stay columns.
const FENCE: &str = "```";

/// One POST of a message.
pub(super) async fn send(
    kind: NotifyKind,
    url: &Secret,
    message: &Message,
) -> std::result::Result<(), Undelivered> {
    // A redirected POST would become a GET that says nothing and is answered well.
    let client = client(Policy::none()).map_err(Undelivered::certain)?;
    let post = client.post(url.reveal());
    let request = match kind {
        NotifyKind::Slack => post.json(&slack(message)),
        NotifyKind::Discord => post.json(&discord(message)),
        NotifyKind::Ntfy => ntfy(post, message),
        _ => post
            .header("idempotency-key", message.key.as_str())
            .json(&message.document),
    };
    answer(request, url).await
}

/// One request to a dead man's switch.
pub(super) async fn ping(
    url: &Secret,
    event: Event,
    run: Option<&str>,
    account: &str,
) -> Result<()> {
    let client = client(Policy::default())?;
    let suffix = match event {
        Event::Start => "/start",
        Event::Success => "",
        Event::Failure => "/fail",
    };
    let body = match event {
        Event::Start => String::new(),
        _ => within(account, super::ACCOUNT_BYTES),
    };
    let address = with_suffix(url.reveal(), suffix, run);
    answer(client.post(address).body(body), url)
        .await
        .map_err(|undelivered| undelivered.failure)
}

fn client(redirects: Policy) -> Result<Client> {
    // Fails only when a provider is installed already, as `cli` does.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let built = Client::builder()
        .timeout(ATTEMPT)
        .redirect(redirects)
        .build();
    built.map_err(|error| Failure::because("cannot speak HTTPS", error.without_url()))
}

async fn answer(request: RequestBuilder, url: &Secret) -> std::result::Result<(), Undelivered> {
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let certain = error.is_connect() || error.is_builder();
            let failure = Failure::because("no answer", error.without_url());
            return Err(Undelivered { failure, certain });
        }
    };
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    // What a refusal says helps; that it cannot be read changes nothing.
    let said = answer.chunk().await.ok().flatten().unwrap_or_default();
    let said = said.get(..REFUSAL_BYTES).unwrap_or(&said);
    let said = one_line(&String::from_utf8_lossy(said));
    let text = if said.is_empty() || quotes(&said, url) {
        format!("it answered {status}")
    } else {
        format!("it answered {status}: {said}")
    };
    Err(Undelivered::certain(Failure::new(text)))
}

/// Whether a refusal repeats a part of the address ("cannot POST /services/T0/B0/…").
fn quotes(said: &str, url: &Secret) -> bool {
    const TELLING: usize = 5;
    let rest = url.reveal().split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let mut parts = path.split(['/', '?', '&', '=']);
    parts.any(|part| part.len() >= TELLING && said.contains(part))
}

fn slack(message: &Message) -> Value {
    let subject = slack_text(&one_line(&message.subject));
    let room = SLACK_BYTES.saturating_sub(subject.len() + 16);
    // Cut before escaping would be too long after it; cut after it may split an entity.
    let mut text = slack_text(&within(&message.text, room));
    if text.len() > room {
        text = slack_text(&within(&message.text, room / 5));
    }
    json!({ "text": format!("*{subject}*\n{FENCE}{}{FENCE}", fenced(&text)) })
}

fn slack_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn discord(message: &Message) -> Value {
    let subject = one_line(&message.subject).replace(['*', '`', '_'], "");
    let room = DISCORD_BYTES.saturating_sub(subject.len() + 16);
    let text = within(&fenced(&message.text), room);
    json!({
        "content": format!("**{subject}**\n{FENCE}\n{text}\n{FENCE}"),
        // A text that was found somewhere must not call everybody.
        "allowed_mentions": { "parse": [] },
    })
}

fn fenced(text: &str) -> String {
    text.replace(FENCE, "'''")
}

fn ntfy(post: RequestBuilder, message: &Message) -> RequestBuilder {
    let (priority, tag) = match message.tone {
        Tone::Bad => ("5", "rotating_light"),
        Tone::Warn => ("4", "warning"),
        Tone::Good => ("3", "white_check_mark"),
        Tone::Test => ("3", "test_tube"),
    };
    // ntfy takes UTF-8 in its headers. A title that is no header is left out.
    let title = HeaderValue::from_bytes(one_line(&message.subject).as_bytes());
    let post = match title {
        Ok(title) => post.header("title", title),
        Err(_) => post,
    };
    post.header("priority", priority)
        .header("tags", tag)
        .body(within(&message.text, NTFY_BYTES))
}

fn with_suffix(url: &str, suffix: &str, run: Option<&str>) -> String {
    let (path, query) = url
        .split_once('?')
        .map_or((url, None), |(path, query)| (path, Some(query)));
    let run = run.map(|run| format!("rid={run}"));
    let query: Vec<&str> = query.into_iter().chain(run.as_deref()).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "{}{suffix}{mark}{}",
        path.trim_end_matches('/'),
        query.join("&")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message {
            subject: "vps-1: fail <http>".to_owned(),
            text: text.to_owned(),
            tone: Tone::Bad,
            document: json!({}),
            key: "k".to_owned(),
            host: "vps-1".to_owned(),
        }
    }

    #[test]
    fn a_ping_keeps_its_query_behind_the_suffix() {
        assert_eq!(
            with_suffix("https://hc/abc", "/fail", None),
            "https://hc/abc/fail"
        );
        assert_eq!(
            with_suffix("https://hc/abc/?from=1", "/start", None),
            "https://hc/abc/start?from=1"
        );
        assert_eq!(
            with_suffix("https://hc/abc?from=1", "", Some("7-7")),
            "https://hc/abc?from=1&rid=7-7"
        );
        assert_eq!(with_suffix("https://hc/abc", "", None), "https://hc/abc");
    }

    #[test]
    fn no_body_is_longer_than_its_service_takes() {
        for piece in ["x", "<&>", "ä😀", "```"] {
            let long = message(&piece.repeat(20_000));
            let text = slack(&long)["text"].as_str().unwrap().len();
            assert!(text <= SLACK_BYTES, "{piece}: {text}");
            let content = discord(&long)["content"].as_str().unwrap().len();
            assert!(content <= DISCORD_BYTES, "{piece}: {content}");
        }
    }

    #[test]
    fn what_was_found_cannot_call_anybody_or_leave_its_frame() {
        let bad = message("<!channel> ```@everyone");
        assert_eq!(
            slack(&bad)["text"],
            "*vps-1: fail &lt;http&gt;*\n```&lt;!channel&gt; '''@everyone```"
        );
        assert_eq!(
            discord(&bad)["content"],
            "**vps-1: fail <http>**\n```\n<!channel> '''@everyone\n```"
        );
        assert_eq!(discord(&bad)["allowed_mentions"], json!({ "parse": [] }));
    }

    #[test]
    fn a_refusal_that_repeats_the_address_is_not_quoted() {
        let url = Secret::new("https://hooks.example/services/T0123/s3cret?a=b");
        assert!(quotes("Cannot POST /x/s3cret", &url));
        assert!(!quotes("invalid_payload at hooks.example", &url));
    }
}
