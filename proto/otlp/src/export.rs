//! The request that exports spans: what is the same for all of them, around those that were written.

use crate::field::bytes;
use crate::field::bytes_len;
use crate::field::head;

/// Who exports: the `Resource` and the `InstrumentationScope` of every request.
#[derive(Clone, Debug)]
pub struct Resource {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Resource {
    /// A service of this name and version.
    pub fn new(name: &str, version: &str) -> Self {
        let mut resource = Vec::new();
        for (key, value) in [("service.name", name), ("service.version", version)] {
            crate::field::text(1, key, value, &mut resource);
        }
        let mut scope = Vec::new();
        bytes(1, name.as_bytes(), &mut scope);
        bytes(2, version.as_bytes(), &mut scope);
        Self { resource, scope }
    }

    /// Appends the beginning of the `ExportTraceServiceRequest` whose last `spans_len` bytes are spans, each written by
    /// [`push`].
    ///
    /// [`push`]: crate::Span::push
    pub fn begin_request(&self, spans_len: usize, out: &mut Vec<u8>) {
        let scope_spans_len = bytes_len(self.scope.len()) + spans_len;
        head(1, bytes_len(self.resource.len()) + bytes_len(scope_spans_len), out);
        bytes(1, &self.resource, out);
        head(2, scope_spans_len, out);
        bytes(1, &self.scope, out);
    }
}
