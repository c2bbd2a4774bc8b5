//! The seeds that every change must pass, and the rare states that they must reach.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay_sim::coverage::{Coverage, Mark};

/// Seeds of a test run.
const SEEDS: u64 = 2000;

/// Steps of trouble in each run. More of them would find more, but these are to take a minute.
const STEPS: u64 = 1000;

#[test]
fn no_seed_fails_and_no_state_is_missed() {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run_some = || {
        let (mut coverage, mut failed) = (Coverage::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return (coverage, failed);
            }
            let outcome = forebay_sim::run(seed, STEPS, false);
            coverage.add(&outcome.coverage);
            if let Err(error) = outcome.result {
                failed.push(format!("{error}\n  {}", forebay_sim::replay(seed, STEPS)));
            }
        }
    };
    let (coverage, failed) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run_some)).collect();
        let mut sum = (Coverage::default(), Vec::new());
        for thread in threads {
            let (coverage, failed) = thread.join().expect("a run catches what panics");
            sum.0.add(&coverage);
            sum.1.extend(failed);
        }
        sum
    });
    assert!(failed.is_empty(), "{} seeds fail:\n{}", failed.len(), failed.join("\n"));
    let missing: Vec<&str> = coverage.missing().map(Mark::name).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}\n{coverage}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 1_000_003] {
        let first = forebay_sim::run(seed, STEPS, true);
        let second = forebay_sim::run(seed, STEPS, true);
        assert!(first.trace.len() > 10_000, "something happens");
        assert!(first.trace == second.trace, "seed {seed} ran differently the second time");
        assert_eq!(first.result, second.result);
        assert_eq!((first.steps, first.coverage), (second.steps, second.coverage));
    }
}
