//! The ids of handlers that were heard of lately, shared by the sessions that they have.
//!
//! A handler answers thousands of requests, and says who it is in each packet. Without this each session would make a
//! copy of its own.

use std::sync::Arc;

use crate::hub::HandlerId;

/// How many ids are kept. Beyond it the oldest is forgotten, and made anew when it is heard again.
const HANDLER_IDS_MAX: usize = 16;

/// Ids to be shared.
#[derive(Debug, Default)]
pub struct HandlerIds {
    ids: Vec<HandlerId>,
    /// Which one gives way next.
    oldest: usize,
}

impl HandlerIds {
    /// That id.
    pub fn shared(&mut self, id: &[u8]) -> HandlerId {
        if let Some(known) = self.ids.iter().find(|known| ***known == *id) {
            return Arc::clone(known);
        }
        let new = HandlerId::from(id);
        if self.ids.len() < HANDLER_IDS_MAX {
            self.ids.push(Arc::clone(&new));
        } else {
            self.ids[self.oldest] = Arc::clone(&new);
            self.oldest = (self.oldest + 1) % HANDLER_IDS_MAX;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shared_and_few() {
        let mut handlers = HandlerIds::default();
        let first = handlers.shared(b"a");
        assert!(Arc::ptr_eq(&first, &handlers.shared(b"a")));
        for number in 0..HANDLER_IDS_MAX as u8 {
            assert_eq!(*handlers.shared(&[number]), [number]);
        }
        assert!(!Arc::ptr_eq(&first, &handlers.shared(b"a")), "it was forgotten");
        assert_eq!(handlers.ids.len(), HANDLER_IDS_MAX);
    }
}
