//! An env file that is edited: what is not meant stays byte for byte.
//!
//! Values are read by `rg_common::env_file`, so that what is edited here is what the tools see.
//! Comments, blank lines, order, quotes of untouched values and line ends are kept. A line that is not
//! understood is an error: whoever only judges a file takes `rg_common::env_file::document`.

use rg_common::env_file::EnvFile;
use rg_common::env_file::document::closing;
use rg_common::secret::Secret;
use rg_common::{Failure, Result};

/// The lines of an env file.
#[derive(Debug, Clone, Default)]
pub struct EditedFile(Vec<Item>);

#[derive(Debug, Clone)]
enum Item {
    /// A comment or a blank line, with its end.
    Other(String),
    Entry(Entry),
}

/// A variable as it stands in the file.
#[derive(Debug, Clone)]
struct Entry {
    /// What stands before the name: blanks, `export `, a byte order mark.
    before: String,
    name: String,
    /// What stands between name and value: `=` and blanks.
    equals: String,
    /// The value as it is written, with its quotes.
    raw: String,
    /// What follows it: a comment, the end of the line.
    after: String,
    value: Secret,
}

impl EditedFile {
    /// Parses a file's text; an error names the line, never a value.
    pub fn parse(text: &str) -> Result<EditedFile> {
        let mut items = Vec::new();
        let mut lines = text.split_inclusive('\n');
        let mut number = 0;
        while let Some(line) = lines.next() {
            number += 1;
            let bare = line.trim_start_matches('\u{feff}').trim();
            if bare.is_empty() || bare.starts_with('#') {
                items.push(Item::Other(line.to_owned()));
                continue;
            }
            let mut whole = line.to_owned();
            let first = number;
            let entry = loop {
                match EnvFile::parse(&whole) {
                    Ok(file) => break entry(&whole, &file),
                    // A quoted value may run over lines.
                    Err(failure) if failure.to_string().contains("never closed") => {
                        match lines.next() {
                            Some(more) => whole.push_str(more),
                            None => return Err(at(first, &failure)),
                        }
                        number += 1;
                    }
                    Err(failure) => return Err(at(first, &failure)),
                }
            };
            items.push(Item::Entry(entry.ok_or_else(|| {
                Failure::new(format!(
                    "line {first}: it cannot be told where the value ends"
                ))
            })?));
        }
        Ok(EditedFile(items))
    }

    /// The text, as it was but for what was set.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for item in &self.0 {
            match item {
                Item::Other(line) => text.push_str(line),
                Item::Entry(e) => {
                    for part in [&e.before, &e.name, &e.equals, &e.raw, &e.after] {
                        text.push_str(part);
                    }
                }
            }
        }
        text
    }

    /// A variable's value; the last of several, as for every reader.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.entries()
            .filter(|entry| entry.name == name)
            .last()
            .map(|entry| &entry.value)
    }

    /// The names in it, in order; one that stands there twice is named twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|entry| entry.name.as_str())
    }

    /// Changes the value of a variable that is there, wherever it is.
    pub fn set(&mut self, name: &str, value: &Secret) {
        for item in &mut self.0 {
            if let Item::Entry(entry) = item
                && entry.name == name
            {
                entry.equals = "=".to_owned();
                entry.raw = value.reveal().to_owned();
                entry.value = value.clone();
            }
        }
    }

    /// Gives a variable another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        for item in &mut self.0 {
            if let Item::Entry(entry) = item
                && entry.name == from
            {
                entry.name = to.to_owned();
            }
        }
    }

    /// Adds a variable with comment lines above it: behind the last of the `behind` that is there,
    /// else at the end.
    pub fn add(&mut self, name: &str, value: &Secret, comments: &[String], behind: &[String]) {
        let newline = match self.0.first() {
            Some(first) if first.line_end().ends_with("\r\n") => "\r\n",
            _ => "\n",
        };
        let place = self
            .0
            .iter()
            .rposition(|item| matches!(item, Item::Entry(entry) if behind.contains(&entry.name)));
        let mut new: Vec<Item> = comments
            .iter()
            .map(|line| Item::Other(format!("{line}{newline}")))
            .collect();
        new.push(Item::Entry(Entry {
            before: String::new(),
            name: name.to_owned(),
            equals: "=".to_owned(),
            raw: value.reveal().to_owned(),
            after: newline.to_owned(),
            value: value.clone(),
        }));
        let place = place.map_or(self.0.len(), |place| place + 1);
        if let Some(before) = place.checked_sub(1).and_then(|at| self.0.get_mut(at)) {
            before.close(newline);
        }
        self.0.splice(place..place, new);
    }

    /// Whether nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter_map(|item| match item {
            Item::Entry(entry) => Some(entry),
            Item::Other(_) => None,
        })
    }
}

