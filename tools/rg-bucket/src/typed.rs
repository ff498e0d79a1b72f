//! A question that a stray `y` cannot answer: the name of what will be emptied has to be typed.

use std::io::{self, BufRead, IsTerminal, Write};

use rg_common::{Failure, OrFail, Result};

/// Asks for `name`; `given` answers for scripts. Without a terminal and without an answer it
/// refuses, and so it does when another name comes.
pub fn confirm(question: &str, name: &str, given: Option<&str>) -> Result<()> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None => ask(question, name)?,
    };
    if typed.trim() == name {
        return Ok(());
    }
    let typed = typed.trim();
    Err(Failure::new(format!(
        "not confirmed: `{typed}` is not `{name}`; nothing was deleted"
    )))
}

fn ask(question: &str, name: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::new(format!("not confirmed: {question}")).hint(format!(
                "answer with --confirm {name} where nobody can be asked"
            )),
        );
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question}\nType the bucket's name to go on: ")
        .and_then(|()| stderr.flush())
        .or_fail(|| "cannot ask".to_owned())?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .or_fail(|| "cannot read the answer".to_owned())?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_or_a_plain_yes_does_not_confirm() {
        for given in ["", "y", "yes", "files-staging", "FILES"] {
            assert!(
                confirm("empty it?", "files", Some(given)).is_err(),
                "{given:?}"
            );
        }
        assert_eq!(
            confirm("empty it?", "files", Some("filse\n"))
                .unwrap_err()
                .to_string(),
            "not confirmed: `filse` is not `files`; nothing was deleted"
        );
        assert!(confirm("empty it?", "files", Some("files\n")).is_ok());
    }
}
