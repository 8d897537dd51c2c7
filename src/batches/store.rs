//! What is known of files and batches, in SQLite: every question is asked on one thread that is there for nothing else.
//!
//! Other processes may have the same database open, in an upgrade or for good: whatever reads before it writes is one
//! transaction.

use std::fmt;
use std::io;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::params;
use rusqlite::types::Type;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::limits;
use super::record::Batch;
use super::record::FileRecord;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS files (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
        filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS files_of_owner ON files (owner, seq);
    CREATE TABLE IF NOT EXISTS batches (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
        input TEXT NOT NULL, is_over INTEGER NOT NULL, record TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS batches_of_owner ON batches (owner, seq);
    CREATE INDEX IF NOT EXISTS batches_left ON batches (is_over, seq);
";
/// Version of what stands in the database.
const VERSION: i64 = 1;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum StoreError {
    /// The database failed.
    Database(rusqlite::Error),
    /// Nobody is there to ask.
    Gone,
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => write!(formatter, "{error}"),
            Self::Gone => formatter.write_str("the database's thread has ended"),
        }
    }
}

type Question = Box<dyn FnOnce(&mut Database) + Send>;

/// The way to the database.
#[derive(Clone)]
pub(super) struct Store(mpsc::Sender<Question>);

impl Store {
    /// Gives the database a thread.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn spawn(mut database: Database) -> io::Result<Self> {
        let (questions, mut inbox) = mpsc::channel::<Question>(limits::STORE_CALLS_QUEUED_MAX);
        std::thread::Builder::new().name("batches".to_owned()).spawn(move || {
            while let Some(question) = inbox.blocking_recv() {
                question(&mut database);
            }
        })?;
        Ok(Self(questions))
    }

    /// Asks the database.
    ///
    /// # Errors
    /// When it fails.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Database) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |database| {
            // Whoever asked may have left.
            let _ = reply.send(question(database));
        });
        self.0.send(question).await.map_err(|_| StoreError::Gone)?;
        answer.await.map_err(|_| StoreError::Gone)?.map_err(StoreError::Database)
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub(super) struct PageOf {
    pub(super) owner: String,
    /// The list goes on behind this id.
    pub(super) after: Option<String>,
    pub(super) limit: u64,
    pub(super) is_ascending: bool,
}

/// Why a row was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Files,
    Bytes,
    Batches,
    OwnersBatches,
}

/// What became of the wish to remove a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Yes,
    Unknown,
    /// This batch still needs it.
    Needed(String),
}

/// The database.
#[derive(Debug)]
pub(super) struct Database(Connection);

// === impl Database ===

