//! Why a request goes no further.

use std::borrow::Cow;

use api::error::ApiError;
use api::error::ErrorCode;

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client is gone, or never began: there is nobody to answer.
    Gone,
    /// It is answered with this error.
    Reject(ApiError),
}

impl Stop {
    pub(crate) fn reject(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject(ApiError::new(code, message))
    }
}
