//! Runs the short mode of the program, which checks its own claims.
#![cfg(unix)]

use example_support::testing::{claim_fails, claims_hold};

const PROGRAM: &str = env!("CARGO_BIN_EXE_api_client");

#[test]
fn is_never_refused() {
    claims_hold(PROGRAM, 4);
    claim_fails(PROGRAM, "--without-limiter", "were refused");
}
