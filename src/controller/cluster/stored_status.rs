//! The status that an object has in the API server, for comparisons with the computed one.

use serde_json::Value;

/// A status as JSON text. As a [`Value`] it would take five times the memory, in every replica and for every object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredStatus(Box<str>);

impl StoredStatus {
    /// Stores a status.
    pub(super) fn new(status: &Value) -> Self {
        Self(status.to_string().into_boxed_str())
    }

    /// Returns the status.
    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}
