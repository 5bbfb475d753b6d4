//! Compares the bucket's times with those of bare compare-exchanges and of other semaphores. For the report, see `report.rs`.
//!
//! `cargo bench -p token-bucket-benches --bench compare -- FILTER` runs a part. `TOKEN_BUCKET_ROUNDS=10` gives more exact results.

mod plot;
mod queue;
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
