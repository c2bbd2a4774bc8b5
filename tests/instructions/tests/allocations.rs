//! What each hot path allocates in the steady state; more than it did fails.
//!
//! An allocation costs some hundred instructions and may cost a lock, and memory that comes and goes leaves holes. A path
//! that runs a million times a second is to have none: what it needs it keeps. Those that have some still are listed here
//! with how many, so that none comes back once it is gone.
//!
//! A block that grows counts as one more. Where they come from is shown by `scripts/instructions --allocations PATH`.

use allocation_counter::measure;
use forebay_instructions::SUBJECTS;

/// The most that a step of each path allocates, rounded up. To be lowered, as far as 0.
const ALLOCATIONS_MAX: &[(&str, u64)] = &[
    ("parse-request", 0),
    ("packet-parse", 0),
    ("packet-write", 0),
    ("exchange", 4),
    ("packet", 1),
    ("accept", 12),
    ("fan-out", 11),
    ("fan-out-websocket", 13),
    ("fan-out-own", 10_000),
    ("timer", 0),
    ("merge", 23),
    ("hub-request", 1),
    ("hub-event", 2),
    ("hub-range", 0),
];

#[test]
fn a_step_allocates_no_more_than_it_did() {
    let mut faults = Vec::new();
    println!("{:20}{:>12}{:>14}", "path", "allocations", "bytes a step");
    for subject in SUBJECTS {
        let mut ready = subject.ready();
        let counted = measure(|| ready.walk(subject.steps_max));
        ready.check();
        let steps = subject.steps_max as u64;
        let allocations = counted.count_total.div_ceil(steps);
        let bytes = counted.bytes_total.div_ceil(steps);
        println!("{:20}{allocations:>12}{bytes:>14}", subject.name);
        let listed = ALLOCATIONS_MAX.iter().find(|(name, _)| *name == subject.name);
        let Some((_, allocations_max)) = listed else {
            faults
                .push(format!("{} is not listed; it allocates {allocations} times", subject.name));
            continue;
        };
        if allocations > *allocations_max {
            let name = subject.name;
            faults.push(format!(
                "{name} allocates {allocations} times, and at most {allocations_max} before: see \
                 scripts/instructions --allocations {name}"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(ALLOCATIONS_MAX.len(), SUBJECTS.len(), "what is listed is a path");
}
