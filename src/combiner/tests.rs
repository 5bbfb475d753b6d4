//! The combiner, in one thread: what an owner leaves behind, and what it finds.

extern crate std;

use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};

use alloc::task::Wake;
use alloc::vec::Vec;
use core::task::{Poll, Waker};

use super::*;
use crate::state::Refused;
use crate::waiter::Registration;

const MAX: u32 = 2;
const KINDS: [Kind; 4] = [Kind::Take, Kind::Release, Kind::Idle, Kind::Settled];

/// A combiner at which waiters of this kind have to wait.
fn combiner(fairness: Fairness, kind: Kind) -> Combiner {
    let mut combiner = Combiner::new(MAX, MAX);
    combiner.set_fairness(fairness);
    if kind != Kind::Release {
        assert_eq!(combiner.try_take(MAX), Ok(()));
    }
    if kind == Kind::Settled {
        assert!(combiner.set_capacity(0).is_ok());
    }
    combiner
}

fn enqueue(combiner: &Combiner, kind: Kind) -> Registration {
    combiner.enqueue(Waiter::new(kind, 1, 1, Waker::noop()), &mut WakeList::new())
}

fn poll(combiner: &Combiner, registration: &Registration) -> Poll<Result<u32, Refused>> {
    combiner.poll(&registration.waiter, Waker::noop(), true, &mut WakeList::new())
}

/// Brings about what waiters of this kind wait for.
fn serve(combiner: &Combiner, kind: Kind) {
    if kind == Kind::Release {
        assert_eq!(combiner.try_take(MAX), Ok(()));
    } else {
        combiner.give(MAX as usize);
    }
}

fn assert_no_flag(combiner: &Combiner) {
    let (text, state) = (format!("{:?}", combiner.state()), combiner.state());
    assert_eq!(text, format!("State({} of {})", state.available(), state.capacity()));
}

/// **C2** Only waiters that are there show in the word.
#[test]
fn a_waiter_that_is_served_leaves_no_flag_in_the_word() {
    for (fairness, kind) in [Fairness::Fifo, Fairness::Barging].into_iter().flat_map(|fairness| KINDS.map(|kind| (fairness, kind)))
    {
        let combiner = combiner(fairness, kind);
        let waiters = [enqueue(&combiner, kind), enqueue(&combiner, kind)];
        assert!(waiters.iter().all(|waiter| poll(&combiner, waiter).is_pending()));
        assert_eq!(combiner.waiting(), if kind == Kind::Take { 2 } else { 0 });
        serve(&combiner, kind);
        for waiter in &waiters {
            assert!(matches!(poll(&combiner, waiter), Poll::Ready(Ok(_))), "{fairness:?} {kind:?}");
        }
        assert_eq!(combiner.waiting(), 0);
        // A return looks at the queue once more.
        combiner.give(1);
        assert_no_flag(&combiner);
    }
}

#[test]
fn a_waiter_that_leaves_leaves_no_flag_in_the_word() {
    for (fairness, kind) in [Fairness::Fifo, Fairness::Barging].into_iter().flat_map(|fairness| KINDS.map(|kind| (fairness, kind)))
    {
        for is_served in [false, true] {
            let combiner = combiner(fairness, kind);
            let waiter = enqueue(&combiner, kind);
            if is_served {
                serve(&combiner, kind);
            }
            combiner.cancel(waiter);
            assert_eq!(combiner.waiting(), 0);
            // The dead entry of a taker is removed at the latest when it would be served.
            if kind == Kind::Take {
                combiner.give(MAX as usize);
            }
            assert_no_flag(&combiner);
        }
    }
}

#[test]
fn a_deferred_request_that_leaves_leaves_no_flag_in_the_word() {
    for fairness in [Fairness::Fifo, Fairness::Barging] {
        let mut combiner = Combiner::new(MAX, 1);
        combiner.set_fairness(fairness);
        let waiter = combiner.enqueue(Waiter::new(Kind::Take, 2, 2, Waker::noop()), &mut WakeList::new());
        assert_eq!((combiner.waiting(), combiner.try_take(1)), (1, Ok(())), "it is deferred");
        combiner.cancel(waiter);
        assert_eq!(combiner.waiting(), 0);
        assert_no_flag(&combiner);
    }
}

#[test]
fn those_that_leave_while_the_queue_is_owned_leave_no_flag_in_the_word() {
    for kind in [Kind::Take, Kind::Idle, Kind::Settled] {
        // The request is deferred.
        let combiner = if kind == Kind::Take { Combiner::new(MAX, 1) } else { combiner(Fairness::Fifo, kind) };
        let waiter = combiner.enqueue(Waiter::new(kind, MAX, MAX, Waker::noop()), &mut WakeList::new());
        let queue = combiner.own().expect("it is free");
        combiner.cancel(waiter);
        combiner.serve(queue, combiner.state(), &mut WakeList::new());
        assert_no_flag(&combiner);
    }
}

/// An owner may remove the entry of a waiter that leaves before that is counted.
#[test]
fn a_waiter_that_is_just_leaving_hides_no_other() {
    let combiner = combiner(Fairness::Fifo, Kind::Take);
    let waiters = [enqueue(&combiner, Kind::Take), enqueue(&combiner, Kind::Take), enqueue(&combiner, Kind::Take)];
    waiters[0].waiter.phase.leave();
    // One token for the second, so the third one waits.
    combiner.give(1);
    assert_eq!(combiner.waiting(), 1);
    combiner.dead_takers.increment();
    assert_eq!((combiner.waiting(), combiner.dead_takers.get()), (1, 0));
}

