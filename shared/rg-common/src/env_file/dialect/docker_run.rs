//! `docker run --env-file`: line by line, and nothing is unquoted.

use super::Reading;

/// A longer line makes docker refuse the file (its scanner's limit).
const LINE_BYTES_MAX: usize = 65_536;

pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let number = index + 1;
        if line.len() >= LINE_BYTES_MAX {
            reading.values.clear();
            reading.refuse(number, "a line longer than 64 KiB");
            break;
        }
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        let wrong = match name {
            "" => Some("no name before `=`"),
            name if name.contains([' ', '\t']) => Some("a blank in the name"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            // The whole file is refused, what came before it too.
            reading.values.clear();
            reading.refuse(number, wrong);
            break;
        }
        match value {
            Some(value) => reading.set(name, value),
            None => reading.drops(
                number,
                "a name alone is taken from the caller's environment",
            ),
        }
    }
    reading
}
