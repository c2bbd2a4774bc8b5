//! Values beside the entries of a slab: found by the same index, in pages that come with their first value and go with
//! their last.
//!
//! What only some connections have, or what another part of the program keeps for each, does not belong into their own
//! entry. A `Vec` by index would move everything as it grows, and keep the size of its best day; a hash map costs twice
//! the memory. So the index is cut in two: the page, and the place on it.

use crate::slab::CHUNK_ENTRIES;

/// Places on a page: as many as a chunk of a slab has, so that both come and go together.
const PAGE_PLACES: usize = CHUNK_ENTRIES;

/// A sparse array.
///
/// A place takes the size of an `Option<T>`, so a `T` with a niche costs no more than itself; and a page, 16 bytes.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Page<T>>,
    /// The memory of the last page that went: one that is empty again and again is not made each time.
    spare: Box<[Option<T>]>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    /// None at all while the page is not there.
    values: Box<[Option<T>]>,
    /// How many there are.
    taken: usize,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Page { values: Box::default(), taken: 0 }
    }
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Paged { pages: Vec::new(), spare: Box::default(), len: 0 }
    }
}

impl<T> Paged<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value at that index.
    pub fn get(&self, index: u32) -> Option<&T> {
        let (page, place) = place_of(index);
        self.pages.get(page)?.values.get(place)?.as_ref()
    }

    /// The value at that index.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (page, place) = place_of(index);
        self.pages.get_mut(page)?.values.get_mut(place)?.as_mut()
    }

    /// All values with their indices, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = self.pages.iter().enumerate();
        let places = pages.flat_map(|(number, page)| {
            let values = page.values.iter().enumerate();
            values.map(move |(place, value)| (number * PAGE_PLACES + place, value.as_ref()))
        });
        places.filter_map(|(index, value)| Some((u32::try_from(index).ok()?, value?)))
    }

    /// Puts a value at that index; says which one was there.
    pub fn insert(&mut self, index: u32, value: T) -> Option<T> {
        let (number, place) = place_of(index);
        if self.pages.get(number).is_none_or(|page| page.taken == 0) {
            self.make_page(number);
        }
        let page = &mut self.pages[number];
        let before = page.values[place].replace(value);
        if before.is_none() {
            page.taken += 1;
            self.len += 1;
        }
        before
    }

    /// Takes the value at that index out.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let (number, place) = place_of(index);
        let page = self.pages.get_mut(number)?;
        let value = page.values.get_mut(place)?.take()?;
        self.len -= 1;
        page.taken -= 1;
        if page.taken == 0 {
            self.spare = std::mem::take(&mut page.values);
        }
        Some(value)
    }

    #[cold]
    fn make_page(&mut self, number: usize) {
        if self.pages.len() <= number {
            self.pages.resize_with(number + 1, Page::default);
        }
        let spare = std::mem::take(&mut self.spare);
        let is_made = !spare.is_empty();
        self.pages[number].values =
            if is_made { spare } else { (0..PAGE_PLACES).map(|_| None).collect() };
    }
}

/// By index alone, for links between values that one owner keeps right.
impl<T> std::ops::Index<u32> for Paged<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.get(index).expect("a link to a value that is gone")
    }
}

impl<T> std::ops::IndexMut<u32> for Paged<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("a link to a value that is gone")
    }
}

/// On which page a value is, and where.
fn place_of(index: u32) -> (usize, usize) {
    (index as usize / PAGE_PLACES, index as usize % PAGE_PLACES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..5000), 0..1000)) {
            let mut paged = Paged::default();
            let mut oracle = BTreeMap::new();
            for (step, (insert, index)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(paged.insert(index, step), oracle.insert(index, step));
                } else {
                    prop_assert_eq!(paged.remove(index), oracle.remove(&index));
                }
                prop_assert_eq!(paged.len(), oracle.len());
                prop_assert_eq!(paged.get(index), oracle.get(&index));
                let mut pages: Vec<u32> = oracle.keys().map(|index| index / 1024).collect();
                pages.dedup();
                let made = paged.pages.iter().filter(|page| !page.values.is_empty());
                prop_assert_eq!(made.count(), pages.len());
            }
            prop_assert!(paged.iter().eq(oracle.iter().map(|(index, value)| (*index, value))));
        }
    }
}
