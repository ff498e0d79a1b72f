//! Whether the live table can take the rows of the dump: its columns by name.

use rg_common::dump::Table;
use rg_common::failure::{Failure, Result};

use super::BESIDE;
use super::around::LiveTable;

/// A failure if the live table lacks a column of the dump's; a note if it has additional ones.
pub(super) fn check(table: &Table, live: &LiveTable) -> Result<Option<String>> {
    let dumped = names(&table.columns);
    let lacks: Vec<&str> = dumped
        .iter()
        .filter(|name| !live.columns.contains(name))
        .map(String::as_str)
        .collect();
    if !lacks.is_empty() {
        return Err(Failure::new(format!(
            "the live table {} has no column {} to take the backup's values",
            live.shown,
            lacks.join(", ")
        ))
        .hint("the table was changed since the backup was made")
        .hint(BESIDE));
    }
    let added: Vec<&str> = live
        .columns
        .iter()
        .filter(|name| !dumped.contains(name))
        .map(String::as_str)
        .collect();
    Ok((!added.is_empty()).then(|| {
        format!(
            "table {} has columns that the backup does not know, now at their defaults: {}",
            live.shown,
            added.join(", ")
        )
    }))
}

/// The names in `a, "B c", d`, without quotes.
pub(super) fn names(columns: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    for character in columns.chars() {
        match character {
            '"' => {
                // A doubled quote ends and begins again: it stands for itself.
                if !quoted && was_quoted {
                    name.push('"');
                }
                quoted = !quoted;
                was_quoted = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                was_quoted = false;
            }
            character if character.is_whitespace() && !quoted => {}
            character => name.push(character),
        }
    }
    if !columns.is_empty() {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_quoted_name_keeps_its_commas_blanks_and_quotes() {
        assert_eq!(names(""), [""; 0]);
        assert_eq!(names("id"), ["id"]);
        assert_eq!(
            names(r#"id, "a, b", "say ""hi""", "Größe""#),
            ["id", "a, b", "say \"hi\"", "Größe"]
        );
        assert_eq!(names(r#""""x""#), ["\"x"]);
    }
}
