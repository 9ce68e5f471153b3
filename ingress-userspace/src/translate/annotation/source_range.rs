//! `allowlist-source-range` (of old `whitelist-source-range`) and `denylist-source-range`: who may ask, by address.
//! Whatever is wrong with them locks the Ingress: its author relies on them.

use std::sync::Arc;

use ipnet::IpNet;

use super::Reader;
use crate::model::{Reason, SourceRange};
use crate::translate::network;

/// Reads the group. `Err`: a list cannot be understood; a problem says why.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Arc<SourceRange>>, ()> {
    // All are read before any error counts, so that each mistake is named at once.
    let deny = list(reader, "denylist-source-range");
    let allow = list(reader, "allowlist-source-range");
    let old = list(reader, "whitelist-source-range");
    let (deny, allow, old) = (deny?, allow?, old?);
    if let (Some(_), Some(_)) = (&allow, &old) {
        let message = "it says the same as allowlist-source-range, which counts; this one is left out";
        reader.problem("whitelist-source-range", Reason::Conflict, message, "delete it");
    }
    let range = SourceRange { deny: deny.unwrap_or_default(), allow: allow.or(old) };
    Ok((range != SourceRange::default()).then(|| Arc::new(range)))
}

fn list(reader: &mut Reader<'_>, name: &'static str) -> Result<Option<Vec<IpNet>>, ()> {
    let Some(text) = reader.values.remove(name) else { return Ok(None) };
    let mut nets = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let Some(net) = network(entry) else {
            let message = format!(
                "`{entry}` is neither an address nor a network; so that nobody gets in whom it would keep out, requests get 503"
            );
            reader.problem(
                name,
                Reason::InvalidValue,
                message,
                "write networks, such as 10.0.0.0/8,192.0.2.7",
            );
            return Err(());
        };
        nets.push(net);
    }
    Ok(Some(nets))
}
