//! One batch, worked off: its input is checked, its requests are made some at a time, its results are put in their
//! places.
//!
//! Invariants
//! - A request whose result the disk has is not made again, whatever becomes of the process.
//! - A job ends when the process does, with what is under way, and goes on in the next one.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info;
use tracing::warn;

use super::Service;
use super::gateway::Asked;
use super::gateway::Asker;
use super::limits;
use super::lines;
use super::lines::Line;
use super::lines::Lines;
use super::lines::Outcome;
use super::record::Batch;
use super::record::Counts;
use super::record::Ending;
use super::record::Fault;
use super::record::FileRecord;
use super::record::PURPOSE_OUTPUT;
use super::record::Status;
use super::results::Results;
use super::store::StoreError;
use super::unix_s;

/// What keeps a job from going on: it is begun again later.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(StoreError),
    Disk(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(formatter, "the database: {error}"),
            Self::Disk(error) => write!(formatter, "the disk: {error}"),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// How the requests of a batch ended, if they did.
enum Made {
    All(Ending),
    Failed(Fault),
    /// The process ends.
    Left,
}

/// Works a batch off, from wherever it stands.
///
/// # Errors
/// When disk or database do not do what they should.
pub(super) async fn run(service: &Rc<Service>, id: &str, cancelled: &Notify) -> Result<(), Trouble> {
    let Some(mut batch) = service.batch(id).await? else { return Ok(()) };
    if batch.status == Status::Validating {
        match begin(service, &batch).await? {
            Some(begun) => batch = begun,
            None => return Ok(()),
        }
    }
    let has_begun = batch.times.in_progress_at.is_some();
    if batch.ending.is_none() && has_begun {
        match make_all(service, &mut batch, cancelled).await? {
            Made::Left => return Ok(()),
            Made::All(ending) => {
                let counts = batch.counts;
                service
                    .update(id, move |batch| (batch.counts = counts, batch.finalize(ending, unix_s())))
                    .await?;
            }
            Made::Failed(fault) => {
                let counts = batch.counts;
                let fail = move |batch: &mut Batch| {
                    batch.counts = counts;
                    batch.fail(vec![fault], unix_s());
                };
                service.update(id, fail).await?;
            }
        }
    }
    finish(service, &batch).await
}

/// Checks the input, and says so; none if the batch is over with that.
async fn begin(service: &Rc<Service>, batch: &Batch) -> Result<Option<Batch>, Trouble> {
    let (path, endpoint) = (service.folder.file(&batch.input_file_id), batch.endpoint.clone());
    let checked = blocking(move || lines::check(File::open(path)?, &endpoint)).await;
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(vec![input_gone()]),
        Err(error) => return Err(error.into()),
    };
    let begin = move |batch: &mut Batch| match checked {
        Ok(total) => {
            batch.begin(total, unix_s());
        }
        Err(faults) => {
            batch.fail(faults, unix_s());
            batch.finish(None, None, unix_s());
        }
    };
    let begun = service.update(&batch.id, begin).await?;
    if let Some(batch) = &begun {
        let (id, requests) = (&batch.id, batch.counts.total);
        info!(id, status = batch.status.name(), requests, "the input of a batch was checked");
    }
    Ok(begun.filter(|batch| !batch.status.is_over()))
}

fn input_gone() -> Fault {
    Fault::new("file_not_found", "the input file is gone")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The requests of a batch on their way.
struct Making<'a> {
    service: &'a Rc<Service>,
    batch: &'a mut Batch,
    results: Results,
    /// What is left of the input; none at its end, or while it is being read.
    input: Option<Lines<File>>,
    ahead: VecDeque<Line>,
    asked: JoinSet<(Rc<Line>, Asked)>,
    /// When the oldest result came that is not written.
    waiting_since: Option<Instant>,
    /// The counts that everybody can see, and since when.
    told: (Counts, Instant),
}

