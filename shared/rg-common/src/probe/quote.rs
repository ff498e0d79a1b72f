//! Other people's lines, made fit to be quoted in a verdict, an alert or a page.
//!
//! The promise: a quoted line is short, has no control characters, and no secret that can be
//! recognised as one: a password in a URL, a value that is named like a secret, a token by its known
//! beginning, a bearer token. It cannot know a secret that looks like a word.

/// A quoted line has at most so many characters.
pub const LINE_CHARS: usize = 300;
/// Of a longer line only so many bytes are looked at.
const LOOKED_AT: usize = 4096;
/// What stands in for a secret.
const HIDDEN: &str = "***";
/// A value is hidden where one of these is in the name before its `=` or `:`.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "authorization",
    "cookie",
    "private_key",
];
/// Tokens that are known by how they begin.
const BEGINNINGS: [&str; 12] = [
    "sk-",
    "sk_live_",
    "ghp_",
    "gho_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "eyJ",
    "AGE-SECRET-KEY-",
    "glpat-",
];
/// A token by its beginning has at least so many characters.
const TOKEN_CHARS: usize = 16;

/// One line of somebody else's, fit to be quoted.
pub fn line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    let clean: String = without_escapes(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    short(hide(clean.trim()).trim(), LINE_CHARS)
}

/// Cut to so many characters, with `…` in place of what was cut.
pub fn short(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Terminal colours left out: journals and containers are full of them.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if chars.next_if_eq(&'[').is_some() {
            // A sequence ends with a character of `@` to `~`.
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        }
    }
    out
}

/// The text with what looks like a secret hidden.
pub fn hide(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut next = Next::Open;
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '&');
    for word in text.split_inclusive(ends) {
        let body = word.trim_end_matches(ends);
        let end = &word[body.len()..];
        if body.is_empty() {
            out.push_str(word);
            continue;
        }
        let sign = matches!(body, "=" | ":");
        match next {
            Next::Secret if is_scheme(body) => out.push_str(body),
            Next::Secret => {
                out.push_str(HIDDEN);
                next = Next::Open;
            }
            Next::Sign if sign => {
                out.push_str(body);
                next = Next::Secret;
            }
            Next::Open | Next::Sign => {
                let (shown, after) = hide_word(body);
                out.push_str(&shown);
                next = after;
            }
        }
        out.push_str(end);
    }
    out
}

/// What the next word may be.
#[derive(Clone, Copy)]
enum Next {
    /// Anything.
    Open,
    /// `=` or `:`, which makes the word after it a secret.
    Sign,
    /// A secret, perhaps after `Bearer`.
    Secret,
}

fn is_scheme(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'']);
    let known = ["bearer", "basic", "token"];
    known.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn is_named_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// One word without its secret, and what the next may be.
fn hide_word(word: &str) -> (String, Next) {
    if word
        .trim_matches(['"', '\''])
        .eq_ignore_ascii_case("bearer")
    {
        return (word.to_owned(), Next::Secret);
    }
    if let Some(shown) = hide_userinfo(word) {
        return (shown, Next::Open);
    }
    for (at, _) in word.match_indices(['=', ':']) {
        if !is_named_secret(&word[..at]) {
            continue;
        }
        let value = word[at + 1..].trim_matches(['"', '\'']);
        if value.is_empty() || is_scheme(value) {
            return (word.to_owned(), Next::Secret);
        }
        return (format!("{}{HIDDEN}", &word[..=at]), Next::Open);
    }
    let bare = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let starts = BEGINNINGS.iter().any(|begin| bare.starts_with(begin));
    if starts && bare.len() >= TOKEN_CHARS {
        let lead = &word[..word.len() - bare.len()];
        return (format!("{lead}{HIDDEN}"), Next::Open);
    }
    let next = if is_named_secret(word) {
        Next::Sign
    } else {
        Next::Open
    };
    (word.to_owned(), next)
}

/// `scheme://user:password@host` without the password.
fn hide_userinfo(word: &str) -> Option<String> {
    let begin = word.find("://")? + 3;
    let rest = &word[begin..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let at = authority.rfind('@').or_else(|| rest.rfind('@'))?;
    let colon = rest[..at].find(':')?;
    Some(format!(
        "{}{}:{HIDDEN}{}",
        &word[..begin],
        &rest[..colon],
        &rest[at..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_quoted() {
        for (said, quoted) in [
            (
                "cannot connect to postgresql://app:hunter2@db:5432/app now",
                "cannot connect to postgresql://app:***@db:5432/app now",
            ),
            ("postgres://u:p/w@h/d", "postgres://u:***@h/d"),
            (
                "login failed password=hunter2, user=bob",
                "login failed password=***, user=bob",
            ),
            ("SECRET_KEY = abc123 loaded", "SECRET_KEY = *** loaded"),
            ("SECRET_KEY=abc123&next=/home", "SECRET_KEY=***&next=/home"),
            (
                "{\"api_key\": \"abc\", \"n\": 1}",
                "{\"api_key\": ***, \"n\": 1}",
            ),
            (
                "Authorization: Bearer abc.def.ghi tail",
                "Authorization: Bearer *** tail",
            ),
            ("got Bearer abc", "got Bearer ***"),
            ("key sk-proj-0123456789abcdef here", "key *** here"),
            ("GET /x?token=abc&page=2 200", "GET /x?token=***&page=2 200"),
            ("a tokenizer ran", "a tokenizer ran"),
        ] {
            assert_eq!(hide(said), quoted, "{said}");
        }
    }

    #[test]
    fn a_quoted_line_is_short_and_cannot_move_the_cursor() {
        assert_eq!(
            line("\u{1b}[31mred\u{1b}[0m\tand\u{7}more\n"),
            "red and more"
        );
        let long = line(&"ä".repeat(100_000));
        assert_eq!(long.chars().count(), LINE_CHARS + 1);
    }
}
