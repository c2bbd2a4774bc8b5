//! Hashing with a seed that the shell passes in.
//!
//! Names come from the network, so the hash must not be guessable; machines have no randomness, so
//! the seed is theirs to be given, and a simulation gives a fixed one. The function is the standard
//! library's keyless SipHash, fed the seed first.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

/// Makes hashers from a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(pub(crate) u64);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// The rendezvous score of `node` for `name`: of several nodes the highest is the one to take, so
/// that a node that comes or goes moves only what must move. Every edge computes the same.
pub(crate) fn rendezvous(name: &[u8], node: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    node.hash(&mut hasher);
    hasher.finish()
}
