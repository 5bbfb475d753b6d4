//! Waiters that are woken to try for themselves, and what newcomers may do meanwhile.

use super::*;

#[test]
fn a_taker_is_woken_and_keeps_its_place_until_it_has_answered() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([2, 1]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert_eq!((bucket.order(), bucket.give(1)), (vec![a, b], vec![Woken(b)]));
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.poll(b), (true, vec![]));
    assert_eq!(bucket.poll(a), (true, vec![]));
    assert_eq!((bucket.order(), bucket.state.available()), (vec![], 1));
}

#[test]
fn a_woken_waiter_that_fails_sleeps_again_at_its_place() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([2, 2]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert!(bucket.bypass(1));
    assert_eq!(bucket.poll(a), (false, vec![]));
    assert_eq!(bucket.give(1), [Woken(a)]);
    assert_eq!(bucket.give(2), [Woken(b)]);
}

#[test]
fn a_woken_waiter_claims_nothing_from_those_before_it() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 1]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert!(bucket.bypass(2));
    assert_eq!(bucket.poll(a), (false, vec![]));
    // The second one does not run. The first is woken again when the tokens suffice for it.
    assert_eq!(bucket.give(1), [Woken(a)]);
    assert_eq!((bucket.give(1), bucket.give(1)), (vec![], vec![Woken(c)]));
}

#[test]
fn a_woken_waiter_that_became_unsatisfiable_claims_nothing() {
    let mut bucket = Bucket::barging(0, 5);
    let [a, b, c] = bucket.queue_all([1, 4, 1]);
    assert_eq!(bucket.give(5), [Woken(a), Woken(b)]);
    // The first waiter leaves over 1 of 2 tokens. The second, which does not run, could not have it.
    assert_eq!(bucket.set_capacity(2), [Woken(c)]);
    assert_eq!(bucket.poll(c), (true, vec![]));
    // It claims again what it needs when it can get it.
    assert_eq!(bucket.set_capacity(6), []);
    assert_eq!(bucket.queue(Kind::Take, 1, 1), []);
    assert_eq!(bucket.state.available(), 5);
    assert_eq!(bucket.give(1), [Woken(3)]);
}

#[test]
fn what_a_newcomer_took_counts_for_the_next_head_once_the_first_has_its_tokens() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([1, 1]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert!(bucket.bypass(1));
    assert_eq!((bucket.poll(a), bucket.state.is_bypassed()), ((true, vec![]), true));
    assert_eq!((bucket.give(1), bucket.state.is_bypassed()), (vec![], false));
    assert_eq!((bucket.order(), bucket.queue.takers.entries[0].losses()), (vec![b], 1));
    // A loss is forgotten when no taker is left.
    assert!(bucket.bypass(1) && bucket.state.is_bypassed());
    assert_eq!((bucket.poll(b), bucket.state.is_bypassed()), ((true, vec![]), false));
}

#[test]
fn the_tokens_of_a_woken_waiter_that_leaves_wake_the_next() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 1]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    assert_eq!(bucket.leave(a), [Woken(b), Woken(c)]);
    assert_eq!(bucket.leave(b), []);
    assert_eq!(bucket.poll(c), (true, vec![]));
}

#[test]
fn waiters_are_woken_in_order_as_long_as_the_tokens_suffice() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b, c, d] = bucket.queue_all([2, 1, 3, 1]);
    assert_eq!(bucket.give(4), [Woken(a), Woken(b)]);
    // One is left over, but the third needs three.
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(2), [Woken(c), Woken(d)]);
}

#[test]
fn the_head_is_due_after_sixteen_losses_and_not_after_fifteen() {
    assert_eq!(STARVING_AFTER, 16);
    let mut bucket = Bucket::barging(0, 8);
    let [a] = bucket.queue_all([2]);
    assert_eq!(bucket.give(2), [Woken(a)]);
    for _ in 1..16 {
        assert!(bucket.bypass(2));
        assert_eq!(bucket.give(2), []);
    }
    assert_eq!(bucket.model.takers[0].losses, 15);
    assert!(bucket.bypass(2));
    // It was woken and does not run: it is granted its tokens in its absence.
    assert_eq!(bucket.give(2), [Granted(a, 2)]);
}

#[test]
fn newcomers_are_shut_out_while_the_head_is_starving() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([3, 1]);
    lose(&mut bucket, 16);
    assert_eq!(bucket.queue.next(state(2, 8)), Next::Wait);
    assert_eq!(bucket.give(1), []);
    assert!(!bucket.bypass(1));
    // The next one has lost nothing yet.
    assert_eq!(bucket.give(3), [Granted(a, 3), Woken(b)]);
    assert!(bucket.bypass(1));
}

#[test]
fn only_the_head_loses() {
    let mut bucket = Bucket::barging(0, 8);
    let [a, b] = bucket.queue_all([1, 1]);
    lose(&mut bucket, 15);
    assert_eq!(bucket.leave(a), []);
    // What was lost by the one that left is not the heir's.
    lose(&mut bucket, 15);
    assert_eq!((bucket.order(), bucket.model.takers[0].losses), (vec![b], 15));
    assert_eq!(bucket.queue.losses_until_due(), 1);
}

#[test]
fn a_dead_entry_in_front_does_not_hide_a_starving_head() {
    let mut bucket = Bucket::barging(0, 4);
    let [a] = bucket.queue_all([8]);
    assert_eq!((bucket.give(1), bucket.deferred()), (vec![], vec![a]));
    assert!(bucket.bypass(1));
    let [b] = bucket.queue_all([1]);
    lose(&mut bucket, 15);
    assert_eq!((bucket.set_capacity(8), bucket.order()), (vec![], vec![a, b]));
    assert!(bucket.bypass(4));
    assert_eq!((bucket.leave(a), bucket.order()), (vec![], vec![a, b]));
    assert_eq!(bucket.queue.losses_until_due(), 1);
}

#[test]
fn a_dead_entry_in_front_loses_nothing() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b] = bucket.queue_all([1, 1]);
    assert_eq!((bucket.leave(a), bucket.order()), (vec![], vec![a, b]));
    bucket.queue.count_loss();
    assert_eq!(bucket.queue.takers.entries.iter().map(|entry| (entry.waiter.id, entry.losses())).collect::<Vec<_>>(), [(b, 1)]);
}

#[test]
fn a_request_keeps_its_losses_while_it_is_deferred() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b] = bucket.queue_all([4, 1]);
    lose(&mut bucket, 15);
    assert_eq!((bucket.set_capacity(5), bucket.set_capacity(3)), (vec![], vec![]));
    assert_eq!((bucket.give(2), bucket.deferred()), (vec![Woken(b)], vec![a]));
    assert_eq!(bucket.poll(b), (true, vec![]));
    assert_eq!((bucket.set_capacity(4), bucket.order()), (vec![], vec![a]));
    assert!(bucket.bypass(1));
    assert_eq!(bucket.give(4), [Granted(a, 4)]);
}