/// Makes every request whose result is not known, until all are made or something ends the batch.
async fn make_all(service: &Rc<Service>, batch: &mut Batch, cancelled: &Notify) -> Result<Made, Trouble> {
    let (folder, ids) = (service.folder.clone(), batch.results.clone());
    let results = blocking(move || Results::open(&folder, &ids)).await?;
    let told = (batch.counts, Instant::now());
    // What a process before this one wrote last, it may not have counted.
    batch.counts = Counts { completed: results.completed, failed: results.failed, ..batch.counts };
    let path = service.folder.file(&batch.input_file_id);
    let input = match blocking(move || lines::open(&path)).await {
        Ok(input) => input,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Made::Failed(input_gone())),
        Err(error) => return Err(error.into()),
    };
    let asker = Rc::new(Asker::of(batch, service.credentials(&batch.id).as_ref()));
    let mut making = Making {
        service,
        batch,
        results,
        input: Some(input),
        ahead: VecDeque::new(),
        asked: JoinSet::new(),
        waiting_since: None,
        told,
    };
    let made = making.make(&asker, cancelled).await;
    // Whatever is under way is broken off.
    making.asked.abort_all();
    let made = match made {
        Err(Trouble::Disk(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Ok(Made::Failed(Fault::new("file_changed", error.to_string())))
        }
        made => made,
    };
    making.write().await?;
    match made? {
        Made::All(Ending::Expired) => {
            let late = "the request was not made before the batch expired";
            making.give_up("batch_expired", late).await?;
            Ok(Made::All(Ending::Expired))
        }
        Made::All(Ending::Cancelled) => {
            let why = "the batch was cancelled before the request was made";
            making.give_up("batch_cancelled", why).await?;
            Ok(Made::All(Ending::Cancelled))
        }
        made => Ok(made),
    }
}

impl Making<'_> {
    async fn make(&mut self, asker: &Rc<Asker>, cancelled: &Notify) -> Result<Made, Trouble> {
        loop {
            if self.batch.status == Status::Cancelling {
                return Ok(Made::All(Ending::Cancelled));
            }
            let left = Duration::from_secs(self.batch.times.expires_at.saturating_sub(unix_s()));
            if left.is_zero() {
                return Ok(Made::All(Ending::Expired));
            }
            let is_running = self.service.gateway.is_running();
            if is_running {
                self.read_ahead().await?;
                self.ask_more(asker);
            }
            if self.asked.is_empty() {
                self.write().await?;
                if !is_running {
                    return Ok(Made::Left);
                }
                if self.input.is_none() && self.ahead.is_empty() {
                    return Ok(Made::All(Ending::Completed));
                }
                continue;
            }
            let untold = if self.told.0 == self.batch.counts {
                limits::LOOK_INTERVAL
            } else {
                limits::COUNTS_INTERVAL
            };
            let write_at = self
                .waiting_since
                .map_or(untold, |since| limits::WRITE_INTERVAL.saturating_sub(since.elapsed()));
            tokio::select! {
                biased;
                () = cancelled.notified() => {
                    if let Some(batch) = self.service.batch(&self.batch.id).await? {
                        self.batch.status = batch.status;
                    }
                }
                Some(asked) = self.asked.join_next() => {
                    // A request of which nothing is known is made again, by the next job of this batch.
                    let (line, asked) = asked.map_err(io::Error::other)?;
                    if let Some(fault) = self.take(&line, asked) {
                        return Ok(Made::Failed(fault));
                    }
                    let is_due =
                        self.waiting_since.is_some_and(|since| since.elapsed() >= limits::WRITE_INTERVAL);
                    if is_due || self.results.pending_bytes() >= limits::WRITE_BYTES_MAX {
                        self.write().await?;
                    }
                }
                () = tokio::time::sleep(write_at.min(left)) => self.write().await?,
            }
        }
    }

    /// Reads more of the input when there is nothing left to ask.
    async fn read_ahead(&mut self) -> Result<(), Trouble> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let Some(mut input) = self.input.take() else { return Ok(()) };
        let endpoint = self.batch.endpoint.clone();
        let done = std::mem::take(&mut self.results.done);
        let read = blocking(move || {
            let ahead = input.ahead(&endpoint, &done);
            Ok((input, done, ahead))
        });
        let (input, done, ahead) = read.await?;
        self.results.done = done;
        self.ahead = ahead?.into();
        self.input = (!self.ahead.is_empty()).then_some(input);
        Ok(())
    }

    fn ask_more(&mut self, asker: &Rc<Asker>) {
        while self.asked.len() < limits::LINES_PARALLEL_PER_BATCH
            && let Some(line) = self.ahead.pop_front()
        {
            let (gateway, asker, line) = (Rc::clone(&self.service.gateway), Rc::clone(asker), Rc::new(line));
            self.asked.spawn_local(async move {
                let asked = gateway.ask(asker, Rc::clone(&line)).await;
                (line, asked)
            });
        }
    }

    /// Takes what came of a request; a fault is one of the whole batch.
    fn take(&mut self, line: &Line, asked: Asked) -> Option<Fault> {
        match asked {
            Asked::Over(outcome) => {
                self.results.push(line.custom_id.clone(), &outcome);
                self.waiting_since.get_or_insert_with(Instant::now);
                None
            }
            Asked::Refused(fault) => Some(fault),
            Asked::Left => None,
        }
    }

    /// Brings results to the disk, however long it has no room, and now and then says how many there are.
    async fn write(&mut self) -> Result<(), Trouble> {
        while let Err(error) = self.results.write().await {
            warn!(%error, id = self.batch.id, "results of a batch cannot be written: trying again");
            tokio::time::sleep(limits::STORAGE_PAUSE).await;
            if !self.service.gateway.is_running() {
                return Err(error.into());
            }
        }
        self.waiting_since = None;
        let counts =
            Counts { completed: self.results.completed, failed: self.results.failed, ..self.batch.counts };
        self.batch.counts = counts;
        let (told, since) = self.told;
        if told != counts && since.elapsed() >= limits::COUNTS_INTERVAL {
            self.told = (counts, Instant::now());
            let updated = self.service.update(&self.batch.id, move |batch| batch.counts = counts).await?;
            if let Some(batch) = updated {
                self.batch.status = batch.status;
            }
        }
        Ok(())
    }

    /// Writes for every request that was not made why.
    async fn give_up(&mut self, code: &'static str, why: &str) -> Result<(), Trouble> {
        let path = self.service.folder.file(&self.batch.input_file_id);
        // An input that is gone by now has nothing to tell.
        self.input = blocking(move || lines::open(&path)).await.ok();
        self.ahead.clear();
        loop {
            self.read_ahead().await?;
            if self.ahead.is_empty() {
                return Ok(());
            }
            for line in std::mem::take(&mut self.ahead) {
                self.results.push(line.custom_id, &Outcome::Failed { code, message: why.to_owned() });
            }
            self.write().await?;
        }
    }
}

