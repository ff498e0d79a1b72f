//! `export $(grep -v '^#' file | xargs)`: the idiom of a thousand deploy scripts (F14).
//!
//! xargs splits at blanks and takes quotes and backslashes away; the shell splits the outcome
//! once more, so that a quoted blank does not survive. The directory is taken to hold no file
//! that a `*` in a value could match.

use super::{Reading, is_name};

pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let mut words: Vec<(usize, String)> = Vec::new();
    let lines = text.split('\n').enumerate();
    // `lines` counts as the file does; comments are grep's business.
    let lines = lines.filter(|(_, line)| !line.starts_with('#'));
    for (index, line) in lines {
        match split(line) {
            Ok(found) => words.extend(found.into_iter().map(|word| (index + 1, word))),
            Err(found) => {
                words.extend(found.into_iter().map(|word| (index + 1, word)));
                reading.refuse(
                    index + 1,
                    "xargs stops at a quote that is not closed on its line",
                );
                break;
            }
        }
    }
    for (number, word) in words {
        // What echo printed is split again by the shell.
        for word in word
            .split([' ', '\t', '\n'])
            .filter(|word| !word.is_empty())
        {
            match word.split_once('=') {
                Some((name, value)) if is_name(name) => reading.set(name, value),
                Some((name, value)) if name.strip_suffix('+').is_some_and(is_name) => {
                    let name = name.trim_end_matches('+');
                    let before = reading.value(name).unwrap_or_default();
                    let value = format!("{before}{value}");
                    reading.set(name, value);
                }
                None if is_name(word) => {}
                _ => reading.drops(number, "export refuses a word that is no `NAME=value`"),
            }
        }
    }
    reading
}

/// The words of a line as xargs makes them; `Err` with those before an unclosed quote.
fn split(line: &str) -> Result<Vec<String>, Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some(inner) => word.push(inner),
                        None => return Err(words),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}
