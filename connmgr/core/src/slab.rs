//! A slab whose keys are generational: a stale key is recognised, never trusted.
//!
//! Entries live in chunks of [`CHUNK_ENTRIES`], so that growing to a million entries never moves
//! one that is there and never stalls the loop. A new entry goes into the first chunk with room; so the last chunks
//! are the first to be empty, and an empty one gives its memory back, but for one that is kept against coming and going.
//! What a chunk keeps for ever is one number, from which the generations of its places go on.
//!
//! Rejected: the `slab` crate, for its bare indices and for moving everything as it grows; one list of free places for
//! all chunks, which spreads a few entries over all of them.

use std::collections::BTreeSet;

/// Entries in a chunk.
pub(crate) const CHUNK_ENTRIES: usize = 1024;

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
    /// The next free slot of the chunk.
    Free {
        next: u32,
    },
}

#[derive(Debug)]
struct Chunk<T> {
    /// As many as were ever used at once, since the chunk was last empty.
    slots: Vec<Slot<T>>,
    /// The first of those that are free.
    free: u32,
    /// How many of them are not.
    taken: usize,
    /// The generation of slots that are new.
    generation: u32,
}

/// Entries of one kind, found by [`Key`].
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The chunks that have room.
    open: BTreeSet<usize>,
    /// A chunk that is empty and has memory.
    reserve: Option<usize>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), open: BTreeSet::new(), reserve: None, len: 0 }
    }
}

impl<T> Chunk<T> {
    const fn new() -> Self {
        Chunk { slots: Vec::new(), free: NONE, taken: 0, generation: 0 }
    }

    /// Adds an entry, where there is room. Says in which slot, and its generation.
    fn insert(&mut self, value: T) -> (usize, u32) {
        self.taken += 1;
        if self.free == NONE {
            if self.slots.capacity() == 0 {
                self.slots.reserve_exact(CHUNK_ENTRIES);
            }
            self.slots.push(Slot { generation: self.generation, entry: Entry::Full(value) });
            return (self.slots.len() - 1, self.generation);
        }
        let index = self.free as usize;
        let slot = &mut self.slots[index];
        let Entry::Free { next } = slot.entry else { unreachable!("a free slot is free") };
        slot.entry = Entry::Full(value);
        self.free = next;
        (index, slot.generation)
    }

    /// Takes out the entry of a slot that is taken.
    fn remove(&mut self, index: usize) -> T {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let entry = std::mem::replace(&mut slot.entry, Entry::Free { next: self.free });
        self.free = u32::try_from(index).expect("a chunk is small");
        self.taken -= 1;
        let Entry::Full(value) = entry else { unreachable!("the slot is taken") };
        value
    }

    /// Gives the memory back. No key that was ever given out comes again.
    fn vacate(&mut self) {
        debug_assert_eq!(self.taken, 0);
        let generations = self.slots.iter().map(|slot| slot.generation);
        self.generation = generations.max().unwrap_or(self.generation);
        self.slots = Vec::new();
        self.free = NONE;
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
        let number = self.open.first().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk::new());
            self.open.insert(self.chunks.len() - 1);
            self.chunks.len() - 1
        });
        let chunk = &mut self.chunks[number];
        let (slot, generation) = chunk.insert(value);
        if chunk.taken == CHUNK_ENTRIES {
            self.open.remove(&number);
        }
        self.reserve.take_if(|reserve| *reserve == number);
        self.len += 1;
        let index = u32::try_from(number * CHUNK_ENTRIES + slot).expect("below 2^32 entries");
        Key { index, generation }
    }

    /// Takes the entry of that key out, if it is still there.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (number, slot) = place_of(key.index);
        let chunk = &mut self.chunks[number];
        if chunk.taken == CHUNK_ENTRIES {
            self.open.insert(number);
        }
        let value = chunk.remove(slot);
        self.len -= 1;
        if chunk.taken == 0 {
            // The one of two that is used sooner is kept.
            let other = self.reserve.replace(number);
            if let Some(other) = other {
                self.reserve = Some(number.min(other));
                self.chunks[number.max(other)].vacate();
            }
        }
        Some(value)
    }

    /// How many places there are, taken or free.
    pub fn places(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_ENTRIES;
        full + self.chunks.last().map_or(0, |chunk| chunk.slots.len())
    }

    /// The keys of all entries, in the order of their places.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.places()).filter_map(|index| self.key_at(u32::try_from(index).ok()?))
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (number, slot) = place_of(index);
        self.chunks.get(number)?.slots.get(slot)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let (number, slot) = place_of(index);
        self.chunks.get_mut(number)?.slots.get_mut(slot)
    }
}

/// In which chunk an entry is, and where.
fn place_of(index: u32) -> (usize, usize) {
    (index as usize / CHUNK_ENTRIES, index as usize % CHUNK_ENTRIES)
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

    /// How many places have memory.
    fn slots(slab: &Slab<usize>) -> usize {
        slab.chunks.iter().map(|chunk| chunk.slots.capacity()).sum()
    }

    #[test]
    fn memory_goes_with_the_entries() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..5 * CHUNK_ENTRIES).map(|n| slab.insert(n)).collect();
        assert_eq!(slots(&slab), 5 * CHUNK_ENTRIES);
        for key in &keys {
            slab.remove(*key).unwrap();
        }
        assert_eq!(slots(&slab), CHUNK_ENTRIES, "one chunk stays against coming and going");
        let again: Vec<Key> = (0..5 * CHUNK_ENTRIES).map(|n| slab.insert(n)).collect();
        assert!(keys.iter().all(|key| slab.get(*key).is_none()), "stale keys stay stale");
        assert_eq!(again.iter().filter(|key| slab.get(**key).is_some()).count(), keys.len());
    }

    #[test]
    fn the_first_chunks_are_filled_first() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..3 * CHUNK_ENTRIES).map(|n| slab.insert(n)).collect();
        slab.remove(keys[2 * CHUNK_ENTRIES]).unwrap();
        slab.remove(keys[7]).unwrap();
        assert_eq!(slab.insert(0).index, 7);
        assert_eq!(slab.insert(0).index as usize, 2 * CHUNK_ENTRIES);
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
