//! Lines on their way to an output: appended by whoever logs, written by a thread of their own, many at a time.
//!
//! A line costs whoever logs a copy into a buffer. The first after a silence wakes the writer; those that come within
//! [`GATHER`] after a write wait for the next, so that a busy process makes few writes and wakes nobody for a line.

use std::io;
use std::io::Write;
use std::mem;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Least time between two writes.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes that may wait for an output that takes none. Lines beyond are dropped and counted.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A buffer that grew beyond this is given back.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Longest wait at the end for an output that takes nothing.
const END_WAIT: Duration = Duration::from_secs(1);

/// Where lines are appended.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<Shared>);

/// Keeps lines being written. Dropped, it has those written that wait.
#[derive(Debug)]
pub(super) struct Writing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is a first line, or an end.
    news: Condvar,
    /// The writer has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    /// Whether the writer looks by itself, and need not be woken.
    is_gathering: bool,
    is_over: bool,
    has_ended: bool,
}

impl Lines {
    /// Starts a thread that writes lines to `output`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn begin(output: impl Write + Send + 'static) -> io::Result<(Self, Writing)> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        thread::Builder::new().name("logs".to_owned()).spawn(move || shared.run(output))?;
        let writing = Writing(Arc::clone(&lines.0));
        Ok((lines, writing))
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Each write is a line of its own.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        if waiting.lines.len() + line.len() > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return Ok(line.len());
        }
        let wakes = waiting.lines.is_empty() && !waiting.is_gathering;
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if wakes {
            self.0.news.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is half done while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they come, until it is told that no more will.
    fn run(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        let mut waiting = self.lock();
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_over;
            waiting = self.news.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut waiting.lines, &mut batch);
            let dropped = mem::take(&mut waiting.dropped);
            waiting.is_gathering = true;
            drop(waiting);
            // An output that is gone has nobody to be told.
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            batch.shrink_to(KEPT_BYTES_MAX);
            if dropped > 0 {
                warn!(dropped, "log lines were dropped: the output took them too slowly");
            }
            let gathering = self.news.wait_timeout_while(self.lock(), GATHER, |waiting| !waiting.is_over);
            (waiting, _) = gathering.unwrap_or_else(PoisonError::into_inner);
            waiting.is_gathering = false;
            if waiting.is_over && waiting.lines.is_empty() {
                waiting.has_ended = true;
                return self.ended.notify_all();
            }
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.is_over = true;
        self.0.news.notify_one();
        let ended = self.0.ended.wait_timeout_while(waiting, END_WAIT, |waiting| !waiting.has_ended);
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that says what it is given, and takes it when it is told to.
    struct Gated {
        given: mpsc::Sender<Vec<u8>>,
        leave: mpsc::Receiver<()>,
    }

    impl Write for Gated {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let _ = self.given.send(lines.to_vec());
            let _ = self.leave.recv();
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Lines, Writing, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let ((given, seen), (go, leave)) = (mpsc::channel(), mpsc::channel());
        let (lines, writing) = Lines::begin(Gated { given, leave }).expect("a thread");
        (lines, writing, seen, go)
    }

    fn log(lines: &Lines, line: &str) {
        lines.make_writer().write_all(line.as_bytes()).expect("lines are always taken");
    }

    #[test]
    fn what_comes_during_a_write_is_written_at_once_and_in_order() {
        let (lines, writing, seen, go) = gated();
        log(&lines, "1\n");
        assert_eq!(seen.recv().as_deref(), Ok(&b"1\n"[..]));
        for line in ["2\n", "3\n", "4\n"] {
            log(&lines, line);
        }
        go.send(()).expect("it waits");
        assert_eq!(seen.recv().as_deref(), Ok(&b"2\n3\n4\n"[..]));
        log(&lines, "5\n");
        // All that waits is written before the end.
        drop(go);
        drop(writing);
        assert_eq!(seen.try_recv().as_deref(), Ok(&b"5\n"[..]));
    }

    #[test]
    fn an_output_that_takes_nothing_costs_lines_and_no_wait() {
        let (lines, writing, seen, go) = gated();
        log(&lines, "first\n");
        seen.recv().expect("it is at it");
        let long = "x".repeat(WAITING_BYTES_MAX / 4 - 1) + "\n";
        for _ in 0..6 {
            log(&lines, &long);
        }
        let waiting = lines.0.lock();
        assert_eq!((waiting.lines.len(), waiting.dropped), (WAITING_BYTES_MAX, 2));
        drop(waiting);
        drop(go);
        assert_eq!(seen.recv().map(|written| written.len()), Ok(WAITING_BYTES_MAX));
        drop(writing);
        assert!(lines.0.lock().has_ended);
    }

    #[test]
    fn the_end_does_not_wait_for_an_output_for_ever() {
        let (lines, writing, seen, _go) = gated();
        log(&lines, "first\n");
        seen.recv().expect("it is at it");
        drop(writing);
        assert!(!lines.0.lock().has_ended, "it was not waited for");
    }
}
