//! Threads that block: a wake-up that is lost is a deadlock, which shuttle finds.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use token_bucket::{Fairness, TokenBucket};

pub(crate) fn run(fairness: Fairness, threads: usize) {
    let bucket = &TokenBucket::const_new(4, thread_rng().gen_range(1..3)).with_fairness(fairness);
    let deposits = &AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..threads {
            scope.spawn(move || {
                for _ in 0..thread_rng().gen_range(1..4) {
                    // The first one sees to it that all are served in the end, also those that are for more than the capacity.
                    step(bucket, if n == 0 { 8 } else { thread_rng().gen_range(0..8) }, deposits);
                }
                if n == 0 {
                    bucket.set_capacity(3).unwrap();
                }
            });
        }
    });
    let now = bucket.snapshot();
    assert!(now.capacity >= 3 && (now.outstanding, now.deficit) == (0, 0), "{now:?}");
    assert_eq!(bucket.waiting(), 0);
    assert_eq!(deposits.load(Relaxed), 0);
    assert_eq!(bucket.try_take_up_to(9).map_or(0, |tokens| tokens.count()), now.capacity);
}

fn step(bucket: &TokenBucket, what: usize, deposits: &AtomicUsize) {
    crate::trace(|| format!("blocking step {what} in {:?}", bucket.snapshot()));
    match what {
        0..=2 => drop(bucket.take_many(what + 1).wait().unwrap()),
        3 => drop(bucket.take_up_to(3).wait().unwrap()),
        4 => {
            // A token is forgotten, and another thread, or this one, puts one in its place.
            bucket.take().wait().unwrap().forget();
            deposits.fetch_add(1, Relaxed);
            bucket.release().wait().unwrap();
            deposits.fetch_sub(1, Relaxed);
        }
        5 => drop(bucket.try_take_up_to(2)),
        6 => bucket.settled().wait(),
        7 => drop(bucket.update_capacity(|capacity| (capacity + 1).min(4))),
        _ => drop(bucket.set_capacity(thread_rng().gen_range(0..4))),
    }
    crate::trace(|| format!("done {what} in {:?}", bucket.snapshot()));
}
