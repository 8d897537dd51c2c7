//! Files and batches: requests that come as a file, are worked off in the background, and whose answers are a file.
//!
//! A shard hands calls over ([`fleet::batch`]); they are answered on the services thread. What is known stands in a
//! database with a thread of its own, disks are waited for on others. One process at a time works batches off, the one
//! that holds the lease of the directory; in an upgrade the old one lets go of it when its last request has ended.
//!
//! Invariants
//! - A path is made of ids of ours alone, and only of ids that are known.
//! - Credentials are in memory only. Where the gateway has keys, a batch shows a key of the process's own instead, and
//!   names its tenant, who must still have a key.

mod calls;
mod folder;
mod gateway;
mod job;
mod limits;
mod lines;
mod multipart;
mod record;
mod results;
mod store;
mod upload;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use fleet::batch::BATCH_CALLS_QUEUED_MAX;
use fleet::batch::BatchCall;
use fleet::batch::BatchRoad;
use fleet::cell::Lifecycle;
use fleet::secret::Secret;
use shard::ShardConfig;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::Failure;
use crate::config::batches::BatchConfig;
use crate::services::ExtraTask;
use crate::tls;

use self::folder::Folder;
use self::folder::Lease;
use self::gateway::Gateway;
use self::record::Batch;
use self::record::Status;
use self::store::Database;
use self::store::Store;
use self::store::StoreError;

/// What the requests of batches show; drawn once, and known to this process alone.
pub(crate) fn key() -> Secret {
    static KEY: LazyLock<Secret> =
        LazyLock::new(|| format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()).into());
    KEY.clone()
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The service, with its directory open and nobody at work yet.
pub(crate) struct Prepared {
    folder: Folder,
    store: Store,
    inbox: mpsc::Receiver<BatchCall>,
    parallel_max: usize,
    has_short_errors: bool,
}

/// What the service needs of the process.
pub(crate) struct Surroundings {
    /// Where the gateway listens.
    pub(crate) listen: SocketAddr,
    /// Its TLS towards clients, if it is on.
    pub(crate) tls: Option<Arc<tls::Server>>,
    pub(crate) settings: Arc<ArcSwap<ShardConfig>>,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

/// Opens the directory. To be called before anything listens: without it no batch could be taken.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn prepare(config: &BatchConfig) -> Result<(BatchRoad, Prepared), Failure> {
    let path = config.path.display();
    let unusable = |error: String| Failure::usage(format!("--file-storage-path {path}: {error}"));
    let folder = Folder::prepare(&config.path).map_err(|error| unusable(error.to_string()))?;
    let database =
        Database::open(&folder.database()).map_err(|error| unusable(format!("the database: {error}")))?;
    let store = Store::spawn(database).map_err(|error| unusable(error.to_string()))?;
    let (calls, inbox) = mpsc::channel(BATCH_CALLS_QUEUED_MAX);
    let road = BatchRoad::new(move |call| calls.try_send(call).is_ok());
    let parallel_max = config.connections_max.map_or(limits::LINES_PARALLEL_MAX, |connections_max| {
        limits::LINES_PARALLEL_MAX.min(connections_max.div_ceil(2))
    });
    let has_short_errors = config.has_short_errors;
    Ok((road, Prepared { folder, store, inbox, parallel_max, has_short_errors }))
}

impl Prepared {
    /// The task that serves.
    pub(crate) fn into_task(self, around: Surroundings) -> ExtraTask {
        Box::new(move || Box::pin(self.run(around)))
    }

    async fn run(self, around: Surroundings) {
        let Self { folder, store, inbox, parallel_max, has_short_errors } = self;
        let Surroundings { listen, tls, settings, lifecycle } = around;
        let gateway = match Gateway::new(listen, tls.as_ref(), settings, lifecycle, parallel_max) {
            Ok(gateway) => Rc::new(gateway),
            // Nobody takes calls from now on, which refuses them all.
            Err(error) => return error!(error, "no batches can be worked off"),
        };
        let service = Rc::new(Service {
            folder,
            store,
            gateway,
            has_short_errors,
            kept: RefCell::default(),
            news: Notify::new(),
            uploads: Arc::new(Semaphore::new(limits::UPLOADS_PARALLEL_MAX)),
        });
        tokio::join!(calls::answer_all(&service, inbox), service.work());
    }
}

