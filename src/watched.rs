//! A file that is watched: news of its directory, so that a file that is renamed over it and a link that is turned elsewhere
//! are seen at once, and a look every ten seconds, for file systems that tell nothing.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fs::inotify;
use rustix::fs::inotify::CreateFlags;
use rustix::fs::inotify::WatchFlags;
use tracing::warn;

use crate::documents;

/// Longest time until a change is seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A file and what it last was.
pub(crate) struct Watched {
    path: PathBuf,
    /// Its text, or why there is none.
    last: Option<Result<String, String>>,
    /// Whether it was said that there are no news.
    is_blind: bool,
}

impl Watched {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: None, is_blind: false }
    }

    /// What it last was, or why that is not known.
    pub(crate) fn last(&self) -> Result<&str, &str> {
        match &self.last {
            Some(Ok(text)) => Ok(text),
            Some(Err(error)) => Err(error),
            None => Err("it was not looked at yet"),
        }
    }

    /// Waits until the file is another one than at the last time. At the first time it is.
    pub(crate) async fn changed(&mut self) {
        loop {
            let path = self.path.clone();
            // News are asked for before the look, so that none fall between the two.
            let looked = tokio::task::spawn_blocking(move || {
                let news = watch(&path);
                (documents::read(&path), news)
            });
            let Ok((now, news)) = looked.await else { return };
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now);
                return;
            }
            if let Err(error) = &news
                && !std::mem::replace(&mut self.is_blind, true)
            {
                let (path, every) = (self.path.display(), LOOK_INTERVAL.as_secs());
                warn!(%path, %error, "no news of the file: it is looked at every {every} s");
            }
            // Time passes, or something has happened in the directory: both are reasons to look.
            if tokio::task::spawn_blocking(move || wait(news.ok())).await.is_err() {
                return;
            }
        }
    }
}

/// Has the directory of a file tell its news. Anew for every wait: a directory may have been replaced.
fn watch(path: &Path) -> std::io::Result<OwnedFd> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let news = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let of = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
    inotify::add_watch(&news, directory, of)?;
    Ok(news)
}

/// Waits for news, or until it is time to look anyway.
fn wait(news: Option<OwnedFd>) {
    let Some(news) = news else { return std::thread::park_timeout(LOOK_INTERVAL) };
    let timeout = Timespec { tv_sec: LOOK_INTERVAL.as_secs().cast_signed(), tv_nsec: 0 };
    // An interrupted wait is a reason to look too.
    let _ = poll(&mut [PollFd::new(&news, PollFlags::IN)], Some(&timeout));
}
