//! What disks and cut connections do to files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::chance::Chance;

/// Damage to one file, in place.
pub struct Damage {
    path: PathBuf,
}

impl Damage {
    /// Damage to come to this file.
    pub fn to(path: impl AsRef<Path>) -> Self {
        Damage {
            path: path.as_ref().to_owned(),
        }
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.path).expect("the file to damage").len()
    }

    /// Flips bit `bit` (0 to 7) of the byte at `position`.
    pub fn flip_bit(&self, position: u64, bit: u32) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.expect("the file to damage");
        let mut byte = [0];
        file.read_exact_at(&mut byte, position)
            .expect("a position inside the file");
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, position).expect("the damage");
    }

    /// Flips one bit anywhere; gives the position.
    pub fn flip_any_bit(&self, chance: &mut Chance) -> u64 {
        let position = chance.below(self.size());
        self.flip_bit(position, chance.below(8) as u32);
        position
    }

    /// Cuts the file to `size` bytes.
    pub fn cut_to(&self, size: u64) {
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| file.set_len(size))
            .expect("the file to cut");
    }

    /// Cuts off its last `bytes`.
    pub fn cut_off(&self, bytes: u64) {
        self.cut_to(self.size().saturating_sub(bytes));
    }

    /// Overwrites everything from `position` on with zeros, as a lost page does.
    pub fn zero_from(&self, position: u64) {
        let zeros = vec![0; usize::try_from(self.size() - position).expect("a small file")];
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| file.write_all_at(&zeros, position))
            .expect("the damage");
    }
}
