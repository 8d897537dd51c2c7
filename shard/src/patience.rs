//! How an exchange with a worker is waited for: beside its client, or alone.

use std::future::Future;
use std::time::Duration;

use crate::state::Shard;
use crate::stop::Stop;

/// Whoever waits for a worker.
pub(crate) trait Patience {
    /// Runs `operation` to its end.
    ///
    /// # Errors
    /// What ended the wait before.
    fn beside<T>(&mut self, operation: impl Future<Output = T>) -> impl Future<Output = Result<T, Stop>>;

    /// The same, for `time` at most; none when it took longer.
    ///
    /// # Errors
    /// What else ended the wait before.
    fn within<T>(
        &mut self,
        shard: &Shard,
        time: Duration,
        operation: impl Future<Output = T>,
    ) -> impl Future<Output = Result<Option<T>, Stop>>;
}

/// An exchange that nobody waits for with it: whoever has begun it ends it by dropping it.
#[derive(Debug)]
pub(crate) struct Alone;

impl Patience for Alone {
    async fn beside<T>(&mut self, operation: impl Future<Output = T>) -> Result<T, Stop> {
        Ok(operation.await)
    }

    async fn within<T>(
        &mut self,
        _: &Shard,
        time: Duration,
        operation: impl Future<Output = T>,
    ) -> Result<Option<T>, Stop> {
        Ok(monoio::time::timeout(time, operation).await.ok())
    }
}
