//! A request in the hub, as the fuzz target knows it from what goes out.

use std::collections::BTreeSet;

use bytes::Bytes;

/// Where a request is, as the outputs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody has it.
    Waiting,
    /// One of those who said hello was given it, and has said nothing yet.
    Given(&'static str),
    /// That one has said something about it since, and may have handed it over.
    Started(&'static str),
    /// A group took it.
    Pushed,
}

/// A request that is not over.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) worker: u16,
    /// The plain handlers that may have it.
    pub(super) group: Option<usize>,
    pub(super) packet: Bytes,
    pub(super) place: Place,
    /// From whom it was taken, for they left.
    pub(super) withdrawn: BTreeSet<&'static str>,
    /// One of those has said something before anybody else: that may have been late, and welcome.
    pub(super) may_be_answered: bool,
}

impl Request {
    /// It goes to somebody else, or to nobody.
    pub(super) fn move_to(&mut self, place: Place) {
        if let Place::Given(before) = self.place {
            self.withdrawn.insert(before);
        }
        self.place = place;
        self.may_be_answered = false;
    }

    /// A handler has said something about it.
    pub(super) fn hear(&mut self, handler: &'static str) {
        match self.place {
            Place::Given(to) if to == handler => self.place = Place::Started(handler),
            Place::Waiting | Place::Given(_) => {
                self.may_be_answered |= self.withdrawn.contains(handler);
            }
            Place::Started(_) | Place::Pushed => {}
        }
    }

    /// Whether what this handler says about it must not be heard.
    pub(super) fn is_closed_to(&self, handler: &str) -> bool {
        match self.place {
            Place::Waiting => !self.may_be_answered && !self.withdrawn.contains(handler),
            Place::Given(to) => {
                to != handler && !self.may_be_answered && !self.withdrawn.contains(handler)
            }
            Place::Started(by) => by != handler && self.withdrawn.contains(handler),
            Place::Pushed => self.withdrawn.contains(handler),
        }
    }
}
