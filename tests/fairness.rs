//! The order in which waiters are served, which callers may overtake them, and which waiters are woken when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use token_bucket::{Fairness, Token, TokenBucket, TryTakeError};

mod support;
use support::{Task, both, bucket, counting_waker, in_time, numbers, poll_with, task, waiting};

both! {
    waiters_are_served_in_the_order_of_their_first_poll,
    no_waiter_is_woken_for_too_few_tokens,
    only_the_last_waker_is_woken,
    polling_again_keeps_the_place,
    b9_two_returns_before_any_poll_let_two_waiters_proceed,
    b22_returns_of_any_size_wake_every_waiter_they_suffice_for,
    b28_no_take_is_polled_needlessly,
    b30_waiters_are_woken_once_however_many_there_are,
}

/// Newcomers are shut out after this many losses, as documented at [`Fairness::Barging`].
const LOSSES: usize = 16;

fn wakes<F: Future + Unpin>(takes: &[Task<F>]) -> Vec<usize> {
    takes.iter().map(Task::wakes).collect()
}

/// Takes a token ahead of the queue and returns it, until newcomers are shut out, which must be after exactly 16 times.
#[track_caller]
fn until_shut(bucket: &TokenBucket) {
    assert_eq!((0..=LOSSES).take_while(|_| bucket.try_take().is_ok()).count(), LOSSES);
}

// Both kinds of fairness.

fn waiters_are_served_in_the_order_of_their_first_poll(fairness: Fairness) {
    let bucket = bucket(fairness, 5);
    let mut held = vec![bucket.try_take_many(5).unwrap()];
    let needs = [3, 1, 2, 5, 1, 4];
    let mut takes: Vec<_> = needs.iter().map(|&n| task(bucket.take_many(n))).collect();
    // Neither the order in which the futures were created nor their size counts.
    let order = [4, 0, 3, 1, 5, 2];
    for i in order {
        takes[i].waits();
    }
    let mut served = Vec::new();
    while served.len() < order.len() {
        // Tokens are returned one at a time, including those of served waiters.
        let mut first: Token<'_> = held.remove(0);
        let one = first.split(1).unwrap();
        if first.count() > 0 {
            held.insert(0, first);
        }
        drop(one);
        while let Some(i) = takes.iter().position(Task::is_woken) {
            let token = takes[i].done().unwrap();
            assert_eq!(token.count(), needs[i]);
            held.push(token);
            served.push(i);
        }
        assert_eq!(served, order[..served.len()]);
        assert_eq!(bucket.waiting(), order.len() - served.len());
    }
    drop(held);
    assert_eq!(numbers(&bucket), [5, 0, 0, 0]);
    assert_eq!(wakes(&takes), [1; 6]);
}

