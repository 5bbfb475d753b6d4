//! Waiting until no token is outstanding, or until a shrink has taken full effect: `idle` and `settled`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use support::{MAX, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, TokenBucket};

both! {
    a_bucket_with_no_token_taken_is_idle,
    idle_is_ready_with_the_last_token,
    a_deficit_is_not_idle,
    a_forgotten_token_is_outstanding_until_it_is_replaced,
    an_overfilled_bucket_is_idle,
    a_bucket_without_capacity_is_idle_when_all_tokens_are_back,
    waiters_come_first,
    a_token_that_goes_to_a_waiter_does_not_make_it_idle,
    all_watchers_are_woken_together,
    idle_is_ready_even_if_the_moment_has_passed,
    a_closed_bucket_becomes_idle,
    closing_a_bucket_does_not_make_it_idle,
    a_resize_does_not_make_it_idle,
    a_dropped_watcher_leaves_nothing_behind,
    a_watcher_uses_the_last_waker_that_it_was_polled_with,
    a_watcher_blocks_no_caller,
    a_watcher_is_fused_and_shows_its_stage,
    threads_wait_for_idle,
    a_blocked_thread_times_out,
    a_thread_does_not_block_if_the_bucket_is_idle,
    a_panicking_holder_makes_the_bucket_idle,
    a_moment_of_idleness_is_seen_although_a_thread_takes_again,
    a_woken_watcher_that_is_not_polled_slows_no_caller,
    a_bucket_without_deficit_is_settled,
    a_shrink_is_settled_with_the_last_token_of_the_excess,
    a_growth_or_a_retired_token_settles,
    settled_is_ready_even_if_the_moment_has_passed,
    a_closed_bucket_becomes_settled,
    idle_and_settled_are_woken_at_their_own_moments,
    watchers_block_no_waiter,
    threads_wait_until_the_bucket_is_settled,
}

fn a_bucket_with_no_token_taken_is_idle(fairness: Fairness) {
    task(bucket(fairness, 2).idle()).done();
    task(bucket(fairness, 0).idle()).done();
}