impl Database {
    /// Opens it, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let said = |error: rusqlite::Error| error.to_string();
        let connection = Connection::open(path).map_err(said)?;
        connection.busy_timeout(limits::STORE_BUSY_TIMEOUT).map_err(said)?;
        // Readers do not wait for writers, and what was committed survives a loss of power.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(said)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(said)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(said)?;
        match version {
            0 => {
                connection.execute_batch(SCHEMA).map_err(said)?;
                connection.pragma_update(None, "user_version", VERSION).map_err(said)?;
            }
            VERSION => {}
            other => return Err(format!("its version is {other}, and this program knows {VERSION}")),
        }
        Ok(Self(connection))
    }

    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.0.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// Whether so many bytes more may be uploaded.
    pub(super) fn room(&self, bytes: u64) -> rusqlite::Result<Result<(), Full>> {
        room(&self.0, bytes)
    }

    /// Adds a file.
    pub(super) fn add_file(&mut self, file: &FileRecord) -> rusqlite::Result<Result<(), Full>> {
        let transaction = self.begin()?;
        let room = room(&transaction, file.bytes)?;
        if room.is_ok() {
            insert_file(&transaction, file)?;
            transaction.commit()?;
        }
        Ok(room)
    }

    /// The file of this id, if it is this owner's.
    pub(super) fn file(&self, id: &str, owner: &str) -> rusqlite::Result<Option<FileRecord>> {
        let sql = "SELECT * FROM files WHERE id = ?1 AND owner = ?2";
        self.0.prepare_cached(sql)?.query_row([id, owner], file_of).optional()
    }

    /// Files of an owner, one more than the page has if there are more.
    pub(super) fn files(&self, page: &PageOf, purpose: Option<&str>) -> rusqlite::Result<Vec<FileRecord>> {
        let (order, than, start) = direction(page.is_ascending);
        let sql = format!(
            "SELECT * FROM files WHERE owner = ?1 AND (?2 IS NULL OR purpose = ?2)
             AND seq {than} COALESCE((SELECT seq FROM files WHERE id = ?3 AND owner = ?1), {start})
             ORDER BY seq {order} LIMIT ?4"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(params![page.owner, purpose, page.after, page.limit + 1], file_of)?;
        rows.collect()
    }

    /// Removes a file of an owner, if no batch needs it.
    pub(super) fn remove_file(&mut self, id: &str, owner: &str) -> rusqlite::Result<Removed> {
        let transaction = self.begin()?;
        let needed: Option<String> = transaction
            .query_row(
                "SELECT id FROM batches WHERE is_over = 0 AND input = ?1 AND owner = ?2",
                [id, owner],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(batch) = needed {
            return Ok(Removed::Needed(batch));
        }
        let removed = transaction.execute("DELETE FROM files WHERE id = ?1 AND owner = ?2", [id, owner])?;
        transaction.commit()?;
        Ok(if removed == 0 { Removed::Unknown } else { Removed::Yes })
    }

    /// Adds a batch, and forgets the oldest ones that are over if there are too many.
    pub(super) fn add_batch(&mut self, batch: &Batch) -> rusqlite::Result<Result<(), Full>> {
        let transaction = self.begin()?;
        let count = |sql: &str, values: &[&str]| -> rusqlite::Result<u64> {
            transaction.query_row(sql, rusqlite::params_from_iter(values), |row| row.get(0))
        };
        if count("SELECT COUNT(*) FROM batches WHERE is_over = 0", &[])? >= limits::BATCHES_QUEUED_MAX {
            return Ok(Err(Full::Batches));
        }
        let of_owner = "SELECT COUNT(*) FROM batches WHERE is_over = 0 AND owner = ?1";
        if count(of_owner, &[&batch.owner])? >= limits::BATCHES_QUEUED_PER_OWNER_MAX {
            return Ok(Err(Full::OwnersBatches));
        }
        let kept = count("SELECT COUNT(*) FROM batches", &[])?;
        transaction.execute(
            "DELETE FROM batches WHERE seq IN (SELECT seq FROM batches WHERE is_over = 1 ORDER BY seq LIMIT ?1)",
            [(kept + 1).saturating_sub(limits::BATCHES_KEPT_MAX)],
        )?;
        transaction.execute(
            "INSERT INTO batches (id, owner, input, is_over, record) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![batch.id, batch.owner, batch.input_file_id, batch.status.is_over(), written(batch)?],
        )?;
        transaction.commit()?;
        Ok(Ok(()))
    }

    /// The batch of this id, whoever's it is.
    pub(super) fn batch(&self, id: &str) -> rusqlite::Result<Option<Batch>> {
        batch(&self.0, id)
    }

    /// Batches of an owner, one more than the page has if there are more.
    pub(super) fn batches(&self, page: &PageOf) -> rusqlite::Result<Vec<Batch>> {
        let (order, than, start) = direction(page.is_ascending);
        let sql = format!(
            "SELECT record FROM batches WHERE owner = ?1
             AND seq {than} COALESCE((SELECT seq FROM batches WHERE id = ?2 AND owner = ?1), {start})
             ORDER BY seq {order} LIMIT ?3"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(params![page.owner, page.after, page.limit + 1], batch_of)?;
        rows.collect()
    }

    /// Batches that are not over, oldest first.
    pub(super) fn batches_left(&self) -> rusqlite::Result<Vec<Batch>> {
        let sql = "SELECT record FROM batches WHERE is_over = 0 ORDER BY seq LIMIT ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        statement.query_map([limits::BATCHES_QUEUED_MAX], batch_of)?.collect()
    }

    /// Changes a batch, and adds the files it wrote. Returns it as it is then; none if it is gone.
    pub(super) fn update<T>(
        &mut self,
        id: &str,
        files: &[FileRecord],
        change: impl FnOnce(&mut Batch) -> T,
    ) -> rusqlite::Result<Option<(Batch, T)>> {
        let transaction = self.begin()?;
        let Some(mut batch) = batch(&transaction, id)? else { return Ok(None) };
        let changed = change(&mut batch);
        transaction.execute(
            "UPDATE batches SET is_over = ?2, record = ?3 WHERE id = ?1",
            params![id, batch.status.is_over(), written(&batch)?],
        )?;
        for file in files {
            insert_file(&transaction, file)?;
        }
        transaction.commit()?;
        Ok(Some((batch, changed)))
    }

    /// Forgets a batch of an owner that is over.
    pub(super) fn remove_batch(&mut self, id: &str) -> rusqlite::Result<bool> {
        Ok(self.0.execute("DELETE FROM batches WHERE id = ?1 AND is_over = 1", [id])? > 0)
    }

    /// Whether a file of this id is known.
    pub(super) fn has_file(&self, id: &str) -> rusqlite::Result<bool> {
        self.0.prepare_cached("SELECT 1 FROM files WHERE id = ?1")?.exists([id])
    }
}

/// The order of a list, how its rows compare with the one it goes on behind, and what stands before all of them.
fn direction(is_ascending: bool) -> (&'static str, &'static str, i64) {
    if is_ascending { ("ASC", ">", 0) } else { ("DESC", "<", i64::MAX) }
}

fn room(connection: &Connection, bytes: u64) -> rusqlite::Result<Result<(), Full>> {
    let (files, kept): (u64, u64) = connection
        .prepare_cached("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM files")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(if files >= limits::FILES_MAX {
        Err(Full::Files)
    } else if kept.saturating_add(bytes) > limits::FILES_BYTES_MAX {
        Err(Full::Bytes)
    } else {
        Ok(())
    })
}

fn insert_file(connection: &Connection, file: &FileRecord) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO files (id, owner, filename, purpose, bytes, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![file.id, file.owner, file.filename, file.purpose, file.bytes, file.created_at],
    )?;
    Ok(())
}

fn batch(connection: &Connection, id: &str) -> rusqlite::Result<Option<Batch>> {
    connection
        .prepare_cached("SELECT record FROM batches WHERE id = ?1")?
        .query_row([id], batch_of)
        .optional()
}

fn file_of(row: &Row<'_>) -> rusqlite::Result<FileRecord> {
    Ok(FileRecord {
        id: row.get("id")?,
        owner: row.get("owner")?,
        filename: row.get("filename")?,
        purpose: row.get("purpose")?,
        bytes: row.get("bytes")?,
        created_at: row.get("created_at")?,
    })
}

fn batch_of(row: &Row<'_>) -> rusqlite::Result<Batch> {
    let record: String = row.get(0)?;
    serde_json::from_str(&record)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn written(batch: &Batch) -> rusqlite::Result<String> {
    serde_json::to_string(batch).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::super::record::Ending;
    use super::super::record::PURPOSE_BATCH;
    use super::super::record::new_id;
    use super::*;

    fn database() -> Database {
        Database::open(Path::new(":memory:")).expect("memory")
    }

    fn file(owner: &str, bytes: u64) -> FileRecord {
        FileRecord {
            id: new_id("file-"),
            owner: owner.to_owned(),
            filename: "a.jsonl".to_owned(),
            purpose: PURPOSE_BATCH.to_owned(),
            bytes,
            created_at: 7,
        }
    }

    fn page(after: Option<&str>, limit: u64, is_ascending: bool) -> PageOf {
        PageOf { owner: "key:a".to_owned(), after: after.map(str::to_owned), limit, is_ascending }
    }

    #[test]
    fn files_are_their_owners() {
        let mut database = database();
        let (ours, theirs) = (file("key:a", 1), file("", 2));
        for file in [&ours, &theirs] {
            assert_eq!(database.add_file(file).expect("memory"), Ok(()));
        }
        assert_eq!(database.file(&ours.id, "key:a").expect("memory").as_ref(), Some(&ours));
        assert_eq!(database.file(&ours.id, "").expect("memory"), None);
        assert_eq!(database.remove_file(&theirs.id, "key:a").expect("memory"), Removed::Unknown);
        assert_eq!(
            database.files(&page(None, 10, false), None).expect("memory"),
            std::slice::from_ref(&ours)
        );
        assert_eq!(database.files(&page(None, 10, false), Some("x")).expect("memory"), []);
        assert_eq!(database.remove_file(&ours.id, "key:a").expect("memory"), Removed::Yes);
        assert!(
            !database.has_file(&ours.id).expect("memory") && database.has_file(&theirs.id).expect("memory")
        );
    }

    #[test]
    fn pages_follow_each_other() {
        let mut database = database();
        let files: Vec<_> = (0..5).map(|at| file("key:a", at)).collect();
        for file in &files {
            assert_eq!(database.add_file(file).expect("memory"), Ok(()));
        }
        for is_ascending in [true, false] {
            let mut seen = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let mut found =
                    database.files(&page(after.as_deref(), 2, is_ascending), None).expect("memory");
                let has_more = found.len() == 3;
                found.truncate(2);
                seen.extend(found);
                after = seen.last().map(|file| file.id.clone());
                if !has_more {
                    break;
                }
            }
            if !is_ascending {
                seen.reverse();
            }
            assert_eq!(seen, files);
        }
    }

    #[test]
    fn bytes_are_bounded() {
        let mut database = database();
        assert_eq!(database.add_file(&file("", limits::FILES_BYTES_MAX - 1)).expect("memory"), Ok(()));
        assert_eq!(database.room(1).expect("memory"), Ok(()));
        assert_eq!(database.add_file(&file("", 2)).expect("memory"), Err(Full::Bytes));
    }

    #[test]
    fn batches_that_wait_are_bounded_by_owner() {
        let mut database = database();
        let of = |owner: &str| Batch { owner: owner.to_owned(), ..record::tests::batch() };
        for _ in 0..limits::BATCHES_QUEUED_PER_OWNER_MAX {
            assert_eq!(database.add_batch(&of("key:a")).expect("memory"), Ok(()));
        }
        assert_eq!(database.add_batch(&of("key:a")).expect("memory"), Err(Full::OwnersBatches));
        assert_eq!(database.add_batch(&of("key:b")).expect("memory"), Ok(()));
        assert_eq!(database.batches(&page(None, 100, false)).expect("memory").len(), 101);
    }

    #[test]
    fn a_batch_is_changed_as_a_whole_and_keeps_its_input() {
        let mut database = database();
        let (input, output) = (file("", 1), file("", 2));
        let batch = Batch { input_file_id: input.id.clone(), ..record::tests::batch() };
        assert_eq!(database.add_file(&input).expect("memory"), Ok(()));
        assert_eq!(database.add_batch(&batch).expect("memory"), Ok(()));
        assert_eq!(database.remove_file(&input.id, "").expect("memory"), Removed::Needed(batch.id.clone()));
        assert!(!database.remove_batch(&batch.id).expect("memory"), "it is not over");
        let finished = database.update(&batch.id, std::slice::from_ref(&output), |batch| {
            batch.begin(1, 2);
            batch.finalize(Ending::Completed, 3);
            batch.finish(Some(output.id.clone()), None, 4);
        });
        let (finished, ()) = finished.expect("memory").expect("it is there");
        assert_eq!(database.batch(&batch.id).expect("memory"), Some(finished));
        assert!(database.has_file(&output.id).expect("memory"));
        assert!(database.batches_left().expect("memory").is_empty());
        assert_eq!(database.remove_file(&input.id, "").expect("memory"), Removed::Yes);
        assert!(database.remove_batch(&batch.id).expect("memory"));
        assert!(database.update(&batch.id, &[], |_| ()).expect("memory").is_none());
    }
}
