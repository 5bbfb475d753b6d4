//! What the bucket costs, as ratios: to bare compare-exchanges, and to other semaphores. See `report.rs` for what is made of it.
//!
//! `cargo bench -p token-bucket-benches -- FILTER` runs a part; with `TOKEN_BUCKET_ROUNDS=10` it takes longer and finds out more.

mod line;
mod plot;
mod report;
mod resize;
mod rivals;
mod runner;
mod saturated;
mod target;
mod threads;
mod uncontended;
mod waiting;

fn main() {
    let mut runner = runner::Runner::from_args();
    uncontended::run(&mut runner);
    resize::run(&mut runner);
    threads::run(&mut runner);
    waiting::run(&mut runner);
    saturated::run(&mut runner);
    runner.finish();
    report::write(&runner).expect("the report can be written");
}
