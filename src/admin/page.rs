//! Pages of the fleet: which workers a listing shows, and where the next page begins.
//!
//! A cursor is the index from which to go on. It stays good whoever comes or goes: workers keep their index.

use fleet::admin::AdminReply;

use crate::admin::answer;
use crate::admin::answer::WorkersError;
use crate::admin::query;
use crate::control::registry::Registry;
use crate::control::worker::Entry;

/// Workers on one page at most, and unless fewer are asked for: an answer of some hundred KiB, made in a few
/// milliseconds.
pub(crate) const PAGE_WORKERS_MAX: usize = 1000;

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageQuery {
    limit: usize,
    cursor: u32,
}

/// One page.
pub(crate) struct Page<'a> {
    pub(crate) entries: Vec<&'a Entry>,
    /// Where the next begins, if there is one.
    pub(crate) next_cursor: Option<u32>,
}

// === impl PageQuery ===

impl PageQuery {
    /// The first page, as large as pages are.
    pub(crate) const FIRST: Self = Self { limit: PAGE_WORKERS_MAX, cursor: 0 };

    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// The answer to a query that is no page.
    pub(crate) fn parse(query: &str) -> Result<Self, AdminReply> {
        let number = |name: &'static str, default: usize| {
            let Some(text) = query::parameter(query, name) else { return Ok(default) };
            // Cursors beyond the last worker are a page too: an empty one.
            text.parse::<u32>().map(|number| number as usize).map_err(|_| {
                let message = format!("{name} must be a number that is not negative");
                answer::workers_error(WorkersError::BadRequest, &message, Some(name))
            })
        };
        let limit = number("limit", PAGE_WORKERS_MAX)?.clamp(1, PAGE_WORKERS_MAX);
        Ok(Self { limit, cursor: number("cursor", 0)? as u32 })
    }

    /// The page, made at the cost of what is on it.
    pub(crate) fn of(self, registry: &Registry) -> Page<'_> {
        let mut rest = registry.registered_from(self.cursor);
        let entries = rest.by_ref().take(self.limit).collect();
        Page { entries, next_cursor: rest.next().map(|entry| entry.id.index) }
    }
}
