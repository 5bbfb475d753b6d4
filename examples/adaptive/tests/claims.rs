//! Runs the program in its short form, in which it checks what it claims.
#![cfg(unix)]

use example_support::testing::{claim_breaks, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_adaptive");

#[test]
fn limits_follow_the_backend() {
    claims_hold(PROGRAM, 16);
    claim_breaks(PROGRAM, "--without-controller", "simulated");
}
