//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_adaptive");

#[test]
fn limits_follow_the_backend() {
    claims_hold(PROGRAM, 16);
    claim_fails(PROGRAM, "--without-controller", "simulated");
}