/// The service of files and batches.
struct Service {
    folder: Folder,
    store: Store,
    gateway: Rc<Gateway>,
    has_short_errors: bool,
    /// Credentials of batches that are not over, and since when they are kept.
    kept: RefCell<HashMap<String, (Secret, Instant)>>,
    /// A batch was made or cancelled.
    news: Notify,
    /// Held by who writes an upload.
    uploads: Arc<Semaphore>,
}

/// A batch that is being worked off.
struct Job {
    owner: String,
    cancelled: Rc<Notify>,
    /// Whether it has been told that it is cancelled.
    is_told: bool,
}

impl Service {
    async fn batch(&self, id: &str) -> Result<Option<Batch>, StoreError> {
        let id = id.to_owned();
        self.store.ask(move |database| database.batch(&id)).await
    }

    /// Changes a batch, and returns it as it is then; none if it is gone.
    async fn update<T: Send + 'static>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Batch) -> T + Send + 'static,
    ) -> Result<Option<Batch>, StoreError> {
        let id = id.to_owned();
        let updated = self.store.ask(move |database| database.update(&id, &[], change)).await?;
        Ok(updated.map(|(batch, _)| batch))
    }

    fn credentials(&self, id: &str) -> Option<Secret> {
        self.kept.borrow().get(id).map(|(credentials, _)| credentials.clone())
    }

    /// Keeps the credentials of a batch that is about to be made.
    fn keep(&self, id: &str, credentials: Secret) {
        self.kept.borrow_mut().insert(id.to_owned(), (credentials, Instant::now()));
    }

    /// Batches that are not over. Credentials of the others are forgotten.
    async fn left(&self) -> Result<Vec<Batch>, StoreError> {
        let asked = Instant::now();
        let left = self.store.ask(|database| database.batches_left()).await?;
        let mut kept = self.kept.borrow_mut();
        if !kept.is_empty() {
            let ids: HashSet<&str> = left.iter().map(|batch| batch.id.as_str()).collect();
            kept.retain(|id, (_, since)| *since >= asked || ids.contains(id.as_str()));
        }
        drop(kept);
        Ok(left)
    }

    /// Works batches off as soon as no other process does, until this one ends.
    async fn work(self: &Rc<Self>) {
        let mut is_told = false;
        while self.gateway.is_running() {
            match self.folder.lease() {
                Ok(Some(lease)) => {
                    self.work_with(lease).await;
                    return self.gateway.close();
                }
                Ok(None) if !is_told => info!("another process works batches off: this one waits for it"),
                Ok(None) => {}
                Err(error) if !is_told => warn!(%error, "batches cannot be worked off: no lock can be had"),
                Err(_) => {}
            }
            is_told = true;
            if let Err(error) = self.left().await {
                warn!(%error, "the batches that are left cannot be read");
            }
            tokio::time::sleep(limits::LOOK_INTERVAL).await;
        }
    }

    async fn work_with(self: &Rc<Self>, _lease: Lease) {
        if let Err(error) = self.sweep().await {
            warn!(%error, "files that belong to nothing cannot be removed");
        }
        let mut jobs: HashMap<String, Job> = HashMap::new();
        let mut running = JoinSet::new();
        while self.gateway.is_running() || !running.is_empty() {
            match self.left().await {
                Ok(left) => {
                    for batch in &left {
                        if batch.status == Status::Cancelling
                            && let Some(job) = jobs.get_mut(&batch.id)
                            && !std::mem::replace(&mut job.is_told, true)
                        {
                            job.cancelled.notify_one();
                        }
                    }
                    while self.gateway.is_running()
                        && let Some(batch) = next(&left, &jobs)
                    {
                        let job =
                            Job { owner: batch.owner.clone(), cancelled: Rc::default(), is_told: false };
                        let (service, cancelled) = (Rc::clone(self), Rc::clone(&job.cancelled));
                        jobs.insert(batch.id.clone(), job);
                        running.spawn_local(service.run_job(batch.id.clone(), cancelled));
                    }
                }
                Err(error) => warn!(%error, "the batches that are left cannot be read"),
            }
            tokio::select! {
                () = self.news.notified() => {}
                Some(Ok(id)) = running.join_next(), if !running.is_empty() => {
                    jobs.remove(&id);
                }
                () = tokio::time::sleep(limits::LOOK_INTERVAL) => {}
            }
        }
    }

    /// Works a batch off as far as it goes, and returns its id.
    async fn run_job(self: Rc<Self>, id: String, cancelled: Rc<Notify>) -> String {
        let job = {
            let (service, id) = (Rc::clone(&self), id.clone());
            // In a task of its own, so that whatever becomes of it is heard of.
            tokio::task::spawn_local(async move { job::run(&service, &id, &cancelled).await })
        };
        let why = match job.await {
            Ok(Ok(())) => return id,
            Ok(Err(trouble)) => trouble.to_string(),
            Err(error) => error.to_string(),
        };
        warn!(why, id, "a batch cannot go on: trying again");
        tokio::time::sleep(limits::STORAGE_PAUSE).await;
        id
    }

    /// Removes what a crash has left: files that are not known, and parts of batches that are over.
    async fn sweep(&self) -> Result<(), String> {
        let folder = self.folder.clone();
        let old = tokio::task::spawn_blocking(move || folder.old_names()).await;
        let old = old.map_err(|error| error.to_string())?;
        let unknown = self.store.ask(move |database| {
            let left = database.batches_left()?;
            let needed: HashSet<String> =
                left.into_iter().flat_map(|batch| [batch.results.output, batch.results.errors]).collect();
            let mut unknown = HashSet::new();
            for name in old {
                if !needed.contains(&name) && !database.has_file(&name)? {
                    unknown.insert(name);
                }
            }
            Ok(unknown)
        });
        let unknown = unknown.await.map_err(|error| error.to_string())?;
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || folder.sweep(&unknown)).await.map_err(|error| error.to_string())
    }
}

