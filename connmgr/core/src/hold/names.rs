//! The channels of a table by their names, in some 8 bytes for each.
//!
//! The names themselves stand in the table: what is kept here is where. And it is kept in many small tables instead of
//! one: a hash table that grows moves all that it has, which takes a tenth of a second for a million names, and nobody
//! is served meanwhile. A small one takes a small part of that, and each grows at its own time.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::seeded::Seed;

/// Small tables: a million names are 4,000 in each, and moved in half a millisecond.
const SHARDS: usize = 256;

/// Where the names of channels stand.
#[derive(Debug)]
pub(super) struct Names {
    seed: Seed,
    shards: Box<[HashTable<u32>]>,
    len: usize,
}

impl Names {
    /// No names; what is unpredictable of their places is the seed's.
    pub(super) fn new(seed: u64) -> Self {
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Names { seed: Seed(seed), shards, len: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where a name stands, if it does; `name_at` reads the name that stands somewhere.
    pub(super) fn get<'n>(&self, name: &str, name_at: impl Fn(u32) -> &'n str) -> Option<u32> {
        let hash = self.seed.hash_one(name);
        self.shards[shard_of(hash)].find(hash, |index| name_at(*index) == name).copied()
    }

    /// Notes where a name stands that was nowhere yet.
    pub(super) fn insert<'n>(&mut self, name: &str, index: u32, name_at: impl Fn(u32) -> &'n str) {
        let hash = self.seed.hash_one(name);
        let rehash = |index: &u32| self.seed.hash_one(name_at(*index));
        self.shards[shard_of(hash)].insert_unique(hash, index, rehash);
        self.len += 1;
    }

    /// Forgets where a name stands.
    pub(super) fn remove(&mut self, name: &str, index: u32) {
        let hash = self.seed.hash_one(name);
        let shard = &mut self.shards[shard_of(hash)];
        let Ok(entry) = shard.find_entry(hash, |other| *other == index) else { return };
        entry.remove();
        self.len -= 1;
        if shard.is_empty() {
            *shard = HashTable::new();
        }
    }
}

/// By bits that the tables themselves do not look at.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..300), 0..1000), seed: u64) {
            let all: Vec<String> = (0..300).map(|index| format!("1:{index}")).collect();
            let name_at = |index: u32| &*all[index as usize];
            let mut names = Names::new(seed);
            let mut oracle = BTreeMap::new();
            for (insert, index) in steps {
                let name = name_at(index);
                let before = oracle.get(name).copied();
                prop_assert_eq!(names.get(name, name_at), before);
                if !insert {
                    names.remove(name, index);
                    oracle.remove(name);
                } else if before.is_none() {
                    names.insert(name, index, name_at);
                    oracle.insert(name, index);
                }
                prop_assert_eq!(names.len(), oracle.len());
            }
        }
    }

    #[test]
    fn names_are_spread_evenly() {
        let all: Vec<String> = (0..100_000).map(|index| format!("org:channel-{index}")).collect();
        let mut names = Names::new(7);
        for (index, name) in all.iter().enumerate() {
            names.insert(name, u32::try_from(index).unwrap(), |index| &all[index as usize]);
        }
        let largest = names.shards.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 2 * all.len() / SHARDS, "{largest} in one");
    }
}
