//! zstd: one frame with a content checksum, compressed by worker threads.
//!
//! The promise: `zstd -d` reads it, and a frame that was cut or changed does not decode cleanly.
//! Frames of others, also several in a row, are read whole; a frame that wants a window of more
//! than 128 MiB (`zstd --ultra --long=28` and up) is refused by zstd's own limit.

use std::io::{self, BufRead, Read};
use std::ops::RangeInclusive;

use zstd::stream::raw::{CParameter, Encoder, Operation};
use zstd::zstd_safe::{InBuffer, OutBuffer};

use super::THREADS_MAX;
use super::open::blame;
use crate::failure::{Failure, OrFail, Result};

/// From 20 on zstd takes gigabytes on both sides, and readers refuse the window by default.
const LEVELS: RangeInclusive<i32> = 1..=19;
/// What a worker compresses at a time: half of zstd's own choice at level 1. A fifth less memory is
/// touched (by a backup's page faults) and less is left to do at the end, for the same size.
const JOB_BYTES: u32 = 1 << 20;
/// Room for what zstd has ready, made at every step.
const STEP_BYTES: usize = 128 << 10;

/// The writing side.
pub(super) struct Compressor(Encoder<'static>);

impl Compressor {
    pub(super) fn new(level: i32, threads: u32) -> Result<Self> {
        if !LEVELS.contains(&level) {
            return Err(
                Failure::new(format!("zstd compression level {level} is not supported"))
                    .hint("choose 1 (fast) to 19 (small)"),
            );
        }
        let threads = threads.min(THREADS_MAX as u32);
        let encoder = || -> io::Result<Encoder<'static>> {
            let mut encoder = Encoder::new(level)?;
            encoder.set_parameter(CParameter::ChecksumFlag(true))?;
            encoder.set_parameter(CParameter::NbWorkers(threads))?;
            if threads > 0 {
                encoder.set_parameter(CParameter::JobSize(JOB_BYTES))?;
            }
            Ok(encoder)
        };
        encoder()
            .map(Compressor)
            .or_fail(|| format!("cannot start zstd at level {level} on {threads} threads"))
    }

    /// Takes all of `piece`; appends what is ready.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            step(out, |room| self.0.run(&mut input, room))?;
        }
        Ok(())
    }

    /// Appends one more piece of what is left; true when the frame is complete.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let left = step(out, |room| self.0.finish(room, true))?;
        Ok(left == 0)
    }
}

fn step(
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<usize> {
    out.reserve(STEP_BYTES);
    let end = out.len();
    run(&mut OutBuffer::around_pos(out, end))
        .map_err(|error| Failure::because("cannot compress with zstd", error).into_io())
}

/// The reading side: all frames up to the end of `stored`, at least one.
pub(super) struct Decompressor<R: BufRead> {
    decoder: zstd::stream::read::Decoder<'static, R>,
    begun: bool,
}

impl<R: BufRead> Decompressor<R> {
    pub(super) fn new(stored: R) -> Result<Self> {
        let decoder = zstd::stream::read::Decoder::with_buffer(stored)
            .or_fail(|| "cannot start zstd".to_owned())?;
        Ok(Decompressor {
            decoder,
            begun: false,
        })
    }

    pub(super) fn stored(&mut self) -> &mut R {
        self.decoder.get_mut()
    }

    fn step(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            // zstd's decoder takes no frame at all for a clean end.
            if self.decoder.get_mut().fill_buf()?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.begun = true;
        }
        self.decoder.read(buf)
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.step(buf).map_err(|error| blame("zstd", error))
    }
}
