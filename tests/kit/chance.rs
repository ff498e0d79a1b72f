//! Chance that can be repeated: the same seed gives the same numbers on every machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// A xorshift64* generator (Vigna 2016). For tests only: nothing secret comes from it.
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// The numbers of `seed`.
    pub fn seeded(seed: u64) -> Self {
        Chance {
            seed,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    /// The numbers of `RG_TEST_SEED`, or of the clock; a failing test prints which.
    pub fn new() -> Self {
        let given = std::env::var("RG_TEST_SEED").ok();
        let seed = match given.map(|text| text.parse::<u64>()) {
            Some(Ok(seed)) => seed,
            Some(Err(_)) => panic!("RG_TEST_SEED is not a whole number"),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64),
        };
        Chance::seeded(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 up to, but without, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        self.bits() % end
    }

    /// Fills `buffer` with bytes that do not compress.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// How often a repeated experiment is made: `few` times, or that many times `RG_TEST_ROUNDS`.
pub fn rounds(few: u32) -> u32 {
    let factor = std::env::var("RG_TEST_ROUNDS").unwrap_or_else(|_| "1".into());
    let factor: u32 = factor.parse().expect("RG_TEST_ROUNDS is a whole number");
    few * factor
}

impl Default for Chance {
    fn default() -> Self {
        Chance::new()
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat these numbers with RG_TEST_SEED={}", self.seed);
        }
    }
}