fn no_waiter_is_woken_for_too_few_tokens(fairness: Fairness) {
    let bucket = bucket(fairness, 3);
    let mut held = bucket.try_take_many(3).unwrap();
    let mut head = waiting(bucket.take_many(3));
    let mut next = waiting(bucket.take());
    drop(held.split(1));
    drop(held.split(1));
    assert_eq!((head.wakes(), next.wakes()), (0, 0));
    assert_eq!(numbers(&bucket), [2, 1, 0, 2]);
    drop(held);
    assert_eq!((head.wakes(), next.wakes()), (1, 0));
    drop(head.done().unwrap());
    drop(next.done().unwrap());
    assert_eq!((head.wakes(), next.wakes()), (1, 1));
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

fn only_the_last_waker_is_woken(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut take = bucket.take();
    let (old, old_waker) = counting_waker();
    let (new, new_waker) = counting_waker();
    assert!(poll_with(&mut take, &old_waker).is_pending());
    assert!(poll_with(&mut take, &old_waker).is_pending());
    assert!(poll_with(&mut take, &new_waker).is_pending());
    drop(old_waker);
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is kept");
    drop(held);
    assert_eq!((old.count(), new.count()), (0, 1));
    let Poll::Ready(Ok(token)) = poll_with(&mut take, &new_waker) else { panic!("not served") };
    drop((token, new_waker, take));
    assert_eq!(Arc::strong_count(&new), 1, "the new waker is kept");
    assert_eq!((old.count(), new.count()), (0, 1));
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

fn polling_again_keeps_the_place(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let mut token = bucket.try_take().unwrap();
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    for i in 0..3 {
        for take in takes[i..].iter_mut().rev() {
            take.waits();
        }
        drop(token);
        assert_eq!(wakes(&takes), (0..3).map(|n| usize::from(n <= i)).collect::<Vec<_>>());
        token = takes[i].done().unwrap();
    }
    drop(token);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// In async-lock, aube and others, the second of two releases before any poll found the first waiter woken, and woke no other.
fn b9_two_returns_before_any_poll_let_two_waiters_proceed(fairness: Fairness) {
    let bucket = bucket(fairness, 2);
    let held = (bucket.try_take().unwrap(), bucket.try_take().unwrap());
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    drop(held.0);
    assert_eq!(wakes(&takes), [1, 0, 0]);
    drop(held.1);
    assert_eq!(wakes(&takes), [1, 1, 0]);
    let granted = if fairness == Fairness::Fifo { 2 } else { 0 };
    assert_eq!(numbers(&bucket), [2 - granted, granted, 0, 3 - granted]);
    let first = takes[0].done().unwrap();
    assert_eq!(wakes(&takes), [1, 1, 0]);
    let second = takes[1].done().unwrap();
    takes[2].waits();
    assert_eq!(wakes(&takes), [1, 1, 0]);
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    drop((first, second));
    drop(takes[2].done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// marusama's semaphore woke no waiter on some releases, because it compared the weights with the wrong limit.
fn b22_returns_of_any_size_wake_every_waiter_they_suffice_for(fairness: Fairness) {
    let bucket = bucket(fairness, 10);
    let mut held = bucket.try_take_many(10).unwrap();
    let mut takes: Vec<_> = [4, 3, 3, 1].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    drop(held.split(3));
    assert_eq!(wakes(&takes), [0, 0, 0, 0]);
    assert_eq!(numbers(&bucket), [3, 7, 0, 4]);
    // 8 are available: enough for the first two; 1 is left, too few for the last.
    drop(held.split(5));
    let mut tokens = vec![takes[0].done().unwrap(), takes[1].done().unwrap()];
    assert_eq!(wakes(&takes), [1, 1, 0, 0]);
    assert_eq!(numbers(&bucket), [1, 9, 0, 2]);
    drop(held);
    tokens.push(takes[2].done().unwrap());
    assert_eq!(wakes(&takes), [1, 1, 1, 0]);
    assert_eq!(numbers(&bucket), [0, 10, 0, 1]);
    drop(tokens.pop());
    tokens.push(takes[3].done().unwrap());
    drop(tokens);
    assert_eq!(wakes(&takes), [1; 4]);
    assert_eq!(numbers(&bucket), [10, 0, 0, 0]);
}

/// async-lock's owned acquire removed its listener before each poll, and so was polled again and again.
fn b28_no_take_is_polled_needlessly(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 1));
        for i in 0..2 {
            let held = bucket.try_take().unwrap();
            let polls = Arc::new(AtomicUsize::new(0));
            let thread = thread::spawn({
                let (bucket, polls) = (Arc::clone(&bucket), Arc::clone(&polls));
                move || {
                    let (mut take, mut owned) = (bucket.take(), bucket.take_owned());
                    pollster::block_on(std::future::poll_fn(|cx: &mut Context<'_>| {
                        polls.fetch_add(1, Ordering::SeqCst);
                        if i == 0 {
                            std::pin::Pin::new(&mut take).poll(cx).map(|token| drop(token.unwrap()))
                        } else {
                            std::pin::Pin::new(&mut owned).poll(cx).map(|token| drop(token.unwrap()))
                        }
                    }));
                }
            });
            while polls.load(Ordering::SeqCst) == 0 || bucket.waiting() == 0 {
                thread::yield_now();
            }
            drop(held);
            thread.join().unwrap();
            assert!(polls.load(Ordering::SeqCst) <= 2, "{polls:?} polls");
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        }
    });
}

