//! Certificates for the TLS listeners.

use std::sync::Arc;

use super::{HostPattern, ObjectRef};

/// A certificate chain and its key, checked by `translate`: they parse, belong together and are in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret it came from.
    pub source: ObjectRef,
    /// The names for which it is served: `spec.tls[].hosts`, or the certificate's own names where that is empty. No two
    /// certificates with the same kind of key have the same name.
    pub hosts: Vec<HostPattern>,
    /// DER, the leaf first.
    pub chain: Arc<[Vec<u8>]>,
    /// PKCS#8, PKCS#1 or SEC1 DER.
    pub key: Arc<[u8]>,
    /// `notAfter`, seconds since 1970.
    pub not_after: i64,
}

// Written by hand: a private key must never reach a log.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("source", &self.source)
            .field("hosts", &self.hosts)
            .field("chain", &self.chain.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
