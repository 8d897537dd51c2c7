//! The directory of files and batches: where everything lies, and how files come and go without a moment in which half
//! of one is seen.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::limits;
use super::record::is_id;
use super::record::new_id;

/// Only the gateway's own user may look into files: prompts are in them.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What names of files begin with: uploaded, on their way, tried.
const PREFIXES: [&str; 3] = ["file-", UPLOAD, TRIAL];
const UPLOAD: &str = "upload-";
const TRIAL: &str = "trial-";

/// The directory. Names below it are made of ids of ours alone.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// The right to work batches off, which one process has at a time. Given back when dropped.
#[derive(Debug)]
pub(super) struct Lease(#[expect(dead_code, reason = "its lock is what counts")] File);

impl Folder {
    /// Makes what is missing of it, and tries whether it can be written to.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        let folder = Self(path.to_owned());
        for part in [folder.0.clone(), folder.files(), folder.work()] {
            fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(part)?;
        }
        let trial = folder.work().join(new_id(TRIAL));
        drop(create(&trial)?);
        fs::remove_file(trial)?;
        // SQLite gives the files beside it the same mode.
        drop(open_part(&folder.database())?);
        Ok(folder)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("batches.db")
    }

    fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Where a file lies.
    pub(super) fn file(&self, id: &str) -> PathBuf {
        self.files().join(id)
    }

    /// Where a batch writes what will be the file of this id.
    pub(super) fn part(&self, id: &str) -> PathBuf {
        self.work().join(id)
    }

    /// Writes a file under another name, and puts it in its place when the disk has all of it.
    ///
    /// # Errors
    /// When the disk does not take it; nothing is left of it then.
    pub(super) fn write(&self, id: &str, content: &[u8]) -> io::Result<()> {
        let aside = self.work().join(new_id(UPLOAD));
        let written = create(&aside).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
        let placed = written.and_then(|()| self.place(&aside, id));
        if placed.is_err() {
            // It may not even have been made.
            let _ = fs::remove_file(&aside);
        }
        placed
    }

    /// Puts a file that is complete in its place.
    fn place(&self, from: &Path, id: &str) -> io::Result<()> {
        fs::rename(from, self.file(id))?;
        File::open(self.files())?.sync_all()
    }

    /// Puts what a batch wrote in its place, and says how long it is; none if it wrote nothing. To be repeated at will.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn publish(&self, id: &str) -> io::Result<Option<u64>> {
        let part = self.part(id);
        match fs::metadata(&part) {
            Ok(found) if found.len() == 0 => fs::remove_file(part)?,
            Ok(_) => self.place(&part, id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match fs::metadata(self.file(id)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file.
    pub(super) fn remove(&self, id: &str) {
        if let Err(error) = fs::remove_file(self.file(id)) {
            tracing::warn!(%error, id, "a file that was deleted cannot be removed");
        }
    }

    /// Takes the right to work batches off; none while another process has it.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub(super) fn lease(&self) -> io::Result<Option<Lease>> {
        let options = fs::OpenOptions::new().write(true).create(true).mode(FILE_MODE).clone();
        let lock = options.open(self.0.join("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lease(lock))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What lies there and has not been touched for a while, by name: candidates for [`Folder::sweep`]. Names that are not
    /// of our making are somebody else's files.
    pub(super) fn old_names(&self) -> Vec<String> {
        let entries = [self.files(), self.work()].map(fs::read_dir);
        let entries = entries.into_iter().flatten().flatten().flatten();
        let is_old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|found| found.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            age.is_some_and(|age| age >= limits::ORPHAN_AGE)
        };
        let names = entries.filter(is_old).filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| PREFIXES.iter().any(|prefix| is_id(prefix, name))).collect()
    }

    /// Removes files of these names.
    pub(super) fn sweep(&self, names: &HashSet<String>) {
        for name in names {
            for path in [self.file(name), self.part(name)] {
                // It is in one of the two.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Opens a file to append to what it has.
pub(super) fn open_part(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;

    static NEXT: AtomicU32 = AtomicU32::new(0);

    /// A directory that is gone when the test is.
    #[derive(Debug)]
    pub(in super::super) struct Temporary(PathBuf);

    impl Temporary {
        pub(in super::super) fn folder() -> (Self, Folder) {
            let count = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("ringway-folder-{}-{count}", std::process::id()));
            let folder = Folder::prepare(&path).expect("a directory");
            (Self(path), folder)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_written_whole_and_removed() {
        let (_kept, folder) = Temporary::folder();
        folder.write("file-1", b"content").expect("room");
        assert_eq!(fs::read(folder.file("file-1")).expect("it is there"), b"content");
        assert_eq!(fs::read_dir(folder.work()).expect("a directory").count(), 0, "nothing is left aside");
        folder.remove("file-1");
        assert!(!folder.file("file-1").exists());
    }

    #[test]
    fn what_a_batch_wrote_is_published_once_or_again() {
        let (_kept, folder) = Temporary::folder();
        fs::write(folder.part("file-1"), b"1234").expect("room");
        fs::write(folder.part("file-2"), b"").expect("room");
        for _ in 0..2 {
            assert_eq!(folder.publish("file-1").expect("room"), Some(4));
            assert_eq!(folder.publish("file-2").expect("room"), None);
            assert_eq!(folder.publish("file-3").expect("room"), None);
        }
    }

    #[test]
    fn one_process_at_a_time_has_the_lease() {
        let (_kept, folder) = Temporary::folder();
        let lease = folder.lease().expect("a lock");
        assert!(lease.is_some() && folder.lease().expect("a lock").is_none());
        drop(lease);
        assert!(folder.lease().expect("a lock").is_some());
    }

    #[test]
    fn only_old_files_of_our_making_are_swept() {
        let (_kept, folder) = Temporary::folder();
        let [old, young] = [new_id("file-"), new_id("file-")];
        for name in [&*old, &young, "notes.txt", "file-1"] {
            folder.write(name, b"content").expect("room");
        }
        let before = std::time::SystemTime::now() - 2 * limits::ORPHAN_AGE;
        for name in [&*old, "notes.txt", "file-1"] {
            let file = fs::OpenOptions::new().write(true).open(folder.file(name)).expect("it is there");
            file.set_modified(before).expect("our own file");
        }
        assert_eq!(folder.old_names(), std::slice::from_ref(&old));
        folder.sweep(&HashSet::from([old.clone()]));
        assert!(!folder.file(&old).exists() && folder.file(&young).exists());
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused() {
        let (kept, folder) = Temporary::folder();
        folder.write("file-1", b"").expect("room");
        assert!(Folder::prepare(&kept.0.join("files/file-1")).is_err());
        assert!(folder.old_names().is_empty(), "nothing is old");
    }
}
