//! Numbers of things, as people write them: `1 file`, `1,234 files`.
//!
//! The promise: one place knows how a noun looks beside a 1, so that no message says `1 files`.

/// A count with thin groups: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A count and what is counted, given as it is called when there are many, as documents for scripts
/// call it too: `files`, `old versions`, `entries`. Only for nouns whose plural ends in `s`.
pub fn counted(n: impl TryInto<u64>, nouns: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let number = count(n);
    match (n, nouns.strip_suffix("ies"), nouns.strip_suffix('s')) {
        (1, Some(stem), _) => format!("{number} {stem}y"),
        (1, None, Some(one)) => format!("{number} {one}"),
        _ => format!("{number} {nouns}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_them_is_a_singular() {
        for (n, nouns, said) in [
            (0, "files", "0 files"),
            (1, "files", "1 file"),
            (2, "files", "2 files"),
            (1, "old versions", "1 old version"),
            (1, "directories", "1 directory"),
            (21_000, "directories", "21,000 directories"),
        ] {
            assert_eq!(counted(n, nouns), said);
        }
    }
}
