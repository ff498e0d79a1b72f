//! What happened, to what, and what to do next.
//!
//! A `Failure` is read at 3 a.m. by somebody who did not write this. It is a chain of causes and
//! any number of hints. There is no `From<io::Error>`: whoever calls the system says what they
//! were doing. A failure can travel through `std::io::Read` (see [`Failure::into_io`]) and comes
//! out on the other side with its hints.

use std::error::Error;
use std::fmt;
use std::io;

/// What could not be done. Exit code 2.
pub struct Failure(Box<Inner>);

struct Inner {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hints: Vec<String>,
}

/// The result of everything that can fail in these tools.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure without a further cause: lowercase, no full stop, objects in backticks or as paths.
    pub fn new(what: impl Into<String>) -> Self {
        Failure(Box::new(Inner {
            what: what.into(),
            source: None,
            hints: Vec::new(),
        }))
    }

    /// A failure with its cause. An I/O error that carries a `Failure` is unwrapped, so that the
    /// message does not say "other error" and the hints survive.
    pub fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let source = match source.downcast::<io::Error>() {
            Ok(io) if io.get_ref().is_some_and(|inner| inner.is::<Failure>()) => {
                io.into_inner().expect("an inner error was just seen")
            }
            Ok(io) => io,
            Err(other) => other,
        };
        Failure(Box::new(Inner {
            what: what.into(),
            source: Some(source),
            hints: Vec::new(),
        }))
    }

    /// The same once more, for a failure that is told of in several places; its causes are in its words.
    pub fn again(&self) -> Failure {
        let copy = Failure::new(self.to_string());
        let hints = self.hints().into_iter();
        hints.fold(copy, |copy, hint| copy.hint(hint))
    }

    /// The failure inside an I/O error, or the I/O error said to have happened while doing `what`.
    pub fn from_io(what: impl Into<String>, error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Failure>()) {
            let inner = error.into_inner().expect("an inner error was just seen");
            return *inner.downcast::<Failure>().expect("its type was just seen");
        }
        Failure::because(what, error)
    }

    /// As an I/O error, for the far end of a chain of `Read`s; [`Failure::from_io`] gets it back.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// What to do next; printed on a line of its own as `hint: …`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// The same failure as the cause of a wider one.
    #[must_use]
    pub fn context(self, what: impl Into<String>) -> Self {
        Failure(Box::new(Inner {
            what: what.into(),
            source: Some(Box::new(self)),
            hints: Vec::new(),
        }))
    }

    /// All hints of the chain, the innermost first.
    pub fn hints(&self) -> Vec<&str> {
        let mut all = match self
            .0
            .source
            .as_deref()
            .and_then(|s| s.downcast_ref::<Failure>())
        {
            Some(inner) => inner.hints(),
            None => Vec::new(),
        };
        all.extend(self.0.hints.iter().map(String::as_str));
        all
    }
}

/// The chain of causes in one line, joined by `: `; a cause already said by its parent is left out.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let mut said = self.0.what.clone();
        let mut next: Option<&(dyn Error + 'static)> = match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        };
        while let Some(cause) = next {
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                return write!(f, ": {failure}");
            }
            let text = cause.to_string();
            if !text.is_empty() && !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        for hint in self.hints() {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Says what was being done when something failed.
pub trait OrFail<T> {
    /// Turns the error into a [`Failure`] that begins with `what`.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::because(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_a_chain_of_readers_with_its_hints() {
        let start =
            Failure::new("pg_dump ended with exit status 1").hint("look at its messages above");
        let through = Failure::from_io("cannot read the dump", start.into_io());
        assert_eq!(through.to_string(), "pg_dump ended with exit status 1");
        assert_eq!(through.hints(), ["look at its messages above"]);
    }

    #[test]
    fn causes_are_joined_and_hints_collected() {
        let io = io::Error::from_raw_os_error(2);
        let failure = Failure::because("cannot read /etc/rg/rg.toml", io)
            .hint("write one")
            .context("cannot start");
        assert_eq!(
            failure.to_string(),
            "cannot start: cannot read /etc/rg/rg.toml: No such file or directory (os error 2)"
        );
        assert_eq!(failure.hints(), ["write one"]);
    }
}