fn idle_is_ready_with_the_last_token(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut tokens = bucket.try_take_many(3).unwrap();
    let mut idle = waiting(bucket.idle());
    drop(tokens.split(2));
    assert_eq!(idle.wakes(), 0);
    idle.waits();
    drop(tokens);
    assert_eq!(idle.wakes(), 1);
    idle.done();
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn a_deficit_is_not_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut tokens = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(1).unwrap();
    let mut idle = waiting(bucket.idle());
    drop(tokens.split(2)); // these pay off the deficit
    assert_eq!((bucket.deficit(), idle.wakes()), (0, 0));
    drop(tokens);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn a_forgotten_token_is_outstanding_until_it_is_replaced(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    bucket.try_take().unwrap().forget();
    drop(bucket.try_take());
    let mut idle = waiting(bucket.idle());
    bucket.try_release().unwrap();
    assert_eq!(idle.wakes(), 1);
    idle.done();
    bucket.try_take().unwrap().forget();
    let mut idle = waiting(bucket.idle());
    assert_eq!(bucket.refill(1), 1);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn an_overfilled_bucket_is_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    bucket.try_release_many(3).unwrap();
    let tokens = bucket.try_take_many(2).unwrap();
    task(bucket.idle()).done();
    drop(tokens);
    let tokens = bucket.try_take_many(5).unwrap();
    let mut idle = waiting(bucket.idle());
    drop(tokens);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn a_bucket_without_capacity_is_idle_when_all_tokens_are_back(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut tokens = bucket.try_take_many(2).unwrap();
    bucket.set_capacity(0).unwrap();
    let mut idle = waiting(bucket.idle());
    drop(tokens.split(1));
    assert_eq!(idle.wakes(), 0);
    drop(tokens);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn waiters_come_first(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut take = waiting(bucket.take());
    let mut idle = waiting(bucket.idle());
    drop(token);
    let token = take.done().unwrap();
    drop(token);
    assert!(idle.is_woken());
    idle.done();
}

fn a_token_that_goes_to_a_waiter_does_not_make_it_idle(fairness: Fairness) {
    if fairness == Fairness::Barging {
        // There the token stays in the bucket until the waiter takes it.
        return;
    }
    let bucket = bucket(fairness, 2);
    let mut tokens = bucket.try_take_many(2).unwrap();
    let mut first = waiting(bucket.take());
    let mut second = waiting(bucket.take_many(2));
    let mut idle = waiting(bucket.idle());
    drop(tokens.split(1));
    drop(tokens);
    assert_eq!(idle.wakes(), 0);
    drop(first.done());
    assert_eq!(idle.wakes(), 0, "the second waiter has both");
    drop(second.done());
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn all_watchers_are_woken_together(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut idles: Vec<_> = (0..100).map(|_| waiting(bucket.idle())).collect();
    drop(token);
    for idle in &mut idles {
        assert_eq!(idle.wakes(), 1);
        idle.done();
    }
    // The woken futures leave no trace.
    drop(bucket.try_take());
    assert!(idles.iter().all(|idle| idle.wakes() == 1));
}

fn idle_is_ready_even_if_the_moment_has_passed(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut idle = waiting(bucket.idle());
    drop(token);
    let token = bucket.try_take().unwrap();
    idle.done();
    let mut idle = waiting(bucket.idle());
    drop(token);
    idle.done();
}

fn a_closed_bucket_becomes_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let mut tokens = bucket.try_take_many(2).unwrap();
    let mut early = waiting(bucket.idle());
    bucket.close();
    let mut late = waiting(bucket.idle());
    drop(tokens.split(1));
    early.waits();
    drop(tokens);
    assert!(early.is_woken() && late.is_woken());
    early.done();
    late.done();
    task(bucket.idle()).done();
}

fn closing_a_bucket_does_not_make_it_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut take = waiting(bucket.take());
    let mut idle = waiting(bucket.idle());
    bucket.close();
    assert!(take.done().is_err());
    assert_eq!(idle.wakes(), 0);
    drop(token);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn a_resize_does_not_make_it_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 4);
    let token = bucket.try_take().unwrap();
    let mut idle = waiting(bucket.idle());
    for capacity in [1, 0, MAX, 3] {
        bucket.set_capacity(capacity).unwrap();
        idle.waits();
    }
    drop(token);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn a_dropped_watcher_leaves_nothing_behind(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let (wakes, waker) = counting_waker();
    let mut idle = bucket.idle();
    assert!(poll_with(&mut idle, &waker).is_pending());
    let mut other = waiting(bucket.idle());
    drop(idle);
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 1, "its waker is dropped with it");
    drop(token);
    assert_eq!(wakes.count(), 0);
    other.done();
    // Even after it was woken.
    let token = bucket.try_take().unwrap();
    let (woken, mut other) = (waiting(bucket.idle()), waiting(bucket.idle()));
    drop(token);
    drop(woken);
    other.done();
}

fn a_watcher_uses_the_last_waker_that_it_was_polled_with(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let (old, new) = (counting_waker(), counting_waker());
    let mut idle = bucket.idle();
    assert!(poll_with(&mut idle, &old.1).is_pending());
    assert!(poll_with(&mut idle, &new.1).is_pending());
    drop(token);
    assert_eq!((old.0.count(), new.0.count()), (0, 1));
    assert!(poll_with(&mut idle, &new.1).is_ready());
}

fn a_watcher_blocks_no_caller(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let token = bucket.try_take().unwrap();
    let mut idle = waiting(bucket.idle());
    assert_eq!(bucket.waiting(), 0, "it requests no token");
    for _ in 0..10 {
        drop(bucket.try_take().unwrap());
        drop(task(bucket.take()).done().unwrap());
    }
    idle.waits();
    drop(token);
    idle.done();
}

fn a_watcher_is_fused_and_shows_its_stage(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut idle = task(bucket.idle());
    assert_eq!((idle.future().is_terminated(), format!("{:?}", idle.future())), (false, "Idle { stage: new, .. }".into()));
    idle.waits();
    assert_eq!((idle.future().is_terminated(), format!("{:?}", idle.future())), (false, "Idle { stage: waiting, .. }".into()));
    drop(token);
    idle.done();
    assert_eq!((idle.future().is_terminated(), format!("{:?}", idle.future())), (true, "Idle { stage: done, .. }".into()));
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| idle.poll()));
    assert!(again.is_err(), "polled after it completed");
}

