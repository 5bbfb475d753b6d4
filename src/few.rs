//! A list that needs no allocation for the first one.

use alloc::vec::Vec;

pub(crate) struct Few<T> {
    pub(crate) first: Option<T>,
    /// None if there is no first.
    pub(crate) rest: Vec<T>,
}

impl<T> Few<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, rest: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.rest.push(value);
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// All of them, in order.
    #[inline]
    pub(crate) fn for_each(self, mut f: impl FnMut(T)) {
        if let Some(first) = self.first {
            f(first);
        }
        if !self.rest.is_empty() {
            self.rest.into_iter().for_each(f);
        }
    }
}
