//! `. file` in bash and dash: an env file is a program to a shell.
//!
//! Modelled as far as env files go: assignments, `export`, quotes, `$NAME`. What starts a
//! program, redirects or asks the machine (`` ` ``, `&`, `|`, `<`, a second word) is named as such.

use super::{Reading, Seen, is_name};

/// Which shell.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// bash 5.
    Bash,
    /// dash 0.5.
    Dash,
}

pub(super) fn read(text: &str, kind: Kind) -> Reading {
    let mut shell = Shell {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
        kind,
        reading: Reading::default(),
        lost: Vec::new(),
    };
    while shell.at < shell.chars.len() {
        let line = shell.line;
        if let Err(what) = shell.command(line) {
            shell.reading.refuse(line, what);
            break;
        }
    }
    for (name, why) in shell.lost {
        let values = &mut shell.reading.values;
        values
            .entry(name)
            .or_insert_with(|| Seen::Missing(why.to_owned()));
    }
    shell.reading
}

struct Shell {
    chars: Vec<char>,
    at: usize,
    line: usize,
    kind: Kind,
    reading: Reading,
    /// Names whose assignment took no effect.
    lost: Vec<(String, &'static str)>,
}

/// A word: what it assigns, if it is an assignment, and its text without quotes.
#[derive(Default)]
struct Word {
    name: Option<String>,
    append: bool,
    text: String,
    depends: Option<&'static str>,
}

impl Word {
    fn is(&self, text: &str) -> bool {
        self.name.is_none() && self.text == text
    }
}

/// Words that begin a compound command; what follows on further lines belongs to it.
const KEYWORDS: [&str; 12] = [
    "if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "{",
];
const UNCLOSED: &str = "a quote that is never closed";
const SYNTAX: &str = "a syntax error: the shell stops here";

impl Shell {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    /// One command with its separator.
    fn command(&mut self, line: usize) -> Result<(), &'static str> {
        let mut words: Vec<Word> = Vec::new();
        let mut redirected = None;
        let end = loop {
            match self.peek() {
                None => break None,
                Some(' ' | '\t') => {
                    self.next();
                }
                Some('\\') if self.chars.get(self.at + 1) == Some(&'\n') => {
                    self.next();
                    self.next();
                }
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                Some(c @ ('\n' | ';' | '&' | '|' | ')')) => {
                    self.next();
                    break Some(c);
                }
                Some('(') => {
                    if words.is_empty() {
                        self.reading.runs(line, "a subshell, not an assignment");
                        return self.parentheses();
                    }
                    return Err(SYNTAX);
                }
                Some(c @ ('<' | '>')) => {
                    self.next();
                    redirected = Some(c);
                    let blank = |c: char| matches!(c, ' ' | '\t' | '>' | '<');
                    while self.peek().is_some_and(blank) {
                        self.next();
                    }
                    let target = self.word(line)?;
                    if target.name.is_none() && target.text.is_empty() {
                        return Err(SYNTAX);
                    }
                }
                Some(_) => {
                    let word = self.word(line)?;
                    words.push(word);
                }
            }
        };
        if let Some(first) = words.first()
            && KEYWORDS.iter().any(|keyword| first.is(keyword))
        {
            return Err("a shell keyword: the rest of the file is a program");
        }
        let doubled = matches!(end, Some('&' | '|' | ';')) && self.peek() == end;
        if words.is_empty() && redirected.is_none() && !matches!(end, None | Some('\n')) {
            return Err(SYNTAX);
        }
        if end == Some(')') || (end == Some(';') && doubled) {
            return Err(SYNTAX);
        }
        if doubled {
            self.next();
        }
        let lost = match end {
            Some('&') if !doubled => Some("assigned in a background job only"),
            Some('|') if !doubled => Some("assigned in a pipeline only"),
            _ => None,
        };
        if lost.is_some() {
            self.reading
                .runs(line, "what follows `&` or `|` is run as a program");
        }
        match redirected {
            Some('<') => self.reading.drops(line, "`<` reads a file"),
            Some(_) => self.reading.runs(line, "`>` writes to a file"),
            None => {}
        }
        self.obey(line, words, lost, redirected == Some('<'));
        Ok(())
    }

    /// What a command of these words does to the variables.
    fn obey(&mut self, line: usize, words: Vec<Word>, lost: Option<&'static str>, input: bool) {
        let command = words.iter().position(|word| word.name.is_none());
        let declares = command.is_some_and(|at| {
            ["export", "readonly", "declare", "typeset"]
                .iter()
                .any(|declaration| words[at].is(declaration))
        });
        let program = command.is_some() && !declares;
        if program {
            self.reading
                .runs(line, "a word that is no assignment is run as a program");
        }
        let mut refused = false;
        for (at, word) in words.into_iter().enumerate() {
            let Some(name) = word.name else {
                if declares && Some(at) != command && !is_name(&word.text) {
                    self.reading
                        .drops(line, "export refuses a word that is no name");
                    // dash ends the script at this.
                    refused = true;
                }
                continue;
            };
            let seen = match (word.depends, self.reading.values.get(&name)) {
                (Some(why), _) => Seen::Depends(why),
                (None, Some(Seen::Value(before))) if word.append => {
                    Seen::Value(format!("{before}{}", word.text))
                }
                _ if input => Seen::Depends("`<` reads a file"),
                _ => Seen::Value(word.text),
            };
            let lost = lost.or(program.then_some("given to the program on its line only"));
            match lost {
                Some(why) => self.lost.push((name, why)),
                None => {
                    self.reading.values.insert(name, seen);
                }
            }
        }
        if refused && self.kind == Kind::Dash {
            self.reading.refuse(line, SYNTAX);
            self.at = self.chars.len();
        }
    }

    fn word(&mut self, line: usize) -> Result<Word, &'static str> {
        let mut word = Word::default();
        // Only unquoted characters make an assignment.
        let mut plain = true;
        let mut tilde_may = false;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | ')' => break,
                '(' => {
                    if self.kind == Kind::Bash && word.name.is_some() && word.text.is_empty() {
                        return self.array(word);
                    }
                    return Err(SYNTAX);
                }
                _ => {}
            }
            self.next();
            let tilde_here = std::mem::take(&mut tilde_may);
            match c {
                '\\' => {
                    match self.next() {
                        Some('\n') => tilde_may = tilde_here,
                        Some(escaped) => word.text.push(escaped),
                        None => word.text.push('\\'),
                    }
                    plain = false;
                }
                '\'' => {
                    plain = false;
                    loop {
                        match self.next().ok_or(UNCLOSED)? {
                            '\'' => break,
                            inner => word.text.push(inner),
                        }
                    }
                }
                '"' => {
                    plain = false;
                    self.double(&mut word, line)?;
                }
                '$' => {
                    plain = false;
                    self.dollar(&mut word, line, false)?;
                }
                '`' => {
                    plain = false;
                    self.backtick(&mut word, line)?;
                }
                '=' if plain && word.name.is_none() => {
                    let (name, append) = match word.text.strip_suffix('+') {
                        Some(name) if self.kind == Kind::Bash => (name, true),
                        _ => (word.text.as_str(), false),
                    };
                    if is_name(name) {
                        word.name = Some(name.to_owned());
                        word.append = append;
                        word.text.clear();
                        tilde_may = true;
                    } else {
                        word.text.push('=');
                    }
                    plain = false;
                }
                '~' if tilde_here => {
                    word.depends = Some("`~` expands to a home directory");
                    word.text.push('~');
                }
                ':' if word.name.is_some() => {
                    word.text.push(':');
                    tilde_may = true;
                }
                other => word.text.push(other),
            }
        }
        Ok(word)
    }

    /// `NAME=(…)`: an array, which no environment carries.
    fn array(&mut self, mut word: Word) -> Result<Word, &'static str> {
        word.depends = Some("becomes a bash array");
        loop {
            match self.next().ok_or(SYNTAX)? {
                ')' => return Ok(word),
                '\'' => while self.next().ok_or(UNCLOSED)? != '\'' {},
                _ => {}
            }
        }
    }

    fn double(&mut self, word: &mut Word, line: usize) -> Result<(), &'static str> {
        loop {
            match self.next().ok_or(UNCLOSED)? {
                '"' => return Ok(()),
                '\\' => match self.next().ok_or(UNCLOSED)? {
                    '\n' => {}
                    c @ ('"' | '\\' | '$' | '`') => word.text.push(c),
                    other => word.text.extend(['\\', other]),
                },
                '$' => self.dollar(word, line, true)?,
                '`' => self.backtick(word, line)?,
                other => word.text.push(other),
            }
        }
    }

    fn backtick(&mut self, word: &mut Word, line: usize) -> Result<(), &'static str> {
        word.depends = Some("a program's output");
        self.reading.runs(line, "backticks run a program");
        loop {
            match self.next().ok_or(UNCLOSED)? {
                '`' => return Ok(()),
                '\\' => {
                    self.next();
                }
                _ => {}
            }
        }
    }

    /// Over `(…)`, with what is nested in it.
    fn parentheses(&mut self) -> Result<(), &'static str> {
        let mut depth = 0;
        loop {
            match self.next().ok_or("`(` that is never closed")? {
                '(' => depth += 1,
                ')' if depth == 1 => return Ok(()),
                ')' => depth -= 1,
                _ => {}
            }
        }
    }

    /// After a `$`.
    fn dollar(&mut self, word: &mut Word, line: usize, quoted: bool) -> Result<(), &'static str> {
        let special = |word: &mut Word| word.depends = Some("asks the shell (`$$`, `$?`, `$0` …)");
        match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                self.insert(word, &name);
            }
            Some('{') => {
                self.next();
                let name = self.name();
                match self.peek() {
                    Some('}') if !name.is_empty() => {
                        self.next();
                        self.insert(word, &name);
                    }
                    _ => {
                        word.depends = Some("expands `${…}` with an operator, or stops at it");
                        while self.next().ok_or("`${` that is never closed")? != '}' {}
                    }
                }
            }
            Some('(') => {
                word.depends = Some("a program's output");
                self.reading.runs(line, "`$(` runs a program");
                self.parentheses()?;
            }
            Some('1'..='9' | '@' | '*') => {
                // No arguments: empty.
                self.next();
            }
            Some('$' | '!' | '?' | '#' | '-' | '0') => {
                self.next();
                special(word);
            }
            Some('\'') if !quoted && self.kind == Kind::Bash => {
                self.next();
                word.depends = Some("bash reads escapes in `$'…'`");
                loop {
                    match self.next().ok_or(UNCLOSED)? {
                        '\'' => break,
                        '\\' => {
                            self.next();
                        }
                        _ => {}
                    }
                }
            }
            Some('"') if !quoted && self.kind == Kind::Bash => {}
            Some('[') if self.kind == Kind::Bash => {
                word.depends = Some("bash computes `$[…]`");
                while self.next().ok_or("`$[` that is never closed")? != ']' {}
            }
            _ => word.text.push('$'),
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if !(c.is_ascii_alphanumeric() || c == '_') || (name.is_empty() && c.is_ascii_digit()) {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    fn insert(&self, word: &mut Word, name: &str) {
        match self.reading.values.get(name) {
            Some(Seen::Value(value)) => word.text.push_str(value),
            Some(Seen::Depends(why)) => word.depends = Some(why),
            _ => {}
        }
    }
}
