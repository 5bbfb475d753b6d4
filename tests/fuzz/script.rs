//! Runs a script that libFuzzer wrote on a bucket and on the model (`.ci/fuzz`).
#![no_main]

#[path = "../support/model.rs"]
mod model;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use model::Op;
use token_bucket::{Fairness, TokenBucket};

fn index(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(u8::arbitrary(u)? % 16))
}

/// Mostly a small number; sometimes more than a bucket can hold.
fn count(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match u8::arbitrary(u)? {
        255 => usize::MAX,
        254 => 1 << 32,
        253 => TokenBucket::MAX_CAPACITY,
        n => usize::from(n % 10),
    })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u8::arbitrary(u)? % 30 {
        0 | 1 => Op::Take { n: count(u)?, owned: bool::arbitrary(u)? },
        2 => Op::Release,
        3..=5 => Op::Poll(index(u)?),
        6 => Op::PollElsewhere(index(u)?),
        7 => Op::PollWoken,
        8 => Op::Cancel(index(u)?),
        9 => Op::TryTake { n: count(u)?, owned: bool::arbitrary(u)? },
        10 => Op::TryTakeUpTo { n: count(u)?, owned: bool::arbitrary(u)? },
        11 | 12 => Op::Return(index(u)?),
        13 => Op::Forget(index(u)?),
        14 => Op::Split { from: index(u)?, n: count(u)? },
        15 => Op::Merge { from: index(u)?, into: index(u)? },
        16 => Op::TryRelease(count(u)?),
        17 => Op::Refill(count(u)?),
        18 => Op::SetCapacity(count(u)?),
        19 => Op::Idle,
        20 => Op::SetRate { tokens: index(u)?, per: index(u)? },
        21 => Op::Tick(i8::arbitrary(u)?),
        22 => Op::Settled,
        23 => Op::TakeUpTo { n: count(u)?, owned: bool::arbitrary(u)? },
        24 => Op::GiveBack(index(u)?),
        25 => Op::Retire(index(u)?),
        26 => Op::GrowBy(count(u)?),
        27 => Op::ShrinkBy(count(u)?),
        28 => Op::GrowAndTake { n: count(u)?, owned: bool::arbitrary(u)? },
        // Rarely, because a closed bucket refuses most calls.
        _ if u8::arbitrary(u)? < 16 => Op::Close,
        _ => Op::SetCapacity(index(u)?),
    })
}

fn script(u: &mut Unstructured<'_>) -> Result<(Fairness, usize, usize, Vec<Op>)> {
    let fairness = if bool::arbitrary(u)? { Fairness::Fifo } else { Fairness::Barging };
    let max = 1 + index(u)? % 9;
    let capacity = index(u)? % (max + 1);
    let mut ops = Vec::new();
    while !u.is_empty() && ops.len() < 1000 {
        // Sometimes the last few calls are repeated, so that a waiter may starve.
        if u.ratio(1, 32)? {
            let last = ops[ops.len().saturating_sub(index(u)?)..].repeat(1 + 2 * index(u)?);
            ops.extend(last);
        }
        ops.push(op(u)?);
    }
    Ok((fairness, max, capacity, ops))
}

fuzz_target!(|data: &[u8]| {
    if let Ok((fairness, max, capacity, ops)) = script(&mut Unstructured::new(data)) {
        if let Err(difference) = model::run(fairness, max, capacity, &ops) {
            panic!("{difference}");
        }
    }
});