/// futures-intrusive traversed the whole queue for each waiter that it woke.
fn b30_waiters_are_woken_once_however_many_there_are(fairness: Fairness) {
    const MANY: usize = 3000;
    let bucket = bucket(fairness, 1);
    let held = bucket.try_take().unwrap();
    let mut takes: Vec<_> = (0..MANY).map(|_| waiting(bucket.take())).collect();
    assert_eq!(numbers(&bucket), [0, 1, 0, MANY]);
    drop(held);
    for i in 0..MANY {
        assert_eq!(takes[i].wakes(), 1);
        assert!(i + 1 == MANY || takes[i + 1].wakes() == 0);
        drop(takes[i].done().unwrap());
    }
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

// Fifo.

#[test]
fn fifo_newcomers_get_no_token_that_a_waiter_could_use() {
    let bucket = Arc::new(bucket(Fairness::Fifo, 3));
    let mut held = bucket.try_take_many(3).unwrap();
    let mut head = waiting(bucket.take_many(3));
    drop(held.split(2));
    assert_eq!(numbers(&bucket), [2, 1, 0, 1]);
    let before = bucket.snapshot();
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_many(2), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_up_to(2), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_owned(), Err(TryTakeError::Empty)));
    assert!(matches!(bucket.try_take_many_owned(2), Err(TryTakeError::Empty)));
    assert_eq!(bucket.snapshot(), before);
    let mut late = waiting(bucket.take());
    let mut later = waiting(bucket.take_owned());
    assert_eq!(numbers(&bucket), [2, 1, 0, 3]);
    drop(held);
    assert_eq!((head.wakes(), late.wakes(), later.wakes()), (1, 0, 0));
    // A granted token is no longer available.
    assert_eq!(numbers(&bucket), [0, 3, 0, 2]);
    assert!(bucket.try_take().is_err());
    drop(head.done().unwrap());
    assert_eq!((late.wakes(), later.wakes()), (1, 1));
    drop((late.done().unwrap(), later.done().unwrap()));
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
    assert!(bucket.try_take_many(3).is_ok());
}

#[test]
fn fifo_newcomers_may_take_the_rest_when_no_waiter_is_left() {
    let bucket = bucket(Fairness::Fifo, 3);
    let held = bucket.try_take_many(3).unwrap();
    let mut one = waiting(bucket.take());
    drop(held);
    // The waiter has been granted its token, although it has not been polled.
    assert_eq!(numbers(&bucket), [2, 1, 0, 0]);
    assert_eq!(bucket.try_take_up_to(3).unwrap().count(), 2);
    drop(one.done().unwrap());
}

