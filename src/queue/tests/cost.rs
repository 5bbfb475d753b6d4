//! How many waiters are looked at, and how much memory is kept.

use super::*;

const MANY: usize = 100_000;

/// Takes the count of looks at waiters since the last call.
fn looks(bucket: &Bucket) -> usize {
    bucket.looks.take()
}

#[test]
fn deferred_requests_that_a_resize_cannot_serve_are_not_looked_at() {
    let mut bucket = Bucket::fifo(0, 2);
    (0..MANY).for_each(|_| bucket.queue.push(new_waiter(&bucket, Kind::Take, 5)));
    bucket.queue.push(new_waiter(&bucket, Kind::Take, 4));
    assert_eq!(bucket.queue.next(state(1, 2)), Next::Wait);
    assert!(looks(&bucket) <= 3 * MANY, "each is deferred once");
    for capacity in [1, 3, 0, 2] {
        assert_eq!(bucket.queue.next(state(0, capacity)), Next::Wait);
        assert_eq!(bucket.queue.next(state(3, capacity)), Next::Wait);
    }
    assert_eq!(looks(&bucket), 0);
    assert_eq!(bucket.queue.next(state(4, 3)), Next::Grant { heads: 1, min: 4, up_to: 4, is_due: true });
    assert!(looks(&bucket) <= 3, "only the one that is restored");
}

fn new_waiter(bucket: &Bucket, kind: Kind, count: u32) -> Rc<Waiter> {
    let (standing, looks) = (Cell::new(Standing::Waiting), Rc::clone(&bucket.looks));
    Rc::new(Waiter { id: 0, kind, min: count, up_to: count, standing, ticket: Cell::new(0), looks })
}

/// Queues many takers of one token, and returns them.
fn queue_many(bucket: &mut Bucket) -> Vec<Rc<Waiter>> {
    let waiters: Vec<_> = (0..MANY).map(|_| new_waiter(bucket, Kind::Take, 1)).collect();
    for waiter in &waiters {
        bucket.queue.push(Rc::clone(waiter));
    }
    waiters
}

#[test]
fn a_return_looks_at_few_of_many_waiters() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 8);
        let waiters = queue_many(&mut bucket);
        for available in 1..=8 {
            assert_ne!(bucket.queue.next(state(available, 8)), Next::Wait);
            if !fifo {
                waiters[usize::try_from(available).unwrap() - 1].standing.set(Standing::Woken);
                assert_eq!(bucket.queue.next(state(available, 8)), Next::Wait);
            }
            // And at those that are served.
            assert!(looks(&bucket) <= 4 + usize::try_from(available).unwrap());
        }
    }
}

#[test]
fn a_refill_of_one_token_into_a_paused_bucket_looks_at_few_of_many_waiters() {
    for fifo in [true, false] {
        let mut bucket = Bucket::new(fifo, 0, 0);
        let waiters = queue_many(&mut bucket);
        assert_eq!(bucket.queue.next(state(0, 0)), Next::Wait);
        for waiter in waiters.iter().take(10_000) {
            assert_eq!(bucket.queue.next(state(1, 0)), Next::Grant { heads: 1, min: 1, up_to: 1, is_due: fifo });
            let head = bucket.queue.pop_head().expect("a head");
            assert!(Rc::ptr_eq(&head, waiter));
            head.standing.set(Standing::Gone);
            assert_eq!(bucket.queue.next(state(0, 0)), Next::Wait);
            assert!(looks(&bucket) <= 3);
        }
        assert_eq!(bucket.deferred(), []);
    }
}