fn threads_wait_for_idle(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 4));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let token = bucket.try_take_owned().unwrap();
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(10));
                    drop(token);
                })
            })
            .collect();
        bucket.close();
        bucket.idle().wait();
        assert_eq!(bucket.outstanding(), 0);
        for taker in takers {
            taker.join().unwrap();
        }
    });
}

fn a_blocked_thread_times_out(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let (begin, limit) = (Instant::now(), Duration::from_millis(20));
    assert!(!bucket.idle().wait_timeout(limit));
    assert!(begin.elapsed() >= limit);
    assert!(!bucket.idle().wait_deadline(begin));
    drop(token);
    assert!(bucket.idle().wait_timeout(limit));
}

fn a_thread_does_not_block_if_the_bucket_is_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    bucket.idle().wait();
    assert!(bucket.idle().wait_timeout(Duration::ZERO));
    assert!(bucket.idle().wait_timeout(Duration::MAX));
    assert!(bucket.idle().wait_deadline(Instant::now()));
}

fn a_panicking_holder_makes_the_bucket_idle(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 1));
    let token = bucket.try_take_owned().unwrap();
    let mut idle = waiting(bucket.idle());
    let holder = thread::spawn(move || {
        let _token = token;
        panic!("on purpose");
    });
    assert!(holder.join().is_err());
    idle.done();
}

/// Another thread keeps the queue busy, so that it must notice the return.
fn a_moment_of_idleness_is_seen_although_a_thread_takes_again(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 1);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // A request above the capacity.
                    drop(waiting(bucket.take_many(2)));
                }
            });
            let mut token = bucket.try_take().unwrap();
            let mut missed = 0;
            for _ in 0..5_000 {
                let mut idle = waiting(bucket.idle());
                drop(token);
                assert_eq!(bucket.outstanding(), 0);
                token = loop {
                    if let Ok(token) = bucket.try_take() {
                        break token;
                    }
                    thread::yield_now();
                };
                missed += usize::from(idle.poll().is_pending());
            }
            done.store(true, Ordering::SeqCst);
            assert_eq!(missed, 0);
        });
    });
}

/// A flag that it left behind would make every return serve the queue, and takes would fail meanwhile.
fn a_woken_watcher_that_is_not_polled_slows_no_caller(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 2);
        let mut token = bucket.try_take().unwrap();
        let (mut idle, mut settled) = (waiting(bucket.idle()), task(bucket.settled()));
        bucket.set_capacity(0).unwrap();
        settled.waits();
        bucket.set_capacity(2).unwrap();
        token = {
            drop(token);
            bucket.try_take().unwrap()
        };
        drop(token);
        assert!(idle.is_woken() && settled.is_woken());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        drop(bucket.try_take().expect("there is one for each thread"));
                    }
                });
            }
        });
        idle.done();
        settled.done();
    });
}

// Settled.

fn a_bucket_without_deficit_is_settled(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    task(bucket.settled()).done();
    let token = bucket.try_take_many(2).unwrap();
    task(bucket.settled()).done();
    bucket.set_capacity(0).unwrap();
    let mut settled = waiting(bucket.settled());
    assert_eq!(bucket.waiting(), 0, "it requests no token");
    drop(token);
    assert_eq!(settled.wakes(), 1);
    settled.done();
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| settled.poll()));
    assert!(again.is_err(), "polled after it completed");
}