/// An owner that closes the bucket removes the entry of a waiter that has just got its tokens by itself.
#[test]
fn a_waiter_that_is_served_while_the_bucket_is_closed_leaves_no_dead_entry() {
    for kind in [Kind::Take, Kind::Release] {
        let combiner = combiner(Fairness::Barging, kind);
        let waiter = enqueue(&combiner, kind);
        serve(&combiner, kind);
        assert_eq!(waiter.waiter.phase.load(), Phase::Woken);
        assert!(combiner.close());
        combiner.leave_served(&waiter.waiter, &mut WakeList::new());
        assert_eq!((combiner.dead_takers.get(), combiner.dead_others.get()), (0, 0), "{kind:?}");
    }
}

/// It leaves just when an owner defers it, and HAS_DEFERRED does not show it yet: so it does not ask for service.
#[test]
fn a_request_that_leaves_unnoticed_leaves_no_flag_in_the_word() {
    let combiner = Combiner::new(MAX, 1);
    let waiter = combiner.enqueue(Waiter::new(Kind::Take, 2, 2, Waker::noop()), &mut WakeList::new());
    waiter.waiter.phase.leave();
    combiner.dead_takers.increment();
    assert_eq!(combiner.try_take(1), Ok(()));
    combiner.give(1);
    assert_no_flag(&combiner);
}

/// Some leave while the queue is owned, too few for their entries to be removed then; the others leave one by one.
#[test]
fn those_that_leave_in_a_crowd_leave_no_flag_in_the_word() {
    for kind in [Kind::Take, Kind::Idle, Kind::Settled] {
        // The requests are deferred.
        let combiner = if kind == Kind::Take { Combiner::new(MAX, 1) } else { combiner(Fairness::Fifo, kind) };
        let mut waiters: Vec<_> =
            (0..40).map(|_| combiner.enqueue(Waiter::new(kind, MAX, MAX, Waker::noop()), &mut WakeList::new())).collect();
        let queue = combiner.own().expect("it is free");
        waiters.drain(..10).for_each(|waiter| combiner.cancel(waiter));
        combiner.serve(queue, combiner.state(), &mut WakeList::new());
        for waiter in waiters {
            combiner.cancel(waiter);
        }
        assert_no_flag(&combiner);
    }
}

/// However many waiters have left, the queue keeps few of their entries.
#[test]
fn entries_of_waiters_that_left_do_not_pile_up() {
    for kind in KINDS {
        let combiner = combiner(Fairness::Fifo, kind);
        let first = enqueue(&combiner, kind);
        for _ in 0..1000 {
            combiner.cancel(enqueue(&combiner, kind));
            let queue = combiner.own().expect("it is free");
            assert!(queue.takers() + queue.others() <= 2 * 17, "{kind:?}");
            combiner.put_back(queue);
        }
        assert_eq!(combiner.waiting(), usize::from(kind == Kind::Take), "the first one");
        serve(&combiner, kind);
        assert!(matches!(poll(&combiner, &first), Poll::Ready(Ok(_))));
    }
}

/// The waker belongs to a waiter for which another thread has left work.
#[test]
fn a_growth_that_wakes_a_waker_that_panics_is_retired() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    let combiner = combiner(Fairness::Fifo, Kind::Take);
    assert!(combiner.set_capacity(1).is_ok());
    let queue = combiner.own().expect("it is free");
    let mut waiter = combiner.enqueue(Waiter::new(Kind::Take, 1, 1, &Waker::from(Arc::new(Panics))), &mut WakeList::new());
    combiner.give(2);
    combiner.put_back(queue);
    assert!(catch_unwind(AssertUnwindSafe(|| combiner.grow_and_take(1))).is_err());
    assert_eq!((combiner.state().capacity(), combiner.state().available()), (1, 0));
    assert_eq!(poll(&combiner, &waiter), Poll::Ready(Ok(1)));
    waiter.discard_listener();
}

/// **C3**, **C4** An owner that leaves looks again if another thread has come meanwhile.
#[test]
fn an_owner_does_not_leave_a_waiter_in_the_inbox() {
    for kind in KINDS {
        let combiner = combiner(Fairness::Fifo, kind);
        let queue = combiner.own().expect("it is new");
        let mut waiter = enqueue(&combiner, kind);
        assert!(combiner.state().needs_recheck() && combiner.own().is_none());
        let queue = combiner.leave(queue).expect("the owner has to go on");
        combiner.serve(queue, combiner.state(), &mut WakeList::new());
        assert!(!combiner.state().needs_recheck());
        serve(&combiner, kind);
        assert!(matches!(poll(&combiner, &waiter), Poll::Ready(Ok(_))), "{kind:?}");
        waiter.discard_listener();
    }
}

/// **C3**, **C4** Where the queue is owned, a change and an arrival are noted, and served by the owner.
#[test]
fn the_owner_serves_what_came_meanwhile() {
    for fairness in [Fairness::Fifo, Fairness::Barging] {
        let combiner = combiner(fairness, Kind::Take);
        let first = enqueue(&combiner, Kind::Take);
        let queue = combiner.own().expect("it is free");
        let second = enqueue(&combiner, Kind::Take);
        assert_eq!(combiner.waiting(), 1, "the inbox does not count");
        combiner.give(MAX as usize);
        // C6: the tokens are not a newcomer's.
        assert!(combiner.state().needs_recheck());
        assert_eq!(combiner.try_take(1), Err(Refused::NotNow));
        assert!(first.waiter.is_waiting() && second.waiter.is_waiting());
        combiner.serve(queue, combiner.state(), &mut WakeList::new());
        for mut waiter in [first, second] {
            assert_eq!(poll(&combiner, &waiter), Poll::Ready(Ok(1)));
            waiter.discard_listener();
        }
        combiner.give(1);
        assert_no_flag(&combiner);
    }
}
