//! Waiting for all tokens to be back, or for a shrink to take full effect: `idle` and `settled`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use support::{MAX, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};
use token_bucket::{Fairness, TokenBucket};

both! {
    a_bucket_of_which_nothing_was_taken_is_idle,
    idle_comes_with_the_last_token,
    a_deficit_is_not_idle,
    a_forgotten_token_is_out_until_another_takes_its_place,
    more_than_the_capacity_is_idle,
    a_bucket_without_capacity_is_idle_when_all_is_paid_back,
    those_who_wait_come_first,
    a_token_that_goes_to_a_waiter_does_not_make_it_idle,
    all_who_watch_are_woken_together,
    it_was_idle_even_if_it_is_no_more,
    a_closed_bucket_becomes_idle,
    closing_a_bucket_does_not_make_it_idle,
    a_resize_does_not_make_it_idle,
    one_that_is_dropped_leaves_nothing_behind,
    one_uses_the_last_waker_that_it_was_polled_with,
    one_who_watches_holds_up_nobody,
    one_tells_when_it_is_over,
    threads_wait_for_idle,
    a_thread_gives_up_in_time,
    it_is_idle_at_once_if_it_is_idle,
    a_panicking_holder_makes_it_idle_as_well,
    a_thread_that_sees_all_tokens_back_and_takes_again_does_not_hide_it,
    one_that_was_woken_and_is_not_polled_slows_no_caller,
    a_bucket_without_deficit_is_settled,
    a_shrink_is_settled_with_the_last_token_of_the_excess,
    a_growth_or_a_retired_token_settles,
    it_was_settled_even_if_it_is_no_more,
    a_closed_bucket_becomes_settled,
    idle_and_settled_are_woken_at_their_own_moments,
    watchers_hold_up_no_waiter,
    threads_wait_until_it_is_settled,
}

fn a_bucket_of_which_nothing_was_taken_is_idle(fairness: Fairness) {
    task(bucket(fairness, 2).idle()).done();
    task(bucket(fairness, 0).idle()).done();
}

fn idle_comes_with_the_last_token(fairness: Fairness) {
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
    drop(tokens.split(2)); // paid back
    assert_eq!((bucket.deficit(), idle.wakes()), (0, 0));
    drop(tokens);
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn a_forgotten_token_is_out_until_another_takes_its_place(fairness: Fairness) {
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

fn more_than_the_capacity_is_idle(fairness: Fairness) {
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

fn a_bucket_without_capacity_is_idle_when_all_is_paid_back(fairness: Fairness) {
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

fn those_who_wait_come_first(fairness: Fairness) {
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
        // There it lies in the bucket until the waiter comes.
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
    assert_eq!(idle.wakes(), 0, "the second has both");
    drop(second.done());
    assert_eq!(idle.wakes(), 1);
    idle.done();
}

fn all_who_watch_are_woken_together(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let mut idles: Vec<_> = (0..100).map(|_| waiting(bucket.idle())).collect();
    drop(token);
    for idle in &mut idles {
        assert_eq!(idle.wakes(), 1);
        idle.done();
    }
    // And nothing is left of them.
    drop(bucket.try_take());
    assert!(idles.iter().all(|idle| idle.wakes() == 1));
}

fn it_was_idle_even_if_it_is_no_more(fairness: Fairness) {
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

fn one_that_is_dropped_leaves_nothing_behind(fairness: Fairness) {
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
    // Also after it was woken.
    let token = bucket.try_take().unwrap();
    let (woken, mut other) = (waiting(bucket.idle()), waiting(bucket.idle()));
    drop(token);
    drop(woken);
    other.done();
}

fn one_uses_the_last_waker_that_it_was_polled_with(fairness: Fairness) {
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

fn one_who_watches_holds_up_nobody(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let token = bucket.try_take().unwrap();
    let mut idle = waiting(bucket.idle());
    assert_eq!(bucket.waiting(), 0, "it wants no token");
    for _ in 0..10 {
        drop(bucket.try_take().unwrap());
        drop(task(bucket.take()).done().unwrap());
    }
    idle.waits();
    drop(token);
    idle.done();
}

fn one_tells_when_it_is_over(fairness: Fairness) {
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

fn a_thread_gives_up_in_time(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let (begin, limit) = (Instant::now(), Duration::from_millis(20));
    assert!(!bucket.idle().wait_timeout(limit));
    assert!(begin.elapsed() >= limit);
    assert!(!bucket.idle().wait_deadline(begin));
    drop(token);
    assert!(bucket.idle().wait_timeout(limit));
}

fn it_is_idle_at_once_if_it_is_idle(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    bucket.idle().wait();
    assert!(bucket.idle().wait_timeout(Duration::ZERO));
    assert!(bucket.idle().wait_timeout(Duration::MAX));
    assert!(bucket.idle().wait_deadline(Instant::now()));
}

fn a_panicking_holder_makes_it_idle_as_well(fairness: Fairness) {
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

/// Another thread keeps the queue busy, so that it must hear of the return.
fn a_thread_that_sees_all_tokens_back_and_takes_again_does_not_hide_it(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 1);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // More than the capacity.
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

/// A flag that was left for it would make returns serve the queue, and takes fail meanwhile.
fn one_that_was_woken_and_is_not_polled_slows_no_caller(fairness: Fairness) {
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
    assert_eq!(bucket.waiting(), 0, "it wants no token");
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
    // Tokens that come with their capacity do not.
    let bucket = bucket(fairness, 3);
    let _tokens = bucket.try_take_many(3).unwrap();
    bucket.set_capacity(2).unwrap();
    let mut settled = waiting(bucket.settled());
    bucket.grow_and_take(1).unwrap().forget();
    settled.waits();
    assert_eq!((bucket.deficit(), settled.wakes()), (1, 0));
}

fn it_was_settled_even_if_it_is_no_more(fairness: Fairness) {
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
    assert_eq!(early.wakes(), 0, "a close settles nothing");
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

/// Neither a taker nor a releaser, and a deferred request not either.
fn watchers_hold_up_no_waiter(fairness: Fairness) {
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

fn threads_wait_until_it_is_settled(fairness: Fairness) {
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
