//! The slab against a `BTreeMap` from keys to values, and every key that ever was.

use std::collections::BTreeMap;

use zhttp::fuzzing::Choices;

use crate::slab::{Key, Slab};

/// Entries that come in one step at most: so that a few steps fill more than one chunk.
const INSERTS_MAX: u64 = 600;

/// Entries in all, at most.
const ENTRIES_MAX: usize = 4_000;

struct Pair {
    slab: Slab<u64>,
    oracle: BTreeMap<Key, u64>,
    /// Every key that was given out.
    keys: Vec<Key>,
}

/// Does what the choices say to a slab and to the naive one.
///
/// # Panics
///
/// If they differ, or a stale key finds something.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pair = Pair { slab: Slab::default(), oracle: BTreeMap::new(), keys: Vec::new() };
    while !choices.is_over() {
        pair.apply(&mut choices);
    }
    assert!(pair.slab.keys().eq(pair.oracle.keys().copied()), "the keys, in the order of places");
    for key in &pair.keys {
        assert_eq!(pair.slab.get(*key), pair.oracle.get(key), "{key:?}");
    }
}

impl Pair {
    fn apply(&mut self, choices: &mut Choices<'_>) {
        match choices.index(7) {
            0 | 1 => self.insert(),
            2 if self.keys.len() < ENTRIES_MAX => {
                (0..choices.up_to(INSERTS_MAX)).for_each(|_| self.insert());
            }
            2..5 => {
                let Some(key) = self.pick(choices) else { return };
                assert_eq!(self.slab.remove(key), self.oracle.remove(&key), "{key:?}");
                assert_eq!(self.slab.get(key), None, "it is stale now");
                assert_eq!(self.slab.remove(key), None, "and stays so");
            }
            5 => {
                let Some(key) = self.pick(choices) else { return };
                let value = u64::from(choices.byte());
                let entry = self.slab.get_mut(key).map(|entry| std::mem::replace(entry, value));
                let expected = self.oracle.get_mut(&key).map(|old| std::mem::replace(old, value));
                assert_eq!(entry, expected, "{key:?}");
            }
            _ => self.look_at(choices),
        }
        assert_eq!(self.slab.len(), self.oracle.len());
        assert_eq!(self.slab.is_empty(), self.oracle.is_empty());
    }

    fn insert(&mut self) {
        let value = self.keys.len() as u64;
        let key = self.slab.insert(value);
        assert_eq!(self.oracle.insert(key, value), None, "{key:?} is new");
        assert!(self.keys.len() > 50 || !self.keys.contains(&key), "{key:?} never was");
        self.keys.push(key);
    }

    /// Looks at a key, and at a place that may not be there.
    fn look_at(&self, choices: &mut Choices<'_>) {
        let index = choices.up_to(ENTRIES_MAX as u64) as u32;
        let at = self.slab.key_at(index);
        let [first, last] = [0, u32::MAX].map(|generation| Key { index, generation });
        assert_eq!(at, self.oracle.range(first..=last).next().map(|(key, _)| *key));
        let highest = self.oracle.last_key_value().map_or(0, |(key, _)| key.index as usize + 1);
        assert!((highest..=self.keys.len()).contains(&self.slab.places()), "places are few");
        if let Some(key) = self.pick(choices) {
            assert_eq!(Key::from_u64(key.to_u64()), key, "a key is a number");
            assert_eq!(self.slab.get(key), self.oracle.get(&key), "{key:?}");
            if let Some(value) = self.oracle.get(&key) {
                assert_eq!(self.slab[key.index], *value, "by place alone");
            }
        }
    }

    fn pick(&self, choices: &mut Choices<'_>) -> Option<Key> {
        (!self.keys.is_empty()).then(|| self.keys[choices.index(self.keys.len())])
    }
}