impl Item {
    fn line_end(&self) -> &str {
        match self {
            Item::Other(line) => line,
            Item::Entry(entry) => &entry.after,
        }
    }

    /// A last line without an end gets one before something follows.
    fn close(&mut self, newline: &str) {
        if !self.line_end().ends_with('\n') {
            match self {
                Item::Other(line) => line.push_str(newline),
                Item::Entry(entry) => entry.after.push_str(newline),
            }
        }
    }
}

fn at(line: usize, failure: &Failure) -> Failure {
    let said = failure.to_string();
    let said = said
        .split_once(": ")
        .map_or(said.as_str(), |(_, what)| what);
    Failure::new(format!("line {line}: {said}"))
}

/// Takes an assignment apart; none when the end of its value is not where it is expected.
fn entry(whole: &str, file: &EnvFile) -> Option<Entry> {
    let name = file.names().next()?.to_owned();
    let value = file.get(&name)?.clone();
    let (left, right) = whole.split_once('=')?;
    let begins = left.rfind(&name)?;
    let before = left[..begins].to_owned();
    let blanks = right.len() - right.trim_start_matches([' ', '\t']).len();
    let equals = format!("{}={}", &left[begins + name.len()..], &right[..blanks]);
    let rest = &right[blanks..];
    let end = match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => closing(rest, quote)?,
        _ => rest.find(value.reveal())? + value.reveal().len(),
    };
    Some(Entry {
        before,
        name,
        equals,
        raw: rest[..end].to_owned(),
        after: rest[end..].to_owned(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HAND_MADE: &str = "\u{feff}# mine\r\nexport A = 'x # y' # why\n\n  B=1 # note\nC=\"two\nlines\" # end\nB=2\nD=";

    #[test]
    fn what_is_not_set_stays_byte_for_byte() {
        let mut file = EditedFile::parse(HAND_MADE).unwrap();
        assert_eq!(file.text(), HAND_MADE);
        assert_eq!(file.get("B").unwrap().reveal(), "2");
        assert_eq!(file.get("C").unwrap().reveal(), "two\nlines");
        file.set("C", &Secret::new("new"));
        file.rename("A", "Z");
        file.add(
            "E",
            &Secret::new("5"),
            &["# five".to_owned()],
            &["Z".to_owned()],
        );
        file.add("F", &Secret::new("6"), &[], &[]);
        assert_eq!(
            file.text(),
            "\u{feff}# mine\r\nexport Z = 'x # y' # why\n# five\r\nE=5\r\n\n  B=1 # note\nC=new # end\nB=2\nD=\r\nF=6\r\n"
        );
    }

    #[test]
    fn an_error_names_the_line_and_no_value() {
        let failure = EditedFile::parse("A=1\n\nhunter2\n").unwrap_err();
        assert_eq!(failure.to_string(), "line 3: no `=` in it");
        let failure = EditedFile::parse("A=1\nB='x\n").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "line 2: the quote of B is never closed"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept(text in "(?s)[A-C_= '\"#\\\\$a\n\r\t\u{e9}]{0,60}") {
            if let Ok(file) = EditedFile::parse(&text) {
                prop_assert_eq!(file.text(), text.clone());
                let plain = EnvFile::parse(&text);
                if let Ok(plain) = plain {
                    for name in plain.names() {
                        prop_assert_eq!(file.get(name), plain.get(name));
                    }
                }
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            EditedFile::parse(&String::from_utf8_lossy(&bytes)).ok();
        }

        #[test]
        fn a_value_that_was_set_is_read_back(value in "[A-Za-z0-9_.,:/@%+=^{}-]{1,40}") {
            let mut file = EditedFile::parse(HAND_MADE).unwrap();
            file.set("A", &Secret::new(value.clone()));
            file.add("NEW", &Secret::new(value.clone()), &[], &["B".to_owned()]);
            let again = EditedFile::parse(&file.text()).unwrap();
            prop_assert_eq!(again.get("A").unwrap().reveal(), &value);
            prop_assert_eq!(again.get("NEW").unwrap().reveal(), &value);
        }
    }
}
