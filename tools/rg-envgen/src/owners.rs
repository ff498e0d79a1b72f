//! Names of users and groups from `/etc/passwd` and `/etc/group`.

/// A user's name.
pub fn user_name(number: u32) -> Option<String> {
    named("/etc/passwd", number)
}

/// A group's name.
pub fn group_name(number: u32) -> Option<String> {
    named("/etc/group", number)
}

/// A user's number.
pub fn user_number(name: &str) -> Option<u32> {
    numbered("/etc/passwd", name)
}

/// A group's number.
pub fn group_number(name: &str) -> Option<u32> {
    numbered("/etc/group", name)
}

fn entries(file: &str) -> Vec<(String, u32)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    });
    lines.collect()
}

fn named(file: &str, number: u32) -> Option<String> {
    let found = entries(file).into_iter().find(|(_, one)| *one == number);
    found.map(|(name, _)| name)
}

fn numbered(file: &str, name: &str) -> Option<u32> {
    let found = entries(file).into_iter().find(|(one, _)| one == name);
    found.map(|(_, number)| number)
}
