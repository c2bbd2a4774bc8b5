//! The seeds that every change must pass.

/// Seeds of a test run.
const SEEDS: u64 = 256;

/// Operations of each run.
const OPERATIONS: u64 = 400;

/// Seeds from `first` on, each `step` further: several tests share them, so that they run in
/// parallel.
fn run_share(first: u64, step: usize) {
    for seed in (first..SEEDS).step_by(step) {
        if let Err(error) = forebay_sim::run(seed, OPERATIONS, false).result {
            panic!("seed {seed}: {error}\nreplay: {}", forebay_sim::replay(seed, OPERATIONS));
        }
    }
}

#[test]
fn seeds_a() {
    run_share(0, 4);
}

#[test]
fn seeds_b() {
    run_share(1, 4);
}

#[test]
fn seeds_c() {
    run_share(2, 4);
}

#[test]
fn seeds_d() {
    run_share(3, 4);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 1_000_003] {
        let first = forebay_sim::run(seed, OPERATIONS, true);
        let second = forebay_sim::run(seed, OPERATIONS, true);
        assert!(first.trace.len() > 10_000, "something happens");
        assert!(first.trace == second.trace, "seed {seed} ran differently the second time");
        assert_eq!(first.result, second.result);
    }
}
