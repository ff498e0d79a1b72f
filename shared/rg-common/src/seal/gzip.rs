//! gzip: one member, compressed by worker threads.
//!
//! The promise: `gunzip`, `gzip -l` and readers that stop after the first member see all of it.
//! Blocks of the input are deflated side by side, each with the end of the one before as its
//! dictionary, each ended on a byte boundary (a sync flush), so that one after the other they are
//! one deflate stream (RFC 1951, 1952). Files of others are read whole, however many members.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Crc, FlushCompress, Status};

use super::THREADS_MAX;
use super::open::blame;
use crate::failure::{Failure, OrFail, Result};

/// What a worker deflates at a time.
const BLOCK_BYTES: usize = 512 << 10;
/// How far back deflate can refer.
const WINDOW_BYTES: usize = 32 << 10;
/// Blocks in work or done and not yet taken, for each worker.
const BLOCKS_PER_WORKER: usize = 2;
/// Room for what deflate adds to a block that it cannot make smaller.
const ROOM_BYTES: usize = 4 << 10;

/// No name, no time, so that the same content gives the same bytes; made on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// An empty last block with fixed codes.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// The writing side.
pub(super) struct Compressor {
    workers: Workers,
    /// What the next block may refer to, then the block as far as it came.
    block: Vec<u8>,
    dictionary: usize,
    begun: bool,
    crc: Crc,
    total: u64,
}

impl Compressor {
    pub(super) fn new(level: u32, threads: usize) -> Result<Self> {
        Compressor::with(level, threads, deflate)
    }

    fn with(level: u32, threads: usize, deflate: Deflate) -> Result<Self> {
        if level > 9 {
            return Err(
                Failure::new(format!("gzip has no compression level {level}"))
                    .hint("choose 1 (fast) to 9 (small); 6 is the usual"),
            );
        }
        let level = flate2::Compression::new(level);
        Ok(Compressor {
            workers: Workers::start(level, threads.clamp(1, THREADS_MAX), deflate)?,
            block: Vec::with_capacity(WINDOW_BYTES + BLOCK_BYTES),
            dictionary: 0,
            begun: false,
            crc: Crc::new(),
            total: 0,
        })
    }

    /// Takes all of `piece`; appends what is ready.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        while !piece.is_empty() {
            let room = self.dictionary + BLOCK_BYTES - self.block.len();
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.block.extend_from_slice(now);
            piece = later;
            if now.len() == room {
                self.submit(out)?;
            }
        }
        while let Some(block) = self.workers.ready()? {
            self.append(block, out);
        }
        Ok(())
    }

    /// Appends one more piece of what is left; true when the member is complete.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.block.len() > self.dictionary {
            self.submit(out)?;
        }
        if let Some(block) = self.workers.wait()? {
            self.append(block, out);
            return Ok(false);
        }
        self.begin(out);
        out.extend_from_slice(&LAST_BLOCK);
        out.extend_from_slice(&self.crc.sum().to_le_bytes());
        // The format keeps the size modulo 2^32.
        out.extend_from_slice(&(self.total as u32).to_le_bytes());
        Ok(true)
    }

    fn submit(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.workers.busy()
            && let Some(block) = self.workers.wait()?
        {
            self.append(block, out);
        }
        let mut next = Vec::with_capacity(WINDOW_BYTES + BLOCK_BYTES);
        next.extend_from_slice(&self.block[self.block.len().saturating_sub(WINDOW_BYTES)..]);
        let bytes = std::mem::replace(&mut self.block, next);
        let dictionary = std::mem::replace(&mut self.dictionary, self.block.len());
        self.total += (bytes.len() - dictionary) as u64;
        self.workers.submit(bytes, dictionary)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(&HEADER);
            self.begun = true;
        }
    }

    fn append(&mut self, block: Block, out: &mut Vec<u8>) {
        self.begin(out);
        out.extend_from_slice(&block.deflated);
        self.crc.combine(&block.crc);
    }
}

type Deflate = fn(&mut Compress, &[u8], &[u8]) -> io::Result<Block>;

struct Block {
    deflated: Vec<u8>,
    crc: Crc,
}

/// Deflates `plain`, which may refer to `dictionary`, up to a byte boundary.
fn deflate(compress: &mut Compress, dictionary: &[u8], plain: &[u8]) -> io::Result<Block> {
    compress.reset();
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary)?;
    }
    let mut deflated = Vec::with_capacity(plain.len() + ROOM_BYTES);
    loop {
        let taken = compress.total_in() as usize;
        let status = compress.compress_vec(&plain[taken..], &mut deflated, FlushCompress::Sync)?;
        let complete = compress.total_in() as usize == plain.len()
            && (deflated.len() < deflated.capacity() || status == Status::BufError);
        if complete {
            break;
        }
        deflated.reserve(ROOM_BYTES);
    }
    let mut crc = Crc::new();
    crc.update(plain);
    Ok(Block { deflated, crc })
}

struct Job {
    bytes: Vec<u8>,
    dictionary: usize,
    done: Sender<io::Result<Block>>,
}

