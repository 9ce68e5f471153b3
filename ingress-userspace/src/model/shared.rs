//! Copy on write: parts of a snapshot that stay equal from one to the next are the same memory.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value that is read like itself and cloned by counting. Writing to one that others hold too copies it first.
/// Comparing two that are the same memory costs nothing.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Whether both are the same memory: equal without a look inside.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: PartialEq> Shared<T> {
    /// Takes the memory of `previous` if the values are equal, so that who compares by identity sees no change.
    #[must_use]
    pub fn or_same_as(self, previous: &Self) -> Self {
        if self == *previous { previous.clone() } else { self }
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: FromIterator<I>, I> FromIterator<I> for Shared<T> {
    fn from_iter<J: IntoIterator<Item = I>>(items: J) -> Self {
        Self::from(T::from_iter(items))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_copies_what_others_hold() {
        let first = Shared::from(vec![1]);
        let mut second = first.clone();
        assert!(first.is(&second));
        second.push(2);
        assert_eq!((first.len(), second.len()), (1, 2));
        assert_ne!(first, second);
    }

    #[test]
    fn equal_values_become_the_same_memory() {
        let (first, second) = (Shared::from(vec![1]), Shared::from(vec![1]));
        assert!(!first.is(&second) && first == second);
        assert!(second.or_same_as(&first).is(&first));
        assert!(!Shared::from(vec![2]).or_same_as(&first).is(&first));
    }
}
