//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shaper");

#[test]
fn keeps_to_the_rates() {
    claims_hold(PROGRAM, 5);
    claim_fails(PROGRAM, "--without-limiter", "ahead of the rate");
}
