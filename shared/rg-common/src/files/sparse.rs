//! Maps of files with holes, in all of GNU tar's formats: where the data of a member belongs.

use std::io::Read;

use tar::Header;

use super::header::BLOCK;
use super::members::{Members, number};
use super::pax::decimal;
use crate::failure::{Failure, Result};

/// Stretches of data in one sparse file.
const SEGMENTS_MAX: usize = 1_000_000;

impl<R: Read> Members<R> {
    /// The map of GNU tar's own format: four stretches in the header, more in blocks behind it.
    pub(super) fn old_gnu_map(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>)> {
        let bytes = *header.as_bytes();
        let bad = || Failure::new("the archive holds a malformed map of a file with holes");
        let real = number(&bytes[483..495]).and_then(|n| u64::try_from(n).ok());
        let mut map = Vec::new();
        let mut more = bytes[482] != 0;
        stretches(&bytes[386..482], &mut map).ok_or_else(bad)?;
        while more {
            let mut block = [0; BLOCK];
            self.exactly(&mut block)?;
            stretches(&block[..504], &mut map).ok_or_else(bad)?;
            more = block[504] != 0;
        }
        Ok((real.ok_or_else(bad)?, map))
    }

    /// The map of format 1.0: lines of text in front of the data, filled up to whole blocks.
    pub(super) fn map_in_front(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let mut left = None;
        let mut offset = None;
        let mut digits = Vec::new();
        let mut block = [0; BLOCK];
        while left != Some(0) {
            if self.data < BLOCK as u64 {
                return Err(self.damaged("a cut map of a file with holes"));
            }
            self.exactly(&mut block)?;
            self.data -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(self.damaged("a malformed map of a file with holes"));
                    }
                    continue;
                }
                let number = decimal(&digits)
                    .ok_or_else(|| self.damaged("a malformed map of a file with holes"))?;
                digits.clear();
                match (left, offset.take()) {
                    (None, _) if number > SEGMENTS_MAX as u64 => {
                        return Err(self.damaged("a file with too many holes"));
                    }
                    (None, _) => left = Some(number),
                    (Some(_), None) => offset = Some(number),
                    (Some(n), Some(offset)) => {
                        map.push((offset, number));
                        left = Some(n - 1);
                    }
                }
                if left == Some(0) {
                    break;
                }
            }
        }
        Ok(map)
    }

    pub(super) fn check_map(&self, map: &[(u64, u64)], size: u64) -> Result<()> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        let mut good = map.len() <= SEGMENTS_MAX;
        for (offset, len) in map {
            good &= *offset >= end;
            end = offset.saturating_add(*len);
            sum = sum.saturating_add(*len);
        }
        if good && end <= size && sum == self.data {
            Ok(())
        } else {
            Err(self.damaged("a map of a file with holes that does not fit its data"))
        }
    }
}

fn stretches(mut fields: &[u8], map: &mut Vec<(u64, u64)>) -> Option<()> {
    while let Some((stretch, rest)) = fields.split_at_checked(24) {
        fields = rest;
        if stretch[0] == 0 {
            continue;
        }
        let offset = u64::try_from(number(&stretch[..12])?).ok()?;
        let len = u64::try_from(number(&stretch[12..])?).ok()?;
        if map.len() >= SEGMENTS_MAX {
            return None;
        }
        map.push((offset, len));
    }
    Some(())
}
