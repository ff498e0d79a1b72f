//! Names of users and groups from `/etc/passwd` and `/etc/group`.
//!
//! Read once, without the C library: what only a directory service knows has no name here, and
//! the archive then carries its number alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Files of users larger than this are read only so far.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Numbers to names.
#[derive(Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    /// This machine's names; none when the files cannot be read.
    pub fn here() -> Self {
        Owners {
            users: names(Path::new("/etc/passwd")),
            groups: names(Path::new("/etc/group")),
        }
    }

    pub fn user(&self, uid: u32) -> Option<String> {
        self.users.get(&uid).cloned()
    }

    pub fn group(&self, gid: u32) -> Option<String> {
        self.groups.get(&gid).cloned()
    }
}

fn names(file: &Path) -> HashMap<u32, String> {
    match File::open(file) {
        Ok(file) => parse(BufReader::new(file.take(FILE_BYTES_MAX))),
        Err(_) => HashMap::new(),
    }
}

/// `name:password:number:…`; the first of several names for a number wins, as in the C library.
fn parse(lines: impl BufRead) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in lines.lines().map_while(Result::ok) {
        let mut fields = line.split(':');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lines_are_passed_over_and_the_first_name_wins() {
        let file = "# comment\nroot:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\n+::::::\nbad:x:no\n";
        let names = parse(file.as_bytes());
        assert_eq!(names, HashMap::from([(0, "root".to_owned())]));
    }
}
