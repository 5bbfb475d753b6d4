//! A waiter that is never polled while others take tokens ahead of it: how often they can is bounded, in every schedule.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use token_bucket::{Fairness, TokenBucket};

use crate::waiting::{Kind, Outcome, Waiting};

/// As in queue.rs, under loom.
const STARVING_AFTER: usize = 2;

pub(crate) fn run(fairness: Fairness, threads: usize) {
    let count = thread_rng().gen_range(1..3);
    let need = thread_rng().gen_range(1..=count);
    let bucket = &TokenBucket::const_new(2, count).with_fairness(fairness);
    let mut tokens = bucket.try_take_many(count).unwrap();
    let mut victim = Waiting::new(bucket, 0, 0, Kind::Take { min: need, up_to: need });
    assert!(victim.poll().is_pending());
    let newcomers = &AtomicUsize::new(0);
    crate::trace(|| format!("{count} tokens, {need} needed"));
    thread::scope(|scope| {
        for n in 0..threads {
            let token = tokens.split(usize::from(n < count));
            scope.spawn(move || {
                drop(token);
                for step in 0..4 {
                    if thread_rng().gen_bool(0.7) {
                        if let Ok(token) = bucket.try_take() {
                            newcomers.fetch_add(1, Relaxed);
                            crate::trace(|| format!("took ahead of the waiter {bucket:?}"));
                            drop(token);
                        }
                    } else {
                        // One behind it, which may be served if there is a token to spare.
                        let mut other = Waiting::new(bucket, 1 + 10 * n + step, 0, Kind::Take { min: 1, up_to: 1 });
                        for _ in 0..2 {
                            if let std::task::Poll::Ready(taken) = other.poll() {
                                crate::trace(|| format!("took behind the waiter {bucket:?}"));
                                newcomers.fetch_add(1, Relaxed);
                                drop(taken);
                                break;
                            }
                        }
                        other.cancel();
                    }
                }
            });
        }
    });
    let bypasses = newcomers.load(Relaxed);
    // With one token, each take ahead of the waiter is a loss. With two, there may be two of them for each loss, and before the
    // first.
    let bound = match fairness {
        Fairness::Fifo => 0,
        _ if count == 1 => STARVING_AFTER,
        _ => (STARVING_AFTER + 1) * count,
    };
    // What is in the bucket need not be for the waiter alone.
    assert!(need < count || bypasses <= bound, "bypassed {bypasses} times");
    match victim.poll() {
        std::task::Poll::Ready(Outcome::Tokens(tokens)) => assert_eq!(tokens.count(), need),
        other => panic!("not served: {other:?} of {bucket:?}"),
    }
    let now = bucket.snapshot();
    assert_eq!((now.available, now.outstanding, bucket.waiting()), (count, 0, 0), "{now:?}");
}
