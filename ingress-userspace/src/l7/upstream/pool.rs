//! A worker's unused connections, by endpoint. The one that was used last is taken first: it is the least likely to have
//! been closed by its endpoint, and the rest may grow old and go. Holds numbers only; the engine holds the connections.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::http1::slots::Id;
use super::transport::TransportId;

/// Where a connection leads, and what is spoken there.
pub(in crate::l7) type PoolKey = (SocketAddr, TransportId);

/// The pool.
#[derive(Debug, Default)]
pub(in crate::l7) struct Pool {
    idle: HashMap<PoolKey, Vec<Id>>,
}

impl Pool {
    /// Takes the connection of that key that was put back last.
    pub(in crate::l7) fn take(&mut self, key: PoolKey) -> Option<Id> {
        self.idle.get_mut(&key)?.pop()
    }

    /// Puts a connection back. If there are more than `max` for that endpoint, returns the oldest, to be closed.
    pub(in crate::l7) fn put(&mut self, key: PoolKey, id: Id, max: usize) -> Option<Id> {
        let idle = self.idle.entry(key).or_default();
        idle.push(id);
        (idle.len() > max).then(|| idle.remove(0))
    }

    /// Forgets a connection that closed.
    pub(in crate::l7) fn forget(&mut self, key: PoolKey, id: Id) {
        if let Some(idle) = self.idle.get_mut(&key) {
            idle.retain(|other| *other != id);
            if idle.is_empty() {
                self.idle.remove(&key);
            }
        }
    }

    /// Takes all, to close them.
    pub(in crate::l7) fn clear(&mut self) -> Vec<Id> {
        self.idle.drain().flat_map(|(_, ids)| ids).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::http1::slots::Slots;
    use super::*;

    #[test]
    fn the_last_one_in_is_the_first_one_out() {
        let mut slots = Slots::new();
        let [a, b, c] = [(); 3].map(|()| slots.insert(()));
        let key = ("192.0.2.1:80".parse().unwrap(), TransportId::default());
        let mut pool = Pool::default();
        assert_eq!(pool.put(key, a, 2), None);
        assert_eq!(pool.put(key, b, 2), None);
        assert_eq!(pool.put(key, c, 2), Some(a));
        assert_eq!(pool.take(("192.0.2.2:80".parse().unwrap(), TransportId::default())), None);
        assert_eq!(pool.take(key), Some(c));
        pool.forget(key, b);
        assert_eq!(pool.take(key), None);
    }
}
