//! A slab whose keys are generational: a stale key is recognised, never trusted.
//!
//! Entries live in chunks of [`CHUNK_ENTRIES`], so that growing to a million entries never moves
//! one that is there and never stalls the loop. A free entry holds the index of the next free one.
//! The `slab` crate was rejected for its bare indices and for moving everything as it grows.

/// Entries in a chunk.
const CHUNK_ENTRIES: usize = 1024;

/// No index: the end of a list of entries.
pub(crate) const NONE: u32 = u32::MAX;

/// Names an entry of a [`Slab`], for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The place of the entry. Small: places are used again.
    pub index: u32,
    /// Tells the entry from others that had its place before.
    pub generation: u32,
}

impl Key {
    /// The key as one number, for an event loop's token or a timer.
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key of that number.
    pub const fn from_u64(number: u64) -> Self {
        Key { index: number as u32, generation: (number >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Entry<T>,
}

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    Free { next: u32 },
}

/// Entries of one kind, found by [`Key`].
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of that key, if it is still there.
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slot(key.index)?;
        match &slot.entry {
            Entry::Full(value) if slot.generation == key.generation => Some(value),
            Entry::Full(_) | Entry::Free { .. } => None,
        }
    }

    /// The entry of that key, if it is still there.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slot_mut(key.index)?;
        match &mut slot.entry {
            Entry::Full(value) if slot.generation == key.generation => Some(value),
            Entry::Full(_) | Entry::Free { .. } => None,
        }
    }

    /// The key of the entry at that place, if there is one.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slot(index)?;
        matches!(slot.entry, Entry::Full(_)).then_some(Key { index, generation: slot.generation })
    }

    /// Adds an entry. Its key differs from that of any earlier one.
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free != NONE {
            let index = self.free;
            let slot = self.slot_mut(index).expect("free entries are in the slab");
            let Entry::Free { next } = slot.entry else { unreachable!("a free entry is free") };
            slot.entry = Entry::Full(value);
            let key = Key { index, generation: slot.generation };
            self.free = next;
            return key;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ENTRIES) {
            self.chunks.push(Vec::with_capacity(CHUNK_ENTRIES));
        }
        let chunk = self.chunks.len() - 1;
        let slots = &mut self.chunks[chunk];
        let index = u32::try_from(chunk * CHUNK_ENTRIES + slots.len()).expect("below 2^32 entries");
        slots.push(Slot { generation: 0, entry: Entry::Full(value) });
        Key { index, generation: 0 }
    }

    /// Takes the entry of that key out, if it is still there.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let next = self.free;
        let slot = self.slot_mut(key.index).expect("the key was just found");
        slot.generation = slot.generation.wrapping_add(1);
        let entry = std::mem::replace(&mut slot.entry, Entry::Free { next });
        self.free = key.index;
        self.len -= 1;
        match entry {
            Entry::Full(value) => Some(value),
            Entry::Free { .. } => unreachable!("the key was just found"),
        }
    }

    /// How many places there are, taken or free.
    pub fn places(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_ENTRIES;
        full + self.chunks.last().map_or(0, Vec::len)
    }

    /// The keys of all entries, in the order of their places.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.places()).filter_map(|index| self.key_at(u32::try_from(index).ok()?))
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK_ENTRIES)?.get(index % CHUNK_ENTRIES)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK_ENTRIES)?.get_mut(index % CHUNK_ENTRIES)
    }
}

/// By place alone, for links between entries that one owner keeps right.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match self.slot(index).map(|slot| &slot.entry) {
            Some(Entry::Full(value)) => value,
            Some(Entry::Free { .. }) | None => panic!("a link to an entry that is gone"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match self.slot_mut(index).map(|slot| &mut slot.entry) {
            Some(Entry::Full(value)) => value,
            Some(Entry::Free { .. }) | None => panic!("a link to an entry that is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(Key::from_u64(second.to_u64()), second);
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..3000)) {
            let mut slab = Slab::default();
            let mut oracle = BTreeMap::new();
            for (step, (insert, which)) in steps.into_iter().enumerate() {
                if insert || oracle.is_empty() {
                    let key = slab.insert(step);
                    prop_assert_eq!(oracle.insert(key, step), None);
                } else {
                    let key = *oracle.keys().nth(which.index(oracle.len())).unwrap();
                    prop_assert_eq!(slab.remove(key), oracle.remove(&key));
                    prop_assert_eq!(slab.get(key), None);
                }
                prop_assert_eq!(slab.len(), oracle.len());
            }
            for (key, value) in &oracle {
                prop_assert_eq!(slab.get(*key), Some(value));
            }
            prop_assert_eq!(slab.keys().count(), oracle.len());
        }
    }
}
