//! Connections by number: a vector with a free list, and a generation in each number, so that an event that was meant
//! for a connection that is gone finds nothing. Used by the engine for clients and endpoints. Pure.

/// The number of one entry; never given out again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    index: u32,
    generation: u32,
}

/// Generations have 30 bits, so that two are left beside them in an epoll event.
const GENERATIONS: u32 = 1 << 30;

impl Id {
    /// As 62 bits.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The reverse of [`Id::to_bits`]; the upper two bits are ignored.
    pub(crate) fn from_bits(bits: u64) -> Id {
        Id { index: bits as u32, generation: (bits >> 32) as u32 % GENERATIONS }
    }
}

/// The entries.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Id {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.1 = Some(value);
            return Id { index, generation: slot.0 };
        }
        self.slots.push((0, Some(value)));
        Id { index: self.slots.len() as u32 - 1, generation: 0 }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.0 == id.generation { slot.1.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.0 == id.generation { slot.1.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.0 != id.generation {
            return None;
        }
        let value = slot.1.take()?;
        slot.0 = (slot.0 + 1) % GENERATIONS;
        self.free.push(id.index);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The numbers of all entries.
    pub(crate) fn ids(&self) -> Vec<Id> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.1.is_some());
        used.map(|(index, slot)| Id { index: index as u32, generation: slot.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_used_twice() {
        let mut slots = Slots::new();
        let a = slots.insert('a');
        let b = slots.insert('b');
        assert_eq!(slots.remove(a), Some('a'));
        let c = slots.insert('c');
        assert_eq!((slots.get(a), slots.get(b), slots.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!(slots.remove(a), None);
        assert_eq!((slots.len(), slots.ids()), (2, vec![c, b]));
        assert_eq!(Id::from_bits(c.to_bits() | 3 << 62), c);
    }
}
