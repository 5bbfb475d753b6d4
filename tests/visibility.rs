//! The holder of a token sees what the previous holder did: a bucket of one token guards plain memory.
//!
//! An ordering that is too weak rarely shows on this machine, but `ThreadSanitizer` reports it (`.ci/race`).

mod support;

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::thread;

use support::{both, bucket, in_time};
use token_bucket::{Fairness, Token, TokenBucket};

both! {
    a_dropped_token_hands_memory_on,
    a_replaced_token_hands_memory_on,
    a_resize_hands_memory_on,
    a_getter_shows_what_was_done_before,
}

/// A counter that only one thread may touch at a time.
struct Plain(UnsafeCell<usize>);

#[allow(unsafe_code, reason = "only memory that nothing else guards shows whether the bucket does")]
// SAFETY: `next` is called with the only token.
unsafe impl Sync for Plain {}

impl Plain {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    #[allow(unsafe_code, reason = "as above")]
    fn next(&self) {
        // SAFETY: the caller has the only token.
        unsafe { *self.0.get() += 1 }
    }

    #[allow(unsafe_code, reason = "as above")]
    fn get(&self) -> usize {
        // SAFETY: the caller has the only token, or no thread writes any more.
        unsafe { *self.0.get() }
    }
}

/// Takes the token in one of many ways.
fn take(bucket: &TokenBucket, turn: usize) -> Token<'_> {
    match turn % 4 {
        0 => bucket.take().wait().unwrap(),
        1 => pollster::block_on(bucket.take()).unwrap(),
        2 => bucket.try_take().unwrap_or_else(|_| bucket.take().wait().unwrap()),
        _ => bucket.try_take_up_to(3).unwrap_or_else(|_| bucket.take().wait().unwrap()),
    }
}

const THREADS: usize = 3;
const TURNS: usize = 2_000;

fn hand_on(fairness: Fairness, give_back: impl Fn(&TokenBucket, Token<'_>, usize) + Send + Sync + 'static) {
    in_time(move || {
        let (bucket, plain) = (bucket(fairness, 1), Plain::new());
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (bucket, plain, give_back) = (&bucket, &plain, &give_back);
                scope.spawn(move || {
                    for turn in 0..TURNS {
                        let token = take(bucket, turn + thread);
                        plain.next();
                        give_back(bucket, token, turn);
                    }
                });
            }
        });
        assert_eq!(plain.get(), THREADS * TURNS);
        assert_eq!((bucket.available(), bucket.waiting()), (1, 0));
    });
}

fn a_dropped_token_hands_memory_on(fairness: Fairness) {
    hand_on(fairness, |_, token, _| drop(token));
}

fn a_replaced_token_hands_memory_on(fairness: Fairness) {
    hand_on(fairness, |bucket, token, turn| {
        token.forget();
        match turn % 3 {
            0 => bucket.try_release().unwrap(),
            1 => bucket.release().wait().unwrap(),
            _ => assert_eq!(bucket.refill(1), 1),
        }
    });
}

/// Half of the turns end with a resize that brings the token.
fn a_resize_hands_memory_on(fairness: Fairness) {
    hand_on(fairness, |bucket, token, turn| {
        if turn % 2 == 0 {
            // The outstanding token becomes a deficit, which the refill pays off; then a growth adds another token.
            token.forget();
            assert_eq!(bucket.set_capacity(0).unwrap().deficit, 1);
            assert_eq!(bucket.refill(1), 1);
            bucket.set_capacity(1).unwrap();
        } else {
            drop(token);
        }
    });
}

fn a_getter_shows_what_was_done_before(fairness: Fairness) {
    in_time(move || {
        for _ in 0..200 {
            let (bucket, plain) = (bucket(fairness, 1), Plain::new());
            let token = bucket.try_take().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    while bucket.outstanding() > 0 {
                        thread::yield_now();
                    }
                    assert_eq!(plain.get(), 1);
                });
                plain.next();
                drop(token);
            });
        }
    });
}
