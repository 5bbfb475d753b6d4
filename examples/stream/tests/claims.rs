//! Runs the program in its short form, in which it checks what it claims.
#![cfg(unix)]

use example_support::testing::{claim_breaks, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stream");

#[test]
fn ends_in_order() {
    claims_hold(PROGRAM, 3);
    claim_breaks(PROGRAM, "--without-bucket", "were allowed");
}
