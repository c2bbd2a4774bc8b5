//! Which ears are deaf: their server takes commands, and yet they do not hear it.
//!
//! A process with a deaf ear looks healthy and delivers nothing, so its store says that it does not
//! work ([`Store::ping`](crate::store::Store::ping)): then it is not ready, and edges ask another
//! feeder until it hears again. An ear whose server is away is no reason for that: nobody hears it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::redis::nodes::Place;

/// The ears of a store that have lost something and are not whole again. A clone is the same list.
#[derive(Clone, Default)]
pub(in crate::store::redis) struct DeafEars(Arc<Mutex<Listed>>);

#[derive(Default)]
struct Listed {
    places: HashMap<u64, Place>,
    next: u64,
}

impl DeafEars {
    /// Whether the server of any of them takes commands.
    pub(in crate::store::redis) fn any(&self) -> bool {
        self.with(|listed| listed.places.values().any(Place::is_up))
    }

    /// For one ear, which hears all that it should until it says otherwise.
    pub(super) fn flag(&self) -> DeafFlag {
        let number = self.with(|listed| {
            listed.next += 1;
            listed.next
        });
        DeafFlag { ears: self.clone(), number }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Listed) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where one ear says what it hears. An ear that is gone is not deaf.
pub(super) struct DeafFlag {
    ears: DeafEars,
    number: u64,
}

impl DeafFlag {
    /// It has lost something, and is not whole.
    pub(super) fn raise(&self, place: &Place) {
        self.ears.with(|listed| listed.places.insert(self.number, place.clone()));
    }

    /// It hears all that it should.
    pub(super) fn lower(&self) {
        self.ears.with(|listed| listed.places.remove(&self.number));
    }
}

impl Drop for DeafFlag {
    fn drop(&mut self) {
        self.lower();
    }
}
