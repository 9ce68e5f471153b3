//! Statuses of our own resources: pools and parameters of classes.

use serde_json::Value;

use super::ObjectRef;

/// The status of one object: how it shall be and how it is. It is also where allocations are kept, so that every daemon
/// reads what the leader wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnStatus {
    /// Whose.
    pub object: ObjectRef,
    /// What it shall be.
    pub wanted: Value,
    /// What it was when the objects were read.
    pub shown: Value,
}
