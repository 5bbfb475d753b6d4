//! Who is next: in order of arrival, but for requests above the capacity.

use super::*;

// Fifo.

#[test]
fn takers_are_granted_their_tokens_in_order() {
    let mut bucket = Bucket::fifo(-1, 4);
    let [a, b, c] = bucket.queue_all([2, 1, 3]);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.give(3), [Granted(a, 2), Granted(b, 1)]);
    assert!(!bucket.bypass(1));
    assert_eq!(bucket.give(2), [Granted(c, 3)]);
    assert!(bucket.give(1).is_empty() && bucket.bypass(1));
}

#[test]
fn tokens_are_taken_in_one_step_for_those_that_want_exactly_so_many_and_live() {
    let mut bucket = Bucket::fifo(0, 8);
    let [a, b, c] = bucket.queue_all([2, 1, 3]);
    for (available, heads, sum) in [(1, 0, 0), (2, 1, 2), (3, 2, 3), (5, 2, 3), (6, 3, 6), (8, 3, 6)] {
        let grant = Next::Grant { heads, min: sum, up_to: sum, is_due: true };
        assert_eq!(bucket.queue.next(state(available, 8)), if heads > 0 { grant } else { Next::Wait });
    }
    // Not for one that has left,
    bucket.waiters[b].standing.set(Standing::Gone);
    assert_eq!(bucket.queue.next(state(8, 8)), Next::Grant { heads: 1, min: 2, up_to: 2, is_due: true });
    bucket.model.takers.retain(|taker| taker.id != b);
    assert_eq!(bucket.give(5), [Granted(a, 2), Granted(c, 3)]);
    // nor for one that takes what is there.
    assert_eq!(bucket.queue_all([1, 1]), [3, 4]);
    assert_eq!(bucket.queue(Kind::Take, 1, 2), []);
    assert_eq!(bucket.queue.next(state(8, 8)), Next::Grant { heads: 2, min: 2, up_to: 2, is_due: true });
    assert_eq!(bucket.give(4), [Granted(3, 1), Granted(4, 1), Granted(5, 2)]);
}

#[test]
fn a_head_that_can_be_served_later_holds_up_the_others() {
    let mut bucket = Bucket::fifo(0, 3);
    let [a, b] = bucket.queue_all([3, 1]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.give(1), [Granted(a, 3)]);
    assert_eq!(bucket.give(1), [Granted(b, 1)]);
}

#[test]
fn a_range_is_served_with_what_is_there() {
    let mut bucket = Bucket::fifo(0, 8);
    for (min, up_to) in [(1, 3), (2, 4), (1, 8)] {
        bucket.queue(Kind::Take, min, up_to);
    }
    assert_eq!(bucket.give(6), [Granted(0, 3), Granted(1, 3)]);
    assert_eq!(bucket.give(7), [Granted(2, 7)]);
}

#[test]
fn tokens_are_handed_to_a_head_that_wants_as_many() {
    let handed_off = |min, up_to, n| {
        let mut bucket = Bucket::fifo(0, 8);
        bucket.push(Kind::Take, min, up_to);
        bucket.queue.pop_for_hand_off(n).map(|(head, n)| (head.id, n))
    };
    for (min, up_to, n, handed) in [
        (2, 2, 2, true),
        (2, 2, 1, false),
        (2, 2, 3, false),
        (2, 2, 0, false),
        (2, 4, 1, false),
        (2, 4, 2, true),
        (2, 4, 3, true),
        (2, 4, 4, true),
        (2, 4, 5, false),
        (2, 2, usize::MAX, false),
        #[cfg(target_pointer_width = "64")]
        (2, 2, (1 << 32) + 2, false),
    ] {
        let n_tokens = u32::try_from(n).unwrap_or_default();
        assert_eq!(handed_off(min, up_to, n), handed.then_some((0, n_tokens)), "{n} to {min}..={up_to}");
    }
    assert!(Bucket::fifo(0, 8).queue.pop_for_hand_off(1).is_none());
}

#[test]
fn a_hand_off_goes_past_the_dead_and_only_to_a_head_that_is_due() {
    let mut bucket = Bucket::fifo(0, 8);
    let [a, b, c] = bucket.queue_all([2, 2, 2]);
    assert!(bucket.leave(a).is_empty() && bucket.leave(b).is_empty());
    assert_eq!(bucket.order(), [a, b, c]);
    assert_eq!((bucket.give(2), bucket.removed), (vec![Granted(c, 2)], 2));

    let mut bucket = Bucket::barging(0, 8);
    let [a] = bucket.queue_all([1]);
    assert!(bucket.queue.pop_for_hand_off(1).is_none());
    lose(&mut bucket, STARVING_AFTER - 1);
    assert!(bucket.queue.pop_for_hand_off(1).is_none());
    lose(&mut bucket, 1);
    assert_eq!(bucket.queue.pop_for_hand_off(1).map(|(head, n)| (head.id, n)), Some((a, 1)));
}

// Requests above the capacity.

