//! A worker's unused connections, by endpoint. The one that was used last is taken first: it is the least likely to have
//! been closed by its endpoint, and the rest may grow old and go. Holds numbers only; the engine holds the connections.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::http1::slots::Id;

/// The pool.
#[derive(Debug, Default)]
pub(in crate::l7) struct Pool {
    idle: HashMap<SocketAddr, Vec<Id>>,
}

impl Pool {
    /// Takes the connection to `address` that was put back last.
    pub(in crate::l7) fn take(&mut self, address: SocketAddr) -> Option<Id> {
        self.idle.get_mut(&address)?.pop()
    }

    /// Puts a connection back. If there are more than `max` for that endpoint, returns the oldest, to be closed.
    pub(in crate::l7) fn put(&mut self, address: SocketAddr, id: Id, max: usize) -> Option<Id> {
        let idle = self.idle.entry(address).or_default();
        idle.push(id);
        (idle.len() > max).then(|| idle.remove(0))
    }

    /// Forgets a connection that closed.
    pub(in crate::l7) fn forget(&mut self, address: SocketAddr, id: Id) {
        if let Some(idle) = self.idle.get_mut(&address) {
            idle.retain(|other| *other != id);
            if idle.is_empty() {
                self.idle.remove(&address);
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
        let address = "192.0.2.1:80".parse().unwrap();
        let mut pool = Pool::default();
        assert_eq!(pool.put(address, a, 2), None);
        assert_eq!(pool.put(address, b, 2), None);
        assert_eq!(pool.put(address, c, 2), Some(a));
        assert_eq!(pool.take("192.0.2.2:80".parse().unwrap()), None);
        assert_eq!(pool.take(address), Some(c));
        pool.forget(address, b);
        assert_eq!(pool.take(address), None);
    }
}
