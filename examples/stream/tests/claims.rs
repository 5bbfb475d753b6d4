//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stream");

#[test]
fn ends_in_order() {
    claims_hold(PROGRAM, 3);
    claim_fails(PROGRAM, "--without-bucket", "were allowed");
}