#[test]
fn fifo_newcomers_are_not_blocked_by_a_request_above_the_capacity() {
    let bucket = bucket(Fairness::Fifo, 2);
    let mut deferred = waiting(bucket.take_many(3));
    for _ in 0..3 {
        drop(bucket.try_take().unwrap());
        drop(bucket.try_take_up_to(5).unwrap());
        drop(task(bucket.take_many(2)).done().unwrap());
        assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    }
    // Nor by a waiter that could be served, and has been.
    let held = bucket.try_take_many(2).unwrap();
    let mut other = waiting(bucket.take_many(2));
    drop(held);
    drop(other.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    drop(bucket.try_take_many(2).unwrap());
    assert_eq!(deferred.wakes(), 0);
    // From now on, they are blocked.
    let held = bucket.try_take().unwrap();
    bucket.set_capacity(3).unwrap();
    assert_eq!(numbers(&bucket), [2, 1, 0, 1]);
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    drop(held);
    assert_eq!(deferred.wakes(), 1);
    drop(deferred.done().unwrap());
}

#[test]
fn fifo_newcomers_are_let_in_again_when_the_head_is_dropped() {
    let bucket = bucket(Fairness::Fifo, 3);
    let held = bucket.try_take_many(2).unwrap();
    let head = waiting(bucket.take_many(3));
    assert!(bucket.try_take().is_err());
    drop(head);
    assert_eq!(numbers(&bucket), [1, 2, 0, 0]);
    drop(bucket.try_take().unwrap());
    drop(task(bucket.take()).done().unwrap());
    drop(held);
}

#[test]
fn fifo_grants_before_the_waiter_is_polled() {
    let bucket = bucket(Fairness::Fifo, 1);
    let held = bucket.try_take().unwrap();
    let mut take = waiting(bucket.take());
    drop(held);
    assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
    assert!(bucket.try_take().is_err());
    let mut other = waiting(bucket.take());
    drop(take.done().unwrap());
    drop(other.done().unwrap());
    assert_eq!((take.wakes(), other.wakes()), (1, 1));
}

/// In tokio, a poll that the task's budget had postponed got no place in the queue; in async-lock, a woken waiter that lost moved
/// to the end.
#[test]
fn b26_fifo_serves_in_the_order_of_the_first_poll() {
    let bucket = bucket(Fairness::Fifo, 4);
    let mut held = bucket.try_take_many(4).unwrap();
    let mut takes: Vec<_> = [2, 1, 1, 2, 1].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    let mut order = Vec::new();
    let mut tokens = Vec::new();
    while order.len() < takes.len() {
        if held.count() > 0 {
            drop(held.split(1));
        } else {
            drop(tokens.remove(0));
        }
        // Polled in reverse order, including waiters that were not woken.
        for i in (0..takes.len()).rev() {
            let newcomer = bucket.try_take();
            assert!(newcomer.is_err() || bucket.waiting() == 0);
            if !order.contains(&i) && takes[i].wakes() == 0 {
                takes[i].waits();
            }
        }
        let served: Vec<_> = (0..takes.len()).filter(|&i| takes[i].is_woken()).collect();
        for i in served {
            tokens.push(takes[i].done().unwrap());
            order.push(i);
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert_eq!(wakes(&takes), [1; 5]);
}

// Barging.

#[test]
fn barging_newcomers_overtake_waiters() {
    let bucket = Arc::new(bucket(Fairness::Barging, 1));
    let held = bucket.try_take().unwrap();
    let mut waiter = waiting(bucket.take());
    drop(held);
    assert_eq!(waiter.wakes(), 1);
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    drop(bucket.try_take().unwrap());
    drop(bucket.try_take_up_to(3).unwrap());
    drop(bucket.try_take_owned().unwrap());
    drop(task(bucket.take()).done().unwrap());
    drop(pollster::block_on(bucket.take()).unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 1]);
    // It has been woken already.
    assert_eq!(waiter.wakes(), 1);
    drop(waiter.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

#[test]
fn barging_woken_waiters_that_lose_keep_their_place() {
    let bucket = bucket(Fairness::Barging, 1);
    let held = bucket.try_take().unwrap();
    let mut takes = [waiting(bucket.take()), waiting(bucket.take())];
    drop(held);
    let barged = bucket.try_take().unwrap();
    assert_eq!(wakes(&takes), [1, 0]);
    takes[0].waits();
    assert_eq!(numbers(&bucket), [0, 1, 0, 2]);
    assert_eq!(wakes(&takes), [1, 0]);
    drop(barged);
    assert_eq!(wakes(&takes), [2, 0]);
    let token = takes[0].done().unwrap();
    takes[1].waits();
    assert_eq!(wakes(&takes), [2, 0]);
    drop(token);
    assert_eq!(wakes(&takes), [2, 1]);
    drop(takes[1].done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

#[test]
fn barging_wakes_as_many_as_there_are_tokens_for() {
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(3).unwrap();
    let mut takes: Vec<_> = (0..4).map(|_| waiting(bucket.take())).collect();
    drop(held);
    assert_eq!(wakes(&takes), [1, 1, 1, 0]);
    assert_eq!(numbers(&bucket), [3, 0, 0, 4]);
    let mut tokens = Vec::new();
    for (taken, i) in [1, 0, 2].into_iter().enumerate() {
        tokens.push(takes[i].done().unwrap());
        assert_eq!(numbers(&bucket), [2 - taken, 1 + taken, 0, 3 - taken]);
        assert_eq!(wakes(&takes), [1, 1, 1, 0]);
    }
    tokens.clear();
    assert_eq!(wakes(&takes), [1; 4]);
    drop(takes[3].done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

/// The tokens that a woken waiter claims are not for those behind it; the rest is.
#[test]
fn barging_counts_what_woken_waiters_claim() {
    let bucket = bucket(Fairness::Barging, 10);
    let mut held = bucket.try_take_many(10).unwrap();
    let mut takes: Vec<_> = [3, 2, 4, 1].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    drop(held.split(4));
    assert_eq!(wakes(&takes), [1, 0, 0, 0], "1 is left of 4");
    drop(held.split(1));
    assert_eq!(wakes(&takes), [1, 1, 0, 0], "2 are left of 5");
    drop(held.split(3));
    assert_eq!(wakes(&takes), [1, 1, 0, 0], "3 are left of 8, and the next one wants 4");
    // A dropped waiter claims no tokens.
    drop(takes.remove(1));
    assert_eq!(wakes(&takes), [1, 1, 1], "5 are left");
    // Nor does a waiter that found too few tokens; it is woken again later.
    let barged = bucket.try_take_many(6).unwrap();
    takes[0].waits();
    takes[1].waits();
    assert_eq!(numbers(&bucket), [2, 8, 0, 3]);
    assert_eq!(wakes(&takes), [1, 1, 1]);
    drop(barged);
    assert_eq!(wakes(&takes), [2, 2, 1]);
    drop(held);
    for take in takes.iter_mut().rev() {
        drop(take.done().unwrap());
    }
    assert_eq!(numbers(&bucket), [10, 0, 0, 0]);
}

/// Another semaphore woke only one waiter in 256 if earlier waiters did not run.
#[test]
fn barging_leaves_no_token_unused_while_a_waiter_sleeps() {
    let bucket = TokenBucket::with_capacity(205).with_fairness(Fairness::Barging);
    let mut held = bucket.try_take_many(205).unwrap();
    let mut takes: Vec<_> = (0..51).map(|_| waiting(bucket.take_many(4))).collect();
    while held.count() > 0 {
        drop(held.split(1));
        let due = bucket.available() / 4;
        assert_eq!(takes.iter().map(Task::wakes).sum::<usize>(), due.min(51));
        assert!(takes[..due.min(51)].iter().all(Task::is_woken), "in order");
    }
    // They can run in any order.
    let tokens: Vec<_> = takes.iter_mut().rev().map(|take| take.done().unwrap()).collect();
    assert_eq!(numbers(&bucket), [1, 204, 0, 0]);
    drop((tokens, held));
}

#[test]
fn barging_waiters_that_were_not_woken_take_nothing() {
    let bucket = bucket(Fairness::Barging, 2);
    let mut held = bucket.try_take_many(2).unwrap();
    let mut takes = [waiting(bucket.take_many(2)), waiting(bucket.take())];
    drop(held.split(1));
    assert_eq!(wakes(&takes), [0, 0]);
    for take in &mut takes {
        take.waits();
    }
    assert_eq!(numbers(&bucket), [1, 1, 0, 2]);
    // A newcomer may, but it has no place in the queue to keep.
    drop(bucket.try_take().unwrap());
    drop(held);
    assert_eq!(wakes(&takes), [1, 0]);
    takes[1].waits();
    drop(takes[0].done().unwrap());
    drop(takes[1].done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

#[test]
fn barging_starvation_ends_after_16_losses() {
    let bucket = bucket(Fairness::Barging, 1);
    let mut barged = bucket.try_take().unwrap();
    let mut first = waiting(bucket.take());
    let mut second = waiting(bucket.take());
    for losses in 1..=LOSSES {
        drop(barged);
        assert_eq!(first.wakes(), losses);
        barged = bucket.try_take().unwrap_or_else(|_| panic!("shut after {} losses", losses - 1));
        first.waits();
    }
    drop(barged);
    // Now it is served as in a FIFO queue: no caller can overtake it.
    assert_eq!((first.wakes(), second.wakes()), (LOSSES + 1, 0));
    assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    let token = first.done().unwrap();
    // Then newcomers are let in again.
    drop(token);
    assert_eq!(second.wakes(), 1);
    drop(bucket.try_take().unwrap());
    drop(second.done().unwrap());
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

#[test]
fn barging_newcomers_cannot_starve_a_request_for_many() {
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(2).unwrap();
    let mut large = waiting(bucket.take_many(3));
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    until_shut(&bucket);
    assert_eq!(large.wakes(), 0);
    // Newcomers are shut out although a token is available; this one queues.
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    let mut late = waiting(bucket.take());
    assert!(bucket.try_take_up_to(1).is_err());
    assert_eq!(numbers(&bucket), [1, 2, 0, 2]);
    drop(held);
    assert_eq!((large.wakes(), late.wakes()), (1, 0));
    // The tokens are granted before it is polled.
    assert_eq!(numbers(&bucket), [0, 3, 0, 1]);
    drop(large.done().unwrap());
    assert_eq!(late.wakes(), 1);
    drop(bucket.try_take_many(3).unwrap());
    drop(late.done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

/// A waiter that is granted its tokens is notified before another waiter is woken to try.
#[test]
fn barging_serves_the_starving_waiter_before_it_wakes_the_next() {
    struct Named(char, Arc<Mutex<String>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(2).unwrap();
    let order = Arc::new(Mutex::new(String::new()));
    let waker = |name| Waker::from(Arc::new(Named(name, Arc::clone(&order))));
    let mut large = bucket.take_many(2);
    assert!(poll_with(&mut large, &waker('l')).is_pending());
    until_shut(&bucket);
    let mut small = bucket.take();
    assert!(poll_with(&mut small, &waker('s')).is_pending());
    drop(held);
    assert_eq!(*order.lock().unwrap(), "ls");
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    drop((large, small));
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

#[test]
fn barging_is_open_again_when_a_starved_waiter_is_dropped() {
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(2).unwrap();
    let large = waiting(bucket.take_many(3));
    until_shut(&bucket);
    let mut late = waiting(bucket.take());
    drop(large);
    assert_eq!(late.wakes(), 1);
    drop(bucket.try_take().unwrap());
    drop(late.done().unwrap());
    drop(held);
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

#[test]
fn barging_is_open_again_when_a_starved_waiter_is_deferred() {
    let bucket = bucket(Fairness::Barging, 4);
    let held = bucket.try_take_many(2).unwrap();
    let mut large = waiting(bucket.take_many(4));
    until_shut(&bucket);
    assert_eq!(numbers(&bucket), [2, 2, 0, 1]);
    bucket.set_capacity(3).unwrap();
    assert_eq!(numbers(&bucket), [1, 2, 0, 1]);
    drop(bucket.try_take().unwrap());
    drop(held);
    drop(bucket.try_take_many(3).unwrap());
    // Its losses are remembered.
    bucket.set_capacity(4).unwrap();
    assert_eq!(large.wakes(), 1);
    assert_eq!(numbers(&bucket), [0, 4, 0, 0]);
    drop(large.done().unwrap());
}

/// Even if it was woken and does not run.
#[test]
fn barging_grants_the_head_its_tokens_after_16_losses() {
    let bucket = bucket(Fairness::Barging, 2);
    let held = bucket.try_take_many(2).unwrap();
    let mut takes: Vec<_> = (0..3).map(|_| waiting(bucket.take())).collect();
    drop(held);
    assert_eq!(wakes(&takes), [1, 1, 0]);
    for granted in 0..2 {
        for _ in 0..LOSSES {
            assert_eq!(numbers(&bucket), [2 - granted, granted, 0, 3 - granted]);
            drop(bucket.try_take().unwrap());
        }
        assert_eq!(numbers(&bucket), [1 - granted, 1 + granted, 0, 2 - granted]);
        assert_eq!(wakes(&takes), [1, 1, 0]);
    }
    // The first two waiters have been granted theirs, and have not run.
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)));
    let tokens = [takes[1].done().unwrap(), takes[0].done().unwrap()];
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    assert_eq!(wakes(&takes), [1, 1, 0]);
    drop(tokens);
    assert_eq!(wakes(&takes), [1, 1, 1]);
    drop(takes[2].done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

/// A return or growth counts as one loss if newcomers have taken tokens since the previous one, however many did.
#[test]
fn barging_counts_a_loss_for_each_return_after_a_newcomer() {
    let bucket = bucket(Fairness::Barging, 4);
    let mut held = bucket.try_take_many(2).unwrap();
    let mut large = waiting(bucket.take_many(4));
    for losses in 1..=LOSSES {
        // A return or growth without a newcomer is no loss.
        bucket.set_capacity(3).unwrap();
        bucket.set_capacity(4).unwrap();
        let barged = [bucket.try_take().unwrap(), bucket.try_take().unwrap()];
        if losses % 2 == 0 {
            drop(barged);
        } else {
            // A growth counts, too. (The next shrink removes the token that it brings.)
            bucket.set_capacity(5).unwrap();
            barged.into_iter().for_each(Token::forget);
            bucket.set_capacity(4).unwrap();
            bucket.refill(2);
        }
        assert_eq!(numbers(&bucket), [2, 2, 0, 1]);
    }
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)), "shut");
    drop(held.split(1));
    assert_eq!(large.wakes(), 0);
    drop(held);
    drop(large.done().unwrap());
    assert_eq!(numbers(&bucket), [4, 0, 0, 0]);
}

/// The loss that a shrink brings to light is counted before the shrink defers the head.
#[test]
fn barging_a_shrink_and_a_growth_do_not_hide_losses() {
    for polls in [false, true] {
        let bucket = bucket(Fairness::Barging, 3);
        let mut held = bucket.try_take().ok();
        let mut head = waiting(bucket.take_many(3));
        let is_bypassed = |_: &usize| {
            drop(held.take());
            held = bucket.try_take().ok();
            if polls && held.is_some() {
                assert!(head.poll().is_pending());
            }
            if held.is_some() {
                bucket.set_capacity(2).unwrap();
                bucket.set_capacity(3).unwrap();
            }
            held.is_some()
        };
        assert_eq!((0..=LOSSES).take_while(is_bypassed).count(), LOSSES, "polls: {polls}");
        assert_eq!(head.done().unwrap().count(), 3);
    }
}

/// A woken waiter with a range takes what those before it claim: that is a loss for them, as if a newcomer had taken it.
#[test]
fn barging_a_request_for_a_range_bypasses_the_head_16_times() {
    let bucket = bucket(Fairness::Barging, 3);
    let mut held = bucket.try_take_many(3).ok();
    let mut head = waiting(bucket.take_many(2));
    let is_bypassed = |_: &usize| {
        let mut range = waiting(bucket.take_up_to(3));
        // Both are woken.
        drop(held.take());
        held = Some(range.done().unwrap());
        held.as_ref().is_some_and(|tokens| tokens.count() == 3)
    };
    assert_eq!((0..=LOSSES).take_while(is_bypassed).count(), LOSSES);
    assert_eq!(head.done().unwrap().count(), 2);
}

/// Newcomers stay shut out if older requests regain their places in front of a starving one.
#[test]
fn barging_newcomers_gain_nothing_by_a_restored_request() {
    let bucket = bucket(Fairness::Barging, 4);
    let mut held = bucket.try_take_many(4).unwrap();
    let (oldest, mut older, mut starving) =
        (waiting(bucket.take_many(5)), waiting(bucket.take_many(5)), waiting(bucket.take_many(4)));
    for _ in 0..LOSSES {
        drop(held);
        held = bucket.try_take_many(4).unwrap();
    }
    bucket.set_capacity(5).unwrap();
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)), "shut");
    drop(oldest);
    assert!(matches!(bucket.try_take(), Err(TryTakeError::Empty)), "still shut");
    drop(held);
    let tokens = older.done().unwrap();
    assert!(bucket.try_take().is_err());
    drop(tokens);
    assert_eq!(starving.done().unwrap().count(), 4);
    assert!(bucket.try_take_many(5).is_ok());
}

#[test]
fn barging_late_waiters_that_lose_keep_their_order() {
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(3).unwrap();
    let mut takes: Vec<_> = (0..4).map(|_| waiting(bucket.take())).collect();
    drop(held);
    assert_eq!(wakes(&takes), [1, 1, 1, 0]);
    let mut barged = bucket.try_take_many(3).unwrap();
    for i in [1, 2, 0] {
        takes[i].waits();
    }
    assert_eq!(wakes(&takes), [1, 1, 1, 0]);
    let mut token = barged.split(1).unwrap();
    for i in 0..4 {
        drop(token);
        assert_eq!(wakes(&takes), (0..4).map(|n| usize::from(n <= i) + usize::from(n < 3)).collect::<Vec<_>>());
        token = takes[i].done().unwrap();
    }
    drop((token, barged));
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

#[test]
fn barging_a_woken_request_that_a_shrink_defers_lets_the_next_one_proceed() {
    let bucket = bucket(Fairness::Barging, 3);
    let held = bucket.try_take_many(3).unwrap();
    let mut large = waiting(bucket.take_many(3));
    let mut small = waiting(bucket.take());
    drop(held);
    bucket.set_capacity(2).unwrap();
    assert_eq!((large.wakes(), small.wakes()), (1, 1));
    assert_eq!(numbers(&bucket), [2, 0, 0, 2]);
    large.waits();
    assert_eq!((large.wakes(), small.wakes()), (1, 1));
    drop(small.done().unwrap());
    assert_eq!(numbers(&bucket), [2, 0, 0, 1]);
    bucket.set_capacity(3).unwrap();
    assert_eq!(large.wakes(), 2);
    drop(large.done().unwrap());
    assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
}

#[test]
fn barging_late_waiters_keep_their_order_when_they_are_deferred() {
    let bucket = TokenBucket::new(10, 8).unwrap().with_fairness(Fairness::Barging);
    let held = bucket.try_take_many(8).unwrap();
    let mut takes: Vec<_> = [5, 3, 4].into_iter().map(|n| waiting(bucket.take_many(n))).collect();
    drop(held);
    assert_eq!(wakes(&takes), [1, 1, 0]);
    // A shrink defers the first one, although it is late.
    bucket.set_capacity(4).unwrap();
    let barged = bucket.try_take_many(2).unwrap();
    takes[1].waits();
    takes[0].waits();
    assert_eq!(wakes(&takes), [1, 1, 0]);
    drop(barged);
    assert_eq!(wakes(&takes), [1, 2, 0], "1 is left");
    bucket.set_capacity(6).unwrap();
    // It is the head again, and does not depend on what the second one claims.
    assert_eq!(wakes(&takes), [2, 2, 0]);
    let second = takes[1].done().unwrap();
    bucket.set_capacity(8).unwrap();
    assert_eq!(wakes(&takes), [2, 2, 0], "5 are for the first");
    let first = takes[0].done().unwrap();
    drop((first, second));
    drop(takes[2].done().unwrap());
    assert_eq!(numbers(&bucket), [8, 0, 0, 0]);
}

/// Otherwise, a newcomer could make it unsatisfiable again before it runs.
#[test]
fn barging_grants_a_request_above_the_capacity_at_once() {
    let bucket = TokenBucket::new(6, 2).unwrap().with_fairness(Fairness::Barging);
    let mut large = waiting(bucket.take_many(3));
    let mut larger = waiting(bucket.take_many(4));
    bucket.try_release().unwrap();
    assert_eq!((large.wakes(), larger.wakes()), (1, 0));
    assert_eq!(numbers(&bucket), [0, 2, 0, 1]);
    bucket.try_release_many(4).unwrap();
    assert_eq!(larger.wakes(), 1);
    assert_eq!(numbers(&bucket), [0, 2, 0, 0]);
    large.done().unwrap().forget();
    larger.done().unwrap().forget();
}

#[test]
fn barging_restored_requests_do_not_pass_a_waiter_between_them() {
    let bucket = TokenBucket::new(6, 1).unwrap().with_fairness(Fairness::Barging);
    let held = bucket.try_take().unwrap();
    let mut takes = [waiting(bucket.take_many(2)), waiting(bucket.take()), waiting(bucket.take_many(2))];
    drop(held);
    // The first and the last request are deferred.
    assert_eq!(wakes(&takes), [0, 1, 0]);
    let barged = bucket.try_take().unwrap();
    takes[1].waits();
    bucket.set_capacity(4).unwrap();
    // 3 are for the first and the second.
    assert_eq!(wakes(&takes), [1, 2, 0]);
    takes[0].done().unwrap().forget();
    takes[1].done().unwrap().forget();
    assert_eq!(numbers(&bucket), [0, 4, 0, 1]);
    bucket.try_release().unwrap();
    drop(barged);
    takes[2].done().unwrap().forget();
}

// Threads.

/// Lets newcomers take and return one token at a time until `is_served`, and counts the tokens they took.
fn hammer(bucket: &TokenBucket, threads: usize, is_served: impl Fn() -> bool + Sync) -> usize {
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_served() {
                    if bucket.try_take().is_ok() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    taken.into_inner()
}

/// The bucket has one token, so each take is one loss of the head.
#[test]
fn barging_newcomers_of_many_threads_bypass_a_waiter_16_times() {
    in_time(|| {
        for round in 0..300 {
            let bucket = bucket(Fairness::Barging, 1);
            let held = bucket.try_take().unwrap();
            let mut head = waiting(bucket.take());
            let mut second = waiting(bucket.take());
            drop(held);
            // The head was woken and does not run.
            let taken = hammer(&bucket, 2 + round % 3, || bucket.waiting() < 2);
            assert_eq!(taken, LOSSES, "round {round}");
            assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
            assert_eq!((head.wakes(), second.wakes()), (1, 0));
            drop(head.done().unwrap());
            drop(second.done().unwrap());
        }
    });
}

/// A growth restores a request that is older than the head, and that does not run.
#[test]
fn barging_newcomers_of_many_threads_bypass_a_restored_request_16_times() {
    in_time(|| {
        for round in 0..300 {
            let bucket = bucket(Fairness::Barging, 1);
            let held = bucket.try_take().unwrap();
            let mut large = waiting(bucket.take_many(2));
            let mut small = waiting(bucket.take());
            // One token is available, but the large request comes first.
            bucket.set_capacity(2).unwrap();
            assert_eq!((large.wakes(), small.wakes()), (0, 0));
            let idle = AtomicUsize::new(0);
            let taken = hammer(&bucket, 2 + round % 3, || {
                // The large request is not served, so newcomers try without success for a while.
                bucket.available() == 1 && bucket.try_take().is_err() && idle.fetch_add(1, Ordering::SeqCst) > 2000
            });
            assert!(taken <= LOSSES, "{taken} in round {round}");
            assert!(bucket.try_take().is_err(), "shut");
            assert_eq!(numbers(&bucket), [1, 1, 0, 2]);
            drop(held);
            assert_eq!((large.wakes(), small.wakes()), (1, 0));
            drop(large.done().unwrap());
            drop(small.done().unwrap());
            assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
        }
    });
}

/// The head was woken and is late; the second waiter wants more. A concurrent return and shrink let only one of them proceed.
#[test]
fn barging_a_late_head_does_not_end_up_behind_the_second() {
    in_time(|| {
        for round in 0..2_000 {
            let bucket = bucket(Fairness::Barging, 3);
            let mut held = bucket.try_take_many(3).unwrap();
            let mut head = waiting(bucket.take());
            let mut second = waiting(bucket.take_many(2));
            drop(held.split(1));
            assert_eq!((head.wakes(), second.wakes()), (1, 0));
            for _ in 0..round % LOSSES {
                drop(bucket.try_take().unwrap());
            }
            let barged = bucket.try_take().unwrap();
            let barrier = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..round % 61).for_each(|_| std::hint::spin_loop());
                    bucket.set_capacity(2).unwrap();
                });
                barrier.wait();
                drop(held);
            });
            assert_eq!(second.wakes(), 0, "round {round}");
            let token = head.done().unwrap();
            assert_eq!(second.wakes(), 0);
            drop((token, barged));
            drop(second.done().unwrap());
            assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
        }
    });
}
