//! How much of a snapshot is new.

/// How much had to be translated for a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything, but for the clusters whose endpoints stayed.
    #[default]
    Everything,
    /// Routes and certificates: what hangs together with the Ingresses, Services and Secrets that changed.
    Routes,
    /// The clusters of the Services whose endpoints changed, and nothing else.
    Endpoints,
}
