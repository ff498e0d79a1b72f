//! The most frequent words of a stream, in bounded memory (Misra and Gries).

use std::collections::HashMap;

use super::Counted;

/// So many words are told apart; what comes more often than once in so many is never missed.
const WORDS_MAX: usize = 1000;

/// Counts words; with more than [`WORDS_MAX`] different ones counts are at least what they say.
#[derive(Debug, Default)]
pub(super) struct Heavy(HashMap<String, u64>);

impl Heavy {
    pub(super) fn add(&mut self, word: &str) {
        if let Some(times) = self.0.get_mut(word) {
            *times += 1;
        } else if self.0.len() < WORDS_MAX {
            self.0.insert(word.to_owned(), 1);
        } else {
            self.0.retain(|_, times| {
                *times -= 1;
                *times > 0
            });
        }
    }

    /// The most frequent, most first; those of equal count by their words.
    pub(super) fn top(&self, count: usize) -> Vec<Counted> {
        let mut all: Vec<(&String, &u64)> = self.0.iter().collect();
        all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let first = all.into_iter().take(count);
        first
            .map(|(what, times)| Counted {
                what: what.clone(),
                times: *times,
            })
            .collect()
    }
}