/// Puts the results in their places. To be repeated at will.
async fn finish(service: &Rc<Service>, batch: &Batch) -> Result<(), Trouble> {
    let (folder, ids) = (service.folder.clone(), batch.results.clone());
    let published = blocking(move || Ok((folder.publish(&ids.output)?, folder.publish(&ids.errors)?)));
    let (output, errors) = published.await?;
    let file = |id: &str, what: &str, bytes: Option<u64>| {
        Some(FileRecord {
            id: id.to_owned(),
            owner: batch.owner.clone(),
            filename: format!("{}_{what}.jsonl", batch.id),
            purpose: PURPOSE_OUTPUT.to_owned(),
            bytes: bytes?,
            created_at: unix_s(),
        })
    };
    let output = file(&batch.results.output, "output", output);
    let errors = file(&batch.results.errors, "error", errors);
    let ids = [&output, &errors].map(|file| file.as_ref().map(|file| file.id.clone()));
    let files: Vec<_> = output.into_iter().chain(errors).collect();
    let id = batch.id.clone();
    let finish = move |batch: &mut Batch| {
        let [output, errors] = ids;
        batch.finish(output, errors, unix_s());
    };
    let finished = service.store.ask(move |database| database.update(&id, &files, finish)).await?;
    if let Some((batch, ())) = finished {
        let counts = batch.counts;
        info!(
            id = batch.id,
            status = batch.status.name(),
            completed = counts.completed,
            failed = counts.failed,
            total = counts.total,
            "a batch is over"
        );
    }
    Ok(())
}
