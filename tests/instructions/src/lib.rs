//! The hot paths of the edge, one at a time, for whoever counts what they cost.
//!
//! Times of a shared machine say little, counts of instructions and of allocations say the same twice. So each path that
//! the edge walks for each request, packet, event or timer is here as a [`Path`]: set up once, then walked step by
//! step. Two who count walk them:
//!
//! * `scripts/instructions` runs the binary of this crate under callgrind, without a step and with many. The difference
//!   is what steps cost, without the set-up. It is compared with `base.toml`, and a growth of more than 5 % fails.
//! * `tests/allocations.rs` counts what a step allocates.
//!
//! **What is counted is the machine, and nothing around it.** Packets of handlers and events are made in the set-up,
//! for as many steps as there will be; a socket takes all and only counts. There is no clock, no thread, no
//! randomness, and the seeds of all hashes are fixed: the same build does the same instructions each time.
//!
//! A path that went wrong would be quick. So each one knows what must have come out ([`Path::check`]).
//!
//! Rejected: a benchmark harness that counts by itself (`iai` and its successors). It brings a macro, a runner and a client
//! library into the process, for what two runs and a subtraction do.

mod edge;
mod growth;
mod handler;
mod paths;

pub use growth::{Pause, grow};
pub use paths::SUBJECTS;

/// A hot path that is set up.
pub trait Path {
    /// Walks it once.
    fn step(&mut self);

    /// Looks at what came out of all steps since the set-up, those of the warm-up among them.
    ///
    /// # Panics
    ///
    /// That is not what so many steps come to.
    fn check(&self, steps: usize);
}

/// A hot path that can be set up.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Its name, in the table of results and on the command line.
    pub name: &'static str,
    /// What one step is.
    pub what: &'static str,
    /// Steps until all buffers have the size that they keep.
    warm_up: usize,
    /// Steps that are counted, at most: so many are prepared for.
    pub steps_max: usize,
    /// Prepares for so many steps.
    set_up: fn(usize) -> Box<dyn Path>,
}

impl Subject {
    /// The subject of that name.
    pub fn named(name: &str) -> Option<&'static Subject> {
        SUBJECTS.iter().find(|subject| subject.name == name)
    }

    /// Sets the path up and warms it. The same is done however many steps follow.
    pub fn ready(&self) -> Ready {
        let mut path = (self.set_up)(self.warm_up + self.steps_max);
        (0..self.warm_up).for_each(|_| path.step());
        Ready { path, steps: self.warm_up, steps_max: self.warm_up + self.steps_max }
    }
}

/// A path that is warm.
pub struct Ready {
    path: Box<dyn Path>,
    /// Steps so far.
    steps: usize,
    steps_max: usize,
}

impl Ready {
    /// Walks the path so many times.
    ///
    /// # Panics
    ///
    /// That is more than [`Subject::steps_max`] in all.
    pub fn walk(&mut self, steps: usize) {
        self.steps += steps;
        assert!(self.steps <= self.steps_max, "nothing is prepared for so many steps");
        (0..steps).for_each(|_| self.path.step());
    }

    /// Looks at what came out.
    ///
    /// # Panics
    ///
    /// That is not what the steps come to.
    pub fn check(&self) {
        self.path.check(self.steps);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_path_does_what_it_says() {
        for subject in SUBJECTS {
            let mut ready = subject.ready();
            ready.check();
            ready.walk(subject.steps_max);
            ready.check();
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = SUBJECTS.iter().map(|subject| subject.name).collect();
        assert_eq!(names.len(), SUBJECTS.len());
        assert!(Subject::named("no such path").is_none());
    }
}