#[test]
fn a_request_above_the_capacity_holds_up_no_other() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 2);
        let [a, b, c] = bucket.queue_all([3, 1, 8]);
        let proceeds = |id| if fifo { Granted(id, 1) } else { Woken(id) };
        // One token is left: without any, the last one would keep its place, as there is none to proceed behind it.
        assert_eq!(bucket.give(2), [proceeds(b)]);
        assert_eq!((bucket.order(), bucket.deferred()), (if fifo { vec![] } else { vec![b] }, vec![a, c]));
    }
}

#[test]
fn a_deferred_request_regains_its_place() {
    let mut bucket = Bucket::fifo(0, 2);
    let [a, b, c, d, e, f] = bucket.queue_all([2, 8, 5, 3, 5, 1]);
    assert_eq!(bucket.give(2), [Granted(a, 2)]);
    assert_eq!(bucket.give(1), [Granted(f, 1)]);
    assert_eq!((bucket.order(), bucket.deferred()), (vec![], vec![d, c, e, b]));
    let [g] = bucket.queue_all([2]);
    // Restored at different times, the smaller ones first: they stand in the order of arrival.
    assert_eq!((bucket.set_capacity(3), bucket.order()), (vec![], vec![d, g]));
    assert_eq!((bucket.set_capacity(7), bucket.order()), (vec![Granted(c, 5)], vec![d, e, g]));
    assert_eq!((bucket.set_capacity(8), bucket.order()), (vec![], vec![b, d, e, g]));
    assert_eq!((bucket.set_capacity(4), bucket.order(), bucket.deferred()), (vec![], vec![b, d, e, g], vec![]));
    assert_eq!(bucket.give(8), [Granted(d, 3), Granted(g, 2)]);
    assert_eq!((bucket.order(), bucket.deferred()), (vec![], vec![e, b]));
}

#[test]
fn more_tokens_than_the_capacity_serve_a_deferred_request() {
    let mut bucket = Bucket::fifo(2, 2);
    assert_eq!(bucket.queue(Kind::Take, 4, 4), []);
    assert_eq!(bucket.queue(Kind::Take, 1, 1), [Granted(1, 1)]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.give(1), [Granted(0, 4)]);
}

#[test]
fn a_sleeping_waiter_behind_woken_ones_is_deferred_too() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b, c, d] = bucket.queue_all([1, 4, 2, 1]);
    assert_eq!(bucket.give(1), [Woken(a)]);
    // Those in front keep their places.
    assert_eq!(bucket.set_capacity(3), []);
    assert_eq!((bucket.order(), bucket.deferred()), (vec![a, b, c, d], vec![]));
    assert_eq!(bucket.give(3), [Woken(c)]);
    assert_eq!((bucket.order(), bucket.deferred()), (vec![a, c, d], vec![b]));
    // The first one has not answered, and claims what it needs; those behind it come after the request that is back.
    assert_eq!((bucket.set_capacity(4), bucket.order()), (vec![], vec![a, b, c, d]));
    assert_eq!(bucket.give(1), [Woken(b)]);
}

#[test]
fn no_request_is_deferred_while_there_is_no_token() {
    for fifo in [true, false] {
        for available in [-1, 0] {
            let mut bucket = Bucket::new(fifo, available, 2);
            let [a, b] = bucket.queue_all([3, 1]);
            assert_eq!(bucket.serve(), []);
            assert_eq!((bucket.order(), bucket.deferred()), (vec![a, b], vec![]));
        }
    }
}

#[test]
fn a_head_above_the_capacity_is_granted_its_tokens_at_once() {
    let mut bucket = Bucket::barging(2, 2);
    assert_eq!(bucket.queue(Kind::Take, 4, 5), []);
    assert_eq!(bucket.queue(Kind::Take, 3, 3), []);
    assert_eq!(bucket.queue(Kind::Take, 2, 2), [Woken(2)]);
    assert_eq!(bucket.poll(2), (true, vec![]));
    // A newcomer that came before a woken waiter tries could leave it too few.
    assert_eq!(bucket.give(6), [Granted(0, 5)]);
    assert!(bucket.bypass(1));
    assert_eq!(bucket.give(3), [Granted(1, 3)]);
    // The capacity suffices for this one: it is woken.
    assert_eq!(bucket.queue(Kind::Take, 2, 2), []);
    assert_eq!(bucket.give(3), [Woken(3)]);
}

#[test]
fn a_request_above_the_capacity_that_is_not_the_head_is_woken() {
    let mut bucket = Bucket::barging(0, 2);
    let [a, b, c] = bucket.queue_all([2, 3, 1]);
    assert_eq!(bucket.give(5), [Woken(a), Woken(b)]);
    // Too few for the second one are left, and it claims them until the first has answered.
    assert!(bucket.bypass(1));
    assert_eq!(bucket.poll(a), (true, vec![Woken(c)]));
    assert_eq!((bucket.order(), bucket.deferred()), (vec![c], vec![b]));
}
