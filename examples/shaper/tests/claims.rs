//! Runs the program in its short form, in which it checks what it claims.
#![cfg(unix)]

use example_support::testing::{claim_breaks, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shaper");

#[test]
fn keeps_to_the_rates() {
    claims_hold(PROGRAM, 5);
    claim_breaks(PROGRAM, "--without-bucket", "than was due");
}
