//! What a batch writes: its answers and its errors, appended as they come, and read again after a restart.
//!
//! A result counts once the disk has it. What a crash leaves of a line is cut off, so its request is made again.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::folder;
use super::folder::Folder;
use super::limits;
use super::lines;
use super::lines::Outcome;
use super::record;

/// The results of a batch.
#[derive(Debug)]
pub(super) struct Results {
    output: Part,
    errors: Part,
    /// Requests whose results the disk has.
    pub(super) done: HashSet<Box<str>>,
    /// The same, of those that wait.
    waiting: Vec<Box<str>>,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

/// One of the two files.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    /// How much of it is good.
    len: u64,
    /// What is to be appended.
    pending: Vec<u8>,
}

impl Results {
    /// Opens the results of a batch, and reads what there is of them. It waits for the disk.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn open(folder: &Folder, ids: &record::Results) -> io::Result<Self> {
        let mut done = HashSet::new();
        let (output, completed) = Part::open(folder, &ids.output, &mut done)?;
        let (errors, failed) = Part::open(folder, &ids.errors, &mut done)?;
        Ok(Self { output, errors, done, waiting: Vec::new(), completed, failed })
    }

    /// Takes a result. It is not on the disk yet.
    pub(super) fn push(&mut self, custom_id: Box<str>, outcome: &Outcome) {
        let id = record::new_id("batch_req_");
        if outcome.is_success() {
            self.completed += 1;
            outcome.write(&id, &custom_id, &mut self.output.pending);
        } else {
            self.failed += 1;
            outcome.write(&id, &custom_id, &mut self.errors.pending);
        }
        self.waiting.push(custom_id);
    }

    /// Bytes that wait to be written.
    pub(super) fn pending_bytes(&self) -> usize {
        self.output.pending.len() + self.errors.pending.len()
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// When it does not take it. What waits goes on waiting.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        self.output.write().await?;
        self.errors.write().await?;
        self.done.extend(self.waiting.drain(..));
        Ok(())
    }
}

impl Part {
    fn open(folder: &Folder, id: &str, done: &mut HashSet<Box<str>>) -> io::Result<(Self, u64)> {
        let file = folder::open_part(&folder.part(id))?;
        let (len, lines) = scan(&file, done)?;
        file.set_len(len)?;
        Ok((Self { file: Arc::new(file), len, pending: Vec::new() }, lines))
    }

    async fn write(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (file, at, pending) = (Arc::clone(&self.file), self.len, std::mem::take(&mut self.pending));
        let written = tokio::task::spawn_blocking(move || {
            let written = file.write_all_at(&pending, at).and_then(|()| file.sync_data());
            (written, pending)
        });
        let (written, mut pending) = written.await.map_err(io::Error::other)?;
        match written {
            Ok(()) => {
                self.len += pending.len() as u64;
                pending.clear();
                self.pending = pending;
                Ok(())
            }
            Err(error) => {
                self.pending = pending;
                Err(error)
            }
        }
    }
}

/// How much of a file is whole lines, how many these are, and whose.
fn scan(file: impl Read, done: &mut HashSet<Box<str>>) -> io::Result<(u64, u64)> {
    let line_bytes_max = (limits::ANSWER_BYTES_MAX * 8) as u64;
    let mut input = BufReader::new(file);
    let (mut len, mut lines) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut input).take(line_bytes_max).read_until(b'\n', &mut line)?;
        let told = line.strip_suffix(b"\n").and_then(lines::told);
        // What a lost disk block left of the rest is not to be trusted either.
        let Some(custom_id) = told else { return Ok((len, lines)) };
        len += line.len() as u64;
        lines += 1;
        done.insert(custom_id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::tests::Temporary;
    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, request_id: "r".to_owned(), body: b"{}".to_vec() }
    }

    fn ids() -> record::Results {
        record::Results { output: "file-o".to_owned(), errors: "file-e".to_owned() }
    }

    #[test]
    fn results_are_found_again_and_torn_lines_are_not() {
        let (_kept, folder) = Temporary::folder();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut results = Results::open(&folder, &ids()).expect("a disk");
        results.push("a".into(), &answered(200));
        results.push("b".into(), &answered(400));
        assert!(results.done.is_empty() && results.pending_bytes() > 0);
        runtime.block_on(results.write()).expect("room");
        assert_eq!((results.done.len(), results.pending_bytes()), (2, 0));
        results.push("c".into(), &answered(200));
        runtime.block_on(results.write()).expect("room");
        let whole = std::fs::read(folder.part("file-o")).expect("it is there");
        for torn in 0..20 {
            std::fs::write(folder.part("file-o"), &whole[..whole.len() - torn]).expect("room");
            let again = Results::open(&folder, &ids()).expect("a disk");
            let expected = if torn == 0 { 2 } else { 1 };
            assert_eq!((again.completed, again.failed, again.done.len() as u64), (expected, 1, expected + 1));
        }
        let mut again = Results::open(&folder, &ids()).expect("a disk");
        again.push("c".into(), &answered(200));
        runtime.block_on(again.write()).expect("room");
        let text = std::fs::read_to_string(folder.part("file-o")).expect("text");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| lines::told(line.as_bytes()).is_some()));
    }
}
