//! Which connection may carry whose requests: a policy about clients' certificates holds for a whole host, and a
//! connection that was made under another one, or that was shown another tenant's certificate, never carries requests for
//! that host. Pure.

use crate::l7::head::{ConnectionInfo, TlsInfo};
use crate::l7::live::Live;

/// Whether a request for `host` came by a connection that may not carry it (421).
pub fn is_misdirected(live: &Live, host: &str, connection: &ConnectionInfo, tls: &TlsInfo) -> bool {
    // Whose TLS connections we do not even open has no requests on those that we do.
    if live.router_at(connection.local.ip()).passthrough(host).is_some() {
        return true;
    }
    let wanted = live.router_at(connection.local.ip()).client_policy(host).map(|policy| policy.id);
    if wanted != tls.policy {
        return true;
    }
    match tls.server_name.as_deref() {
        Some(name) => name != host && !live.certificates.share_a_connection(name, host),
        // Old clients, and probes by address: they get the default certificate, and no host with a policy.
        None => false,
    }
}
