//! Runs the program in its short form, in which it checks what it claims.
#![cfg(unix)]

use example_support::testing::{claim_breaks, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_middleware");

#[test]
fn has_no_more_in_flight_than_the_limit() {
    claims_hold(PROGRAM, 4);
    claim_breaks(PROGRAM, "--without-bucket", "were allowed");
}