/// A fixed number of threads and the blocks that they were given, in order. Dropping it waits for
/// the threads, each of which at most completes the blocks that were already submitted.
struct Workers {
    queue: Option<Sender<Job>>,
    submitted: VecDeque<Receiver<io::Result<Block>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(level: flate2::Compression, threads: usize, deflate: Deflate) -> Result<Self> {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut workers = Workers {
            queue: Some(queue),
            submitted: VecDeque::new(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let jobs = Arc::clone(&jobs);
            let thread = thread::Builder::new()
                .name("gzip".to_owned())
                .spawn(move || work(&jobs, level, deflate))
                .or_fail(|| format!("cannot start {threads} threads for gzip"))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    fn busy(&self) -> bool {
        self.submitted.len() >= self.threads.len() * BLOCKS_PER_WORKER
    }

    fn submit(&mut self, bytes: Vec<u8>, dictionary: usize) -> io::Result<()> {
        let (done, result) = channel();
        let job = Job {
            bytes,
            dictionary,
            done,
        };
        match self.queue.as_ref().map(|queue| queue.send(job)) {
            Some(Ok(())) => {
                self.submitted.push_back(result);
                Ok(())
            }
            _ => Err(died()),
        }
    }

    /// The oldest block, if it is done.
    fn ready(&mut self) -> io::Result<Option<Block>> {
        let Some(oldest) = self.submitted.front() else {
            return Ok(None);
        };
        match oldest.try_recv() {
            Ok(result) => {
                self.submitted.pop_front();
                result.map(Some)
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(died()),
        }
    }

    /// The oldest block, when it is done; nothing if none was submitted.
    fn wait(&mut self) -> io::Result<Option<Block>> {
        match self.submitted.pop_front() {
            Some(oldest) => oldest.recv().map_err(|_| died())?.map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.submitted.clear();
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A panic was reported by `wait`, or nobody wants the result any more.
            drop(thread.join());
        }
    }
}

fn died() -> io::Error {
    Failure::new("a thread that compresses with gzip died").into_io()
}

fn work(jobs: &Mutex<Receiver<Job>>, level: flate2::Compression, deflate: Deflate) {
    let mut compress = Compress::new(level, false);
    loop {
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let Ok(job) = job else { return };
        let (dictionary, plain) = job.bytes.split_at(job.dictionary);
        let result = deflate(&mut compress, dictionary, plain)
            .map_err(|error| Failure::because("cannot compress with gzip", error).into_io());
        if job.done.send(result).is_err() {
            return;
        }
    }
}

/// The reading side: all members up to the end of `stored`, at least one.
pub(super) struct Decompressor<R: BufRead>(MultiGzDecoder<R>);

impl<R: BufRead> Decompressor<R> {
    pub(super) fn new(stored: R) -> Self {
        Decompressor(MultiGzDecoder::new(stored))
    }

    pub(super) fn stored(&mut self) -> &mut R {
        self.0.get_mut()
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| blame("gzip", error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn close_all(mut compressor: Compressor, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for piece in plain.chunks(100_000) {
            compressor.push(piece, &mut out)?;
        }
        while !compressor.close(&mut out)? {}
        Ok(out)
    }

    #[test]
    fn a_worker_that_fails_or_panics_is_an_error_and_not_an_end() {
        let fails: Deflate = |_, _, _| Err(io::Error::other("no room"));
        let panics: Deflate = |_, _, _| panic!("a bug");
        let plain = vec![7; 5 * BLOCK_BYTES];
        for (deflate, message) in [
            (fails, "cannot compress with gzip: no room"),
            (panics, "a thread that compresses with gzip died"),
        ] {
            for length in [1, BLOCK_BYTES, plain.len()] {
                let compressor = Compressor::with(6, 2, deflate).unwrap();
                let error = close_all(compressor, &plain[..length]).unwrap_err();
                assert_eq!(Failure::from_io("", error).to_string(), message);
            }
        }
    }

    #[test]
    fn a_compressor_dropped_early_leaves_no_thread() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        struct Here;
        impl Drop for Here {
            fn drop(&mut self) {
                ENDED.fetch_add(1, Ordering::SeqCst);
            }
        }
        thread_local!(static HERE: Here = {
            SEEN.fetch_add(1, Ordering::SeqCst);
            Here
        });
        let counted: Deflate = |compress, dictionary, plain| {
            HERE.with(|_| ());
            deflate(compress, dictionary, plain)
        };
        let mut compressor = Compressor::with(1, 2, counted).unwrap();
        let mut out = Vec::new();
        compressor
            .push(&vec![7; 3 * BLOCK_BYTES], &mut out)
            .unwrap();
        drop(compressor);
        let seen = SEEN.load(Ordering::SeqCst);
        assert!(seen > 0);
        assert_eq!(ENDED.load(Ordering::SeqCst), seen);
    }

    #[test]
    fn what_cannot_be_made_smaller_hardly_grows() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(3 * BLOCK_BYTES + 5)
        .collect();
        let stored = close_all(Compressor::new(6, 2).unwrap(), &noise).unwrap();
        assert!(stored.len() < noise.len() + noise.len() / 1000);
        let mut back = Vec::new();
        Decompressor::new(&stored[..])
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == noise);
    }

    #[test]
    fn the_backend_is_zlib_rs() {
        let backend = format!("{:?}", Compress::new(flate2::Compression::new(6), false));
        assert!(backend.contains("zlib_rs"), "{backend}");
    }
}
