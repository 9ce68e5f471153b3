//! What is wrong with an object, said once and shown everywhere: Event, log, metric, `xdp-ingress check|status`.

use std::fmt;

/// The kinds of objects that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Kubernetes' own")]
pub enum Kind {
    AddressPool,
    ConfigMap,
    EndpointSlice,
    Ingress,
    IngressClass,
    IngressClassParameters,
    Namespace,
    Node,
    Secret,
    Service,
    /// Not an object but a manifest file (directory source): `name` is its path.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names one object. Shown as `Kind namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// What it is.
    pub kind: Kind,
    /// `metadata.namespace`; empty for cluster-wide kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectRef {
    /// A reference to `kind namespace/name`; `namespace` is empty for cluster-wide kinds.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Why, as one CamelCase word: the `reason` of the Event and the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The document is not YAML/JSON, or not of its kind's schema.
    Malformed,
    /// A field's value is not valid.
    InvalidValue,
    /// A named object does not exist.
    NotFound,
    /// Two objects claim the same thing; the older one keeps it.
    Conflict,
    /// We don't do this (yet): an annotation, a resource backend.
    Unsupported,
    /// It is good now, but not for long.
    Expiring,
    /// A pool has no free address left.
    Exhausted,
    /// Another host answers for a VIP.
    AddressConflict,
    /// Nobody may answer for a VIP who lives.
    Unannounced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One thing that is wrong with one object. The rest of the object, and all others, are served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// Whose problem it is: the Event goes there.
    pub object: ObjectRef,
    /// Path of the field, as `kubectl explain` writes it: `spec.rules[0].http.paths[1].backend.service.name`.
    pub field: String,
    /// Its class.
    pub reason: Reason,
    /// What is wrong and what follows from it.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.object, self.field, self.message, self.hint)
    }
}
