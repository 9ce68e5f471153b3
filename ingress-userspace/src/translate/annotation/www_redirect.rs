//! `from-to-www-redirect`: `www.` of the Ingress's hosts, or their names without it, lead to them. `ingress` finds the names.

use super::Reader;

pub(super) fn read(reader: &mut Reader<'_>) -> bool {
    reader.boolean("from-to-www-redirect").unwrap_or(false)
}
