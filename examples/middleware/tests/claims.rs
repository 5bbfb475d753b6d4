//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_middleware");

#[test]
fn has_no_more_in_flight_than_the_limit() {
    claims_hold(PROGRAM, 4);
    claim_fails(PROGRAM, "--without-bucket", "were allowed");
}