fn a_shrink_is_settled_with_the_last_token_of_the_excess(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let mut tokens = bucket.try_take_many(5).unwrap();
    let mut take = waiting(bucket.take());
    bucket.set_capacity(2).unwrap();
    let mut settled = waiting(bucket.settled());
    for deficit in [2, 1] {
        drop(tokens.split(1));
        assert_eq!((bucket.deficit(), settled.wakes()), (deficit, 0));
        settled.waits();
    }
    drop(tokens.split(1));
    assert_eq!((bucket.deficit(), settled.wakes(), take.wakes()), (0, 1, 0));
    settled.done();
    drop(tokens);
    drop(take.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn a_growth_or_a_retired_token_settles(fairness: Fairness) {
    for way in 0..4 {
        let bucket = bucket(fairness, 3);
        let mut tokens = bucket.try_take_many(3).unwrap();
        bucket.set_capacity(2).unwrap();
        let mut settled = waiting(bucket.settled());
        match way {
            0 => assert_eq!(bucket.set_capacity(3).unwrap().deficit, 0),
            1 => tokens.split(1).unwrap().retire(),
            2 => assert_eq!(tokens.split(1).unwrap().give_back().retired, 1),
            _ => bucket.try_release().unwrap(),
        }
        assert_eq!((bucket.deficit(), settled.wakes()), (0, 1), "way {way}");
        settled.done();
    }
    // Tokens that are added together with their capacity settle nothing.
    let bucket = bucket(fairness, 3);
    let _tokens = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(2).unwrap();
    let mut settled = waiting(bucket.settled());
    bucket.grow_and_take(1).unwrap().forget();
    settled.waits();
    assert_eq!((bucket.deficit(), settled.wakes()), (1, 0));
}

fn settled_is_ready_even_if_the_moment_has_passed(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let tokens = bucket.try_take_many(2).unwrap();
    bucket.set_capacity(1).unwrap();
    let mut settled = waiting(bucket.settled());
    bucket.set_capacity(2).unwrap();
    bucket.set_capacity(0).unwrap();
    settled.done();
    let mut settled = waiting(bucket.settled());
    drop(tokens);
    settled.done();
}

fn a_closed_bucket_becomes_settled(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    bucket.set_capacity(0).unwrap();
    let mut early = waiting(bucket.settled());
    bucket.close();
    assert_eq!(early.wakes(), 0, "a close pays off no deficit");
    let mut late = waiting(bucket.settled());
    drop(token);
    assert!(early.is_woken() && late.is_woken());
    early.done();
    late.done();
}

fn idle_and_settled_are_woken_at_their_own_moments(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut tokens = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(1).unwrap();
    let (mut idle, mut settled) = (waiting(bucket.idle()), waiting(bucket.settled()));
    let others = [waiting(bucket.idle()), waiting(bucket.settled())];
    drop(others);
    drop(tokens.split(2));
    assert_eq!((idle.wakes(), settled.wakes()), (0, 1));
    drop(tokens);
    assert_eq!((idle.wakes(), settled.wakes()), (1, 1));
    settled.done();
    idle.done();
}

/// Neither a taker, nor a releaser, nor a deferred request.
fn watchers_block_no_waiter(fairness: Fairness) {
    let bucket = TokenBucket::new(4, 2).unwrap().with_fairness(fairness);
    let token = bucket.try_take_many(2).unwrap();
    bucket.set_capacity(1).unwrap();
    let watchers = [waiting(bucket.idle()), waiting(bucket.settled())];
    let (mut take, mut large) = (waiting(bucket.take()), waiting(bucket.take_many(3)));
    drop(token);
    drop(take.done().unwrap());
    bucket.set_capacity(3).unwrap();
    drop(large.done().unwrap());
    bucket.refill(1);
    let mut release = waiting(bucket.release());
    bucket.try_take().unwrap().forget();
    release.done().unwrap();
    drop(watchers);
}

fn threads_wait_until_the_bucket_is_settled(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 2));
        let tokens = bucket.try_take_many_owned(2).unwrap();
        bucket.settled().wait();
        bucket.set_capacity(1).unwrap();
        let begin = Instant::now();
        let limit = Duration::from_millis(20);
        assert!(!bucket.settled().wait_timeout(limit));
        assert!(begin.elapsed() >= limit);
        assert!(!bucket.settled().wait_deadline(begin));
        let holder = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            drop(tokens);
        });
        bucket.settled().wait();
        assert_eq!(bucket.deficit(), 0);
        assert!(bucket.settled().wait_timeout(Duration::ZERO) && bucket.settled().wait_deadline(begin));
        holder.join().unwrap();
    });
}
