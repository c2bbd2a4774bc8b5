//! Prints how long one operation takes at most while the tables of an edge grow to a million entries.
//!
//! `cargo run --release -p forebay-instructions --bin growth [COUNT [RUNS]]`

use forebay_instructions::grow;

const COUNT: usize = 1_000_000;
const RUNS: usize = 3;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().ok());
    let mut next = |default| numbers.next().map_or(Some(default), |number| number);
    let (Some(count), Some(runs)) = (next(COUNT), next(RUNS)) else {
        eprintln!("usage: growth [COUNT [RUNS]]");
        std::process::exit(2);
    };
    let all: Vec<_> = (0..runs.max(1)).map(|_| grow(count)).collect();
    println!("{:36}{:>14}{:>16}", format!("{count} times"), "longest ms", "mean us");
    for (index, pause) in all[0].iter().enumerate() {
        // What other processes do adds to any run, and takes from none.
        let of_runs = all.iter().map(|pauses| pauses[index]);
        let longest = of_runs.clone().map(|pause| pause.longest).min().unwrap_or_default();
        let all = of_runs.map(|pause| pause.all).min().unwrap_or_default();
        let (longest_ms, mean_us) =
            (longest.as_secs_f64() * 1e3, all.as_secs_f64() * 1e6 / count as f64);
        println!("{:36}{longest_ms:>14.2}{mean_us:>16.2}", pause.what);
    }
}