/// Which batch is begun next: of the tenants with the fewest at work, the oldest. One that only has to be ended is not
/// kept waiting.
fn next<'a>(left: &'a [Batch], jobs: &HashMap<String, Job>) -> Option<&'a Batch> {
    let mut waiting = left.iter().filter(|batch| !jobs.contains_key(&batch.id));
    let at_work = |batch: &&Batch| jobs.values().filter(|job| job.owner == batch.owner).count();
    if jobs.len() < limits::BATCHES_RUNNING_MAX {
        return waiting.min_by_key(at_work);
    }
    let has_room = jobs.len() < 2 * limits::BATCHES_RUNNING_MAX;
    waiting.find(|batch| has_room && batch.status == Status::Cancelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(owner: &str, status: Status) -> Batch {
        Batch { owner: owner.to_owned(), status, ..record::tests::batch() }
    }

    #[test]
    fn tenants_take_turns_and_who_is_cancelled_does_not_wait() {
        let mut left: Vec<_> = (0..6).map(|_| batch("key:a", Status::Validating)).collect();
        left.push(batch("key:b", Status::Validating));
        left.push(batch("key:a", Status::Cancelling));
        let mut jobs = HashMap::new();
        let mut order = Vec::new();
        while let Some(batch) = next(&left, &jobs) {
            order.extend(left.iter().position(|other| other.id == batch.id));
            let job = Job { owner: batch.owner.clone(), cancelled: Rc::default(), is_told: false };
            jobs.insert(batch.id.clone(), job);
        }
        assert_eq!(order, [0, 6, 1, 2, 7]);
    }

    #[test]
    fn the_key_is_one_and_not_shown() {
        assert_eq!(key(), key());
        assert_eq!((key().len(), format!("{:?}", key())), (64, "***".to_owned()));
    }
}
