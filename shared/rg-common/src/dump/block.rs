//! The compression of a custom archive's data: each table's and each large object's is one stream.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder as ZstdDecoder, Operation};

use crate::failure::{Failure, OrFail, Result};

/// Decompressed bytes are handed on in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// How all data of one archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Lz4,
    Zstd,
}

/// Decompresses one stream.
pub(super) enum Decoder {
    Raw,
    Gzip {
        stream: Decompress,
        state: Progress,
    },
    Zstd {
        stream: Box<ZstdDecoder<'static>>,
        state: Progress,
    },
    /// What cannot be decompressed is passed over.
    Blind,
}

/// How far a compressed stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing has come: some versions write nothing at all for no data.
    Untouched,
    Within,
    Ended,
}

impl Decoder {
    pub fn new(compression: Compression) -> Result<Self> {
        let state = Progress::Untouched;
        Ok(match compression {
            Compression::None => Decoder::Raw,
            Compression::Gzip => Decoder::Gzip {
                stream: Decompress::new(true),
                state,
            },
            Compression::Zstd => Decoder::Zstd {
                stream: Box::new(
                    ZstdDecoder::new().or_fail(|| "cannot start to decompress zstd".into())?,
                ),
                state,
            },
            Compression::Lz4 => Decoder::Blind,
        })
    }

    /// Decompresses a chunk and hands on what comes out. `out` is scratch memory.
    pub fn push(
        &mut self,
        mut chunk: &[u8],
        out: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Decoder::Raw => return each(chunk),
            Decoder::Blind => return Ok(()),
            Decoder::Gzip { .. } | Decoder::Zstd { .. } => out.resize(PIECE_BYTES, 0),
        }
        loop {
            let (read, written) = self.step(chunk, out)?;
            each(&out[..written])?;
            chunk = &chunk[read..];
            if chunk.is_empty() && written < PIECE_BYTES {
                return Ok(());
            }
            if read == 0 && written == 0 {
                return Err(Failure::new("compressed data go on behind their end"));
            }
        }
    }

    fn step(&mut self, chunk: &[u8], out: &mut [u8]) -> Result<(usize, usize)> {
        match self {
            Decoder::Raw | Decoder::Blind => Ok((chunk.len(), 0)),
            Decoder::Gzip {
                state: Progress::Ended,
                ..
            } => Ok((0, 0)),
            Decoder::Gzip { stream, state } => {
                let (read, written) = (stream.total_in(), stream.total_out());
                let status = stream
                    .decompress(chunk, out, FlushDecompress::None)
                    .or_fail(|| "the gzip data are damaged".into())?;
                *state = match status {
                    Status::StreamEnd => Progress::Ended,
                    Status::Ok | Status::BufError => Progress::Within,
                };
                Ok((
                    (stream.total_in() - read) as usize,
                    (stream.total_out() - written) as usize,
                ))
            }
            Decoder::Zstd { stream, state } => {
                if chunk.is_empty() && *state != Progress::Within {
                    return Ok((0, 0));
                }
                let status = stream
                    .run_on_buffers(chunk, out)
                    .or_fail(|| "the zstd data are damaged".into())?;
                *state = match status.remaining {
                    0 => Progress::Ended,
                    _ => Progress::Within,
                };
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }

    /// The stream's end in the archive: an error if it is not its end in itself.
    pub fn finish(&self) -> Result<()> {
        match self {
            Decoder::Gzip {
                state: Progress::Within,
                ..
            }
            | Decoder::Zstd {
                state: Progress::Within,
                ..
            } => Err(Failure::new("compressed data end before their time")),
            _ => Ok(()),
        }
    }
}
