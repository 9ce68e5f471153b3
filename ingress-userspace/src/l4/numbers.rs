//! Small numbers for big names (nodes, VIPs), as the maps use them. A number stays while its name is known and is
//! given to another only when all others had their turn, because remembered flows carry it. Used by `sync`.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers below a limit.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    by_name: BTreeMap<K, u16>,
    used: BTreeSet<u16>,
    limit: u16,
    next: u16,
}

impl<K: Ord + Clone> Numbers<K> {
    pub(crate) const fn new(limit: u16) -> Self {
        Self { by_name: BTreeMap::new(), used: BTreeSet::new(), limit, next: 0 }
    }

    /// Takes over what an earlier daemon gave out. Of two names with one number the first keeps it.
    pub(crate) fn restore(&mut self, given: impl IntoIterator<Item = (K, u16)>) {
        for (name, number) in given {
            if number < self.limit && !self.by_name.contains_key(&name) && self.used.insert(number) {
                self.by_name.insert(name, number);
                self.next = self.next.max((number + 1) % self.limit);
            }
        }
    }

    /// The number of `name`, a new one if it has none. `None`: all are taken.
    pub(crate) fn of(&mut self, name: &K) -> Option<u16> {
        if let Some(number) = self.by_name.get(name) {
            return Some(*number);
        }
        let number = (0..self.limit)
            .map(|step| ((u32::from(self.next) + u32::from(step)) % u32::from(self.limit)) as u16)
            .find(|number| !self.used.contains(number))?;
        self.next = (number + 1) % self.limit;
        self.used.insert(number);
        self.by_name.insert(name.clone(), number);
        Some(number)
    }

    /// Frees the numbers of all other names.
    pub(crate) fn keep(&mut self, is_known: impl Fn(&K) -> bool) {
        self.by_name.retain(|name, number| is_known(name) || !self.used.remove(number));
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn numbers_stay_and_are_reused_last() {
        let mut numbers = Numbers::new(3);
        assert_eq!([numbers.of(&"a"), numbers.of(&"b"), numbers.of(&"a")], [Some(0), Some(1), Some(0)]);
        numbers.keep(|name| *name == "b");
        assert_eq!(numbers.of(&"c"), Some(2), "0 is free, but 2 was never used");
        assert_eq!(numbers.of(&"d"), Some(0));
        assert_eq!(numbers.of(&"e"), None);
        numbers.keep(|name| *name != "b");
        assert_eq!(numbers.of(&"e"), Some(1));
    }

    #[test]
    fn numbers_of_an_earlier_daemon_are_kept() {
        let mut numbers = Numbers::new(8);
        numbers.restore([("a", 5), ("b", 2), ("c", 5), ("d", 9)]);
        assert_eq!([numbers.of(&"a"), numbers.of(&"b")], [Some(5), Some(2)]);
        assert_eq!(
            [numbers.of(&"c"), numbers.of(&"d")],
            [Some(6), Some(7)],
            "a double or impossible one is given anew"
        );
    }
}
