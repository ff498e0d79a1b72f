//! What a backup of a directory leaves out: shell globs relative to its root.
//!
//! `*.tmp` matches the last component anywhere; `a/b` the last two. `cache/` and `cache/**` are a
//! directory with all that lies in it. A `/` in front ties the pattern to the root: `/cache/`.
//! `*` and `?` do not match `/`, `**` between slashes matches any number of directories, `[a-z]`
//! and `[!a-z]` one byte, and a backslash takes the next character as it is. What matches is left
//! out with everything below it.

use crate::failure::{Failure, Result};

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Components to match from the root on; `None` is `**`.
    parts: Vec<Option<Vec<Token>>>,
    directory: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Any,
    Class(bool, Vec<(u8, u8)>),
}

impl Pattern {
    /// Checks a pattern. An empty one, one with `..` and an unclosed `[` are errors that quote it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Failure::new(format!("the pattern `{text}` {why}"));
        let anchored = text.starts_with('/');
        let mut rest = text.trim_start_matches('/');
        let mut directory = rest.ends_with('/');
        rest = rest.trim_end_matches('/');
        if let Some(before) = rest.strip_suffix("/**") {
            directory = true;
            rest = before;
        }
        if rest.is_empty() || rest == "**" {
            return Err(bad("would leave out everything").hint("name what is to be left out"));
        }
        let mut parts = Vec::new();
        if !anchored {
            parts.push(None);
        }
        for part in rest
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
        {
            match part {
                ".." => return Err(bad("leads out of the directory")),
                "**" => parts.push(None),
                part => {
                    let tokens =
                        tokens(part.as_bytes()).ok_or_else(|| bad("has an unclosed `[`"))?;
                    parts.push(Some(tokens));
                }
            }
        }
        Ok(Pattern { parts, directory })
    }

    /// Whether a path relative to the root is left out by this pattern itself (the caller does
    /// not descend into what is).
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        if self.directory && !is_directory {
            return false;
        }
        let components: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        matches_parts(&self.parts, &components)
    }
}

fn matches_parts(parts: &[Option<Vec<Token>>], path: &[&[u8]]) -> bool {
    match parts.split_first() {
        None => path.is_empty(),
        Some((None, rest)) => (0..=path.len()).any(|skip| matches_parts(rest, &path[skip..])),
        Some((Some(tokens), rest)) => match path.split_first() {
            Some((name, below)) => matches_name(tokens, name) && matches_parts(rest, below),
            None => false,
        },
    }
}

/// Without backtracking further than the last `*`, hence linear in practice.
fn matches_name(tokens: &[Token], name: &[u8]) -> bool {
    let (mut t, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match tokens.get(t) {
            Some(Token::Any) => {
                star = Some((t, n));
                t += 1;
            }
            Some(token) if token.takes(name[n]) => {
                t += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    t = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    tokens[t..].iter().all(|token| *token == Token::Any)
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(b) => *b == byte,
            Token::One | Token::Any => true,
            Token::Class(negated, ranges) => {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&byte))
                    != *negated
            }
        }
    }
}

fn tokens(part: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < part.len() {
        let (token, used) = match part[at] {
            b'*' => (Token::Any, 1),
            b'?' => (Token::One, 1),
            b'[' => class(&part[at + 1..]).map(|(token, used)| (token, used + 1))?,
            b'\\' if at + 1 < part.len() => (Token::Byte(part[at + 1]), 2),
            byte => (Token::Byte(byte), 1),
        };
        tokens.push(token);
        at += used;
    }
    Some(tokens)
}

/// What follows a `[`, and how many bytes of it were used. A `]` in front is an ordinary member.
fn class(rest: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|b| *b == b']')?;
    let members = &rest[start..end];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == b'-' {
            ranges.push((members[at], members[at + 2]));
            at += 3;
        } else {
            ranges.push((members[at], members[at]));
            at += 1;
        }
    }
    Some((Token::Class(negated, ranges), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        for (text, why) in [
            ("", "would leave out everything"),
            ("/", "would leave out everything"),
            ("**", "would leave out everything"),
            ("a/../b", "leads out of the directory"),
            ("[ab", "has an unclosed `[`"),
        ] {
            let expected = format!("the pattern `{text}` {why}");
            assert_eq!(Pattern::parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn patterns_match_as_an_operator_expects() {
        // pattern, path, is a directory, left out
        let cases: &[(&str, &str, bool, bool)] = &[
            ("*.tmp", "a.tmp", false, true),
            ("*.tmp", "deep/er/a.tmp", false, true),
            ("*.tmp", "a.tmp.gz", false, false),
            ("cache/", "cache", true, true),
            ("cache/", "a/cache", true, true),
            ("cache/", "cache", false, false),
            ("cache/**", "cache", true, true),
            ("cache", "a/cache", false, true),
            ("/cache", "a/cache", true, false),
            ("/cache", "cache", true, true),
            ("a/b", "x/a/b", false, true),
            ("/a/b", "x/a/b", false, false),
            ("/a/**/z", "a/z", false, true),
            ("/a/**/z", "a/b/c/z", false, true),
            ("/a/*/z", "a/b/c/z", false, false),
            ("?.[ch]", "x.c", false, true),
            ("?.[!ch]", "x.c", false, false),
            ("[]x]", "]", false, true),
            ("\\*", "*", false, true),
            ("\\*", "a", false, false),
            ("a*b*c", "aXbXXbc", false, true),
            ("a*b*c", "aXbXXb", false, false),
        ];
        for (pattern, path, directory, out) in cases {
            let parsed = Pattern::parse(pattern).unwrap();
            let got = parsed.matches(path.as_bytes(), *directory);
            assert_eq!(got, *out, "{pattern} on {path}");
        }
    }
}