/// In whatever order woken waiters answer, none has the others looked at again.
#[test]
fn woken_waiters_that_leave_cost_a_few_looks_each() {
    let orders: [fn(usize) -> usize; 3] = [|i| i, |i| MANY - 1 - i, |i| i * 7919 % MANY];
    for order in orders {
        let mut bucket = Bucket::barging(0, 8);
        let waiters = queue_many(&mut bucket);
        let many = u32::try_from(MANY).expect("it is small");
        let mut full = State::new(many);
        // This one sleeps to the end.
        bucket.queue.push(new_waiter(&bucket, Kind::Take, many));
        for (i, waiter) in waiters.iter().enumerate() {
            assert_eq!(bucket.queue.next(full), Next::Wake);
            waiter.standing.set(Standing::Woken);
            assert_eq!(bucket.queue.mark_woken(full.available()), i + 1 == MANY);
        }
        assert!(looks(&bucket) <= 4 * MANY);
        for waiter in (0..MANY).map(|i| &waiters[order(i)]) {
            full = full.retry(1, 1).expect("tokens").0;
            waiter.standing.set(Standing::Gone);
            if !bucket.queue.remove_head_if(|head| Rc::ptr_eq(head, waiter)) {
                bucket.queue.note_answer(waiter);
            }
            assert_eq!(bucket.queue.next(full), Next::Wait);
            assert_eq!(bucket.queue.takers.claimed, full.available());
        }
        assert_eq!(bucket.queue.takers(), 1);
        let looks = looks(&bucket);
        assert!(looks <= 6 * MANY, "{looks} looks");
    }
}

/// The dead are thrown out when they are the majority, as the combiner does. So each costs a few looks, in whatever order they
/// leave.
#[test]
fn waiters_that_leave_cost_a_few_looks_each() {
    for reversed in [false, true] {
        let mut bucket = Bucket::fifo(0, 8);
        let mut waiters = queue_many(&mut bucket);
        if reversed {
            waiters.reverse();
        }
        let mut dead = 0;
        for waiter in waiters {
            waiter.standing.set(Standing::Gone);
            dead += 1;
            if 2 * dead > bucket.queue.takers() {
                bucket.queue.compact();
                assert_eq!(bucket.queue.take_removed(), Some((dead, 0)));
                dead = 0;
            }
        }
        assert!(bucket.queue.takers() <= 32);
        let looks = looks(&bucket);
        assert!(looks <= 3 * MANY, "{looks} looks");
    }
}

#[test]
fn dead_entries_in_front_are_looked_at_once() {
    let mut bucket = Bucket::fifo(0, 8);
    for waiter in queue_many(&mut bucket) {
        waiter.standing.set(Standing::Gone);
    }
    assert_eq!(bucket.queue.next(state(1, 8)), Next::Wait);
    assert!(looks(&bucket) <= MANY + 1);
    assert_eq!((bucket.queue.takers(), bucket.queue.take_removed()), (0, Some((MANY, 0))));
}

#[test]
fn memory_is_given_back() {
    let mut bucket = Bucket::fifo(0, 8);
    let room = |bucket: &Bucket| bucket.queue.takers.entries.capacity();
    queue_many(&mut bucket);
    assert!(room(&bucket) >= MANY);
    for _ in 0..MANY - 100 {
        bucket.queue.pop_head();
        assert!(room(&bucket) <= 4 * (SPARE + bucket.queue.takers()) + 4);
    }
    assert!(room(&bucket) <= 1000);
    let mut waiters = queue_many(&mut bucket);
    for kind in [Kind::Release, Kind::Idle, Kind::Settled] {
        for _ in 0..MANY {
            let waiter = new_waiter(&bucket, kind, 1);
            bucket.queue.push(Rc::clone(&waiter));
            waiters.push(waiter);
        }
    }
    for waiter in &waiters {
        waiter.standing.set(Standing::Gone);
    }
    bucket.queue.takers.entries.iter().for_each(|entry| entry.waiter.standing.set(Standing::Gone));
    bucket.queue.compact();
    let WaitQueue { releasers, idle, settled, .. } = &bucket.queue;
    assert!(room(&bucket) <= 2 * SPARE && releasers.entries.capacity() <= 2 * SPARE);
    assert!(idle.is_empty() && settled.is_empty());
}
