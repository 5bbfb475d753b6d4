//! Random scripts of calls, and all short ones, compared with a plain sequential model after every call.

#[path = "support/model.rs"]
mod model;

use std::cell::Cell;

use model::{Op, run};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use token_bucket::{Fairness, TokenBucket};

fn indices() -> impl Strategy<Value = usize> {
    0..8_usize
}

fn counts() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(1), 6 => 0..4_usize, 4 => 0..8_usize, 1 => prop_oneof![
        Just(TokenBucket::MAX_CAPACITY),
        Just(usize::try_from(1_u64 << 32).unwrap_or(usize::MAX)),
        Just(usize::MAX),
    ]]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => (counts(), any::<bool>()).prop_map(|(n, owned)| Op::Take { n, owned }),
        5 => Just(Op::Release),
        4 => Just(Op::Idle),
        3 => Just(Op::Settled),
        24 => indices().prop_map(Op::Poll),
        4 => indices().prop_map(Op::PollElsewhere),
        6 => Just(Op::PollWoken),
        6 => indices().prop_map(Op::Cancel),
        8 => (counts(), any::<bool>()).prop_map(|(n, owned)| Op::TryTake { n, owned }),
        3 => (counts(), any::<bool>()).prop_map(|(n, owned)| Op::TryTakeUpTo { n, owned }),
        6 => (counts(), any::<bool>()).prop_map(|(n, owned)| Op::TakeUpTo { n, owned }),
        9 => indices().prop_map(Op::Return),
        4 => indices().prop_map(Op::GiveBack),
        3 => indices().prop_map(Op::Retire),
        2 => indices().prop_map(Op::Forget),
        2 => (indices(), counts()).prop_map(|(from, n)| Op::Split { from, n }),
        2 => (indices(), indices()).prop_map(|(from, into)| Op::Merge { from, into }),
        5 => counts().prop_map(Op::TryRelease),
        3 => counts().prop_map(Op::Refill),
        8 => (0..8_usize).prop_map(Op::SetCapacity),
        4 => counts().prop_map(Op::GrowBy),
        4 => counts().prop_map(Op::ShrinkBy),
        4 => (counts(), any::<bool>()).prop_map(|(n, owned)| Op::GrowAndTake { n, owned }),
        2 => (0..4_usize, 0..6_usize).prop_map(|(tokens, per)| Op::SetRate { tokens, per }),
        4 => (-2..10_i8).prop_map(Op::Tick),
    ]
}

/// A bucket, and a script; some scripts continue after a close.
fn scripts() -> impl Strategy<Value = (usize, usize, Vec<Op>)> {
    let close = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(ops(), 0..10).prop_map(|mut ops| {
        ops.insert(0, Op::Close);
        ops
    })];
    (1..7_usize, 0..7_usize, prop::collection::vec(ops(), 1..50), close).prop_map(|(max, capacity, mut ops, mut close)| {
        ops.append(&mut close);
        (max, capacity.min(max), ops)
    })
}

/// Several waiters, and the same few calls over and over, so that waiters are often woken without success or bypassed.
fn rounds() -> impl Strategy<Value = (usize, usize, Vec<Op>)> {
    let n = || 1..4_usize;
    let round = prop_oneof![
        4 => indices().prop_map(Op::Return),
        4 => n().prop_map(|n| Op::TryTake { n, owned: false }),
        4 => Just(Op::PollWoken),
        1 => indices().prop_map(Op::Poll),
        1 => n().prop_map(Op::TryRelease),
        1 => (0..5_usize).prop_map(Op::SetCapacity),
        1 => Just(Op::Forget(0)),
    ];
    (1..5_usize, prop::collection::vec(n(), 1..4), prop::collection::vec(round, 2..6), 10..40_usize).prop_map(
        |(capacity, waiters, round, times)| {
            let mut ops = vec![Op::TryTake { n: 1, owned: false }; capacity];
            for (at, n) in waiters.into_iter().enumerate() {
                ops.extend([Op::Take { n, owned: false }, Op::Poll(at)]);
            }
            ops.extend(round.repeat(times));
            (6, capacity, ops)
        },
    )
}

fn random(fairness: Fairness, scripts: impl Strategy<Value = (usize, usize, Vec<Op>)>) {
    // The message of a failure has the whole script, so no file of seeds is needed.
    let default = ProptestConfig::default();
    let config = ProptestConfig { cases: 6 * default.cases, failure_persistence: None, ..default };
    let (all, ended) = (Cell::new(0), Cell::new(0));
    let result = TestRunner::new(config).run(&scripts, |(max, capacity, ops)| {
        all.set(all.get() + 1);
        ended.set(ended.get() + u32::from(run(fairness, max, capacity, &ops).map_err(TestCaseError::fail)?));
        Ok(())
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, (max, capacity, ops))) = &result {
        panic!("{reason}\nmax {max}, capacity {capacity}, {ops:?}");
    }
    result.unwrap();
    assert!(20 * ended.get() > 19 * all.get(), "{} of {} scripts reached their end", ended.get(), all.get());
}

