//! Several assertions about one thing, one verdict: the worst decides, and all that is bad is said.

use crate::check::{Figure, State, Verdict};

/// Collects what is wrong, and settles on a verdict.
#[derive(Debug, Default)]
pub struct Tally {
    wrong: Vec<Wrong>,
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Wrong {
    fail: bool,
    found: String,
    fix: String,
}

impl Tally {
    /// One thing that is bad.
    pub fn fail(&mut self, found: impl Into<String>, fix: impl Into<String>) {
        self.add(true, found.into(), fix.into());
    }

    /// One thing that will be bad if nobody acts.
    pub fn warn(&mut self, found: impl Into<String>, fix: impl Into<String>) {
        self.add(false, found.into(), fix.into());
    }

    fn add(&mut self, fail: bool, found: String, fix: String) {
        self.wrong.push(Wrong { fail, found, fix });
    }

    /// A figure of the verdict.
    pub fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Whether nothing is wrong so far.
    pub fn is_well(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Takes over what another verdict found, its figures included. A pass and a skip add nothing else.
    pub fn take(&mut self, other: Verdict) {
        let fix = other.fix.unwrap_or_default();
        match other.state {
            State::Fail => self.fail(other.found, fix),
            State::Warn => self.warn(other.found, fix),
            State::Pass | State::Skip | State::Unknown => {}
        }
        self.figures.extend(other.figures);
    }

    /// The verdict: failures are said before warnings, with the fix of the first; `well` when nothing
    /// is wrong.
    pub fn settle(self, well: impl Into<String>) -> Verdict {
        let Tally { mut wrong, figures } = self;
        // Stable: within failures and within warnings the order of the assertions stays.
        wrong.sort_by_key(|wrong| !wrong.fail);
        let said: Vec<&str> = wrong.iter().map(|wrong| wrong.found.as_str()).collect();
        let said = said.join("; ");
        let mut verdict = match wrong.first() {
            None => Verdict::pass(well),
            Some(first) if first.fail => Verdict::fail(said, &first.fix),
            Some(first) => Verdict::warn(said, &first.fix),
        };
        verdict.fix = verdict.fix.filter(|fix| !fix.is_empty());
        verdict.figures = figures;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_and_everything_is_said() {
        let mut tally = Tally::default();
        tally.warn("a is late", "hurry a");
        tally.fail("b is down", "start b");
        tally.take(Verdict::pass("c is well"));
        let verdict = tally.settle("all well");
        assert_eq!(verdict.state, State::Fail);
        assert_eq!(verdict.found, "b is down; a is late");
        assert_eq!(verdict.fix.as_deref(), Some("start b"));
        assert_eq!(
            Tally::default().settle("all well"),
            Verdict::pass("all well")
        );
    }
}
