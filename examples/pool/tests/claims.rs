//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pool");

#[test]
fn opens_no_more_than_the_capacity() {
    claims_hold(PROGRAM, 4);
    claim_fails(PROGRAM, "--without-bucket", "were allowed");
}