#[test]
fn a_fifo_bucket_does_what_the_model_does() {
    random(Fairness::Fifo, scripts());
}

#[test]
fn a_barging_bucket_does_what_the_model_does() {
    random(Fairness::Barging, scripts());
}

/// Even where waiters are bypassed so often that newcomers are shut out.
#[test]
fn a_barging_bucket_shuts_newcomers_out_when_the_model_does() {
    random(Fairness::Barging, rounds());
}

/// A newcomer takes surplus tokens without which a woken request is not satisfiable: it claims nothing any more, and the waiter
/// behind it is woken.
#[test]
fn a_take_of_surplus_tokens_ends_the_claim_that_needs_them() {
    let mut ops = vec![Op::TryTake { n: 1, owned: false }];
    for (at, n) in [1, 3, 1].into_iter().enumerate() {
        ops.extend([Op::Take { n, owned: false }, Op::Poll(at)]);
    }
    ops.extend([Op::TryRelease(3), Op::TryTake { n: 2, owned: false }].repeat(2));
    assert_eq!(run(Fairness::Barging, 6, 1, &ops), Ok(true), "to its end");
}

/// All scripts over a small alphabet. Three waiters suffice to show most faults.
fn exhaustive(fairness: Fairness, alphabet: &[Op], len: u32) {
    for capacity in 0..=2 {
        for mut number in 0..alphabet.len().pow(len) {
            let mut ops = vec![Op::Take { n: 1, owned: false }, Op::Take { n: 2, owned: true }, Op::Take { n: 1, owned: false }];
            for _ in 0..len {
                ops.push(alphabet[number % alphabet.len()]);
                number /= alphabet.len();
            }
            if let Err(difference) = run(fairness, 2, capacity, &ops) {
                panic!("{difference}");
            }
        }
    }
}

/// The length of the scripts. One more call takes ten times as long.
fn length() -> u32 {
    std::env::var("TOKEN_BUCKET_SCRIPT").map_or(4, |len| len.parse().expect("TOKEN_BUCKET_SCRIPT is a number"))
}

const TAKERS: [Op; 10] = [
    Op::Poll(0),
    Op::Poll(1),
    Op::Poll(2),
    Op::Cancel(0),
    Op::Cancel(1),
    Op::TryTake { n: 1, owned: false },
    Op::Return(0),
    Op::TryRelease(1),
    Op::SetCapacity(1),
    Op::SetCapacity(2),
];

const RELEASERS: [Op; 8] = [
    Op::Release,
    Op::Poll(3),
    Op::Poll(4),
    Op::Cancel(3),
    Op::PollWoken,
    Op::TryTake { n: 1, owned: false },
    Op::TryTake { n: 2, owned: false },
    Op::SetCapacity(0),
];

const WATCHERS: [Op; 10] = [
    Op::Idle,
    Op::Settled,
    Op::Poll(0),
    Op::Poll(1),
    Op::Poll(3),
    Op::Cancel(3),
    Op::TryTake { n: 1, owned: false },
    Op::Return(0),
    Op::Tick(4),
    Op::SetCapacity(1),
];

const RESIZERS: [Op; 10] = [
    Op::Poll(0),
    Op::Poll(1),
    Op::Poll(2),
    Op::TryTake { n: 1, owned: false },
    Op::Return(0),
    Op::Retire(0),
    Op::GiveBack(0),
    Op::GrowAndTake { n: 1, owned: false },
    Op::GrowBy(1),
    Op::ShrinkBy(1),
];

#[test]
fn every_short_script_of_takers() {
    exhaustive(Fairness::Fifo, &TAKERS, length());
    exhaustive(Fairness::Barging, &TAKERS, length());
}

#[test]
fn every_short_script_of_releasers() {
    exhaustive(Fairness::Fifo, &RELEASERS, length());
    exhaustive(Fairness::Barging, &RELEASERS, length());
}

#[test]
fn every_short_script_of_watchers() {
    exhaustive(Fairness::Fifo, &WATCHERS, length());
    exhaustive(Fairness::Barging, &WATCHERS, length());
}

#[test]
fn every_short_script_of_resizers() {
    exhaustive(Fairness::Fifo, &RESIZERS, length());
    exhaustive(Fairness::Barging, &RESIZERS, length());
}
