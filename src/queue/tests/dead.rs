//! Waiters that leave.

use super::*;

#[test]
fn dead_entries_are_passed_over_wherever_they_are() {
    // Which of five leave, and how many entries are removed when the last one was served.
    for fifo in [true, false] {
        for leaving in 0..1_u32 << 5 {
            let mut bucket = Bucket::new(fifo, 0, 2);
            let all = bucket.queue_all([1, 2, 8, 1, 2]);
            let leaves = |id: &usize| leaving >> id & 1 == 1;
            all.iter().filter(|id| leaves(id)).for_each(|id| assert_eq!(bucket.leave(*id), []));
            for id in all.into_iter().filter(|id| !leaves(id) && *id != 2) {
                let n = bucket.waiters[id].min;
                if fifo {
                    assert_eq!(bucket.give(n as usize), [Granted(id, n)]);
                } else {
                    assert_eq!(bucket.give(n as usize), [Woken(id)]);
                    assert_eq!(bucket.poll(id), (true, vec![]));
                }
            }
            assert_eq!(bucket.give(1), []);
            bucket.queue.compact();
            bucket.settle();
            let deferred = usize::from(!leaves(&2));
            assert_eq!((bucket.queue.takers(), bucket.order()), (deferred, vec![]), "{leaving:b}");
        }
    }
}

#[test]
fn a_deferred_request_that_leaves_is_removed() {
    let mut bucket = Bucket::fifo(0, 2);
    let [a, b, c] = bucket.queue_all([4, 3, 3]);
    assert_eq!(bucket.give(1), []);
    assert_eq!(bucket.deferred(), [b, c, a]);
    assert_eq!((bucket.leave(b), bucket.deferred(), bucket.removed), (vec![], vec![c, a], 1));
    // This one leaves while the queue is owned.
    bucket.waiters[c].standing.set(Standing::Gone);
    bucket.model.takers.retain(|taker| taker.id != c);
    assert_eq!((bucket.set_capacity(4), bucket.deferred(), bucket.removed), (vec![], vec![], 1));
    assert_eq!((bucket.give(1), bucket.removed, bucket.queue.takers()), (vec![Granted(a, 4)], 2, 0));
}

#[test]
fn compaction_removes_all_dead_entries_and_nothing_else() {
    let mut bucket = Bucket::barging(0, 4);
    let [a, b, c, d, e] = bucket.queue_all([1, 1, 6, 7, 2]);
    assert_eq!(bucket.give(3), [Woken(a), Woken(b)]);
    assert_eq!(bucket.set_capacity(3), []);
    let kinds = [Kind::Release, Kind::Release, Kind::Idle, Kind::Idle, Kind::Settled, Kind::Settled];
    let others = kinds.map(|kind| bucket.push(kind, 0, 0));
    for id in [a, d, others[0], others[2], others[4]] {
        bucket.waiters[id].standing.set(Standing::Gone);
    }
    bucket.model.takers.retain(|taker| ![a, d].contains(&taker.id));
    assert_eq!((bucket.queue.takers(), bucket.queue.others()), (5, 6));
    bucket.queue.compact();
    assert_eq!((bucket.queue.takers(), bucket.queue.others(), bucket.queue.take_removed()), (3, 3, Some((2, 3))));
    assert_eq!(bucket.queue.take_removed(), None);
    bucket.removed += 2;
    assert_eq!((bucket.order(), bucket.deferred()), (vec![b, e], vec![c]));
    // The woken ones claim what they did before.
    assert_eq!(bucket.serve(), [Woken(others[1]), Granted(others[5], 0)]);
    assert_eq!(bucket.give(1), [Woken(e), Granted(others[3], 0)]);
}

#[test]
fn removed_waiters_are_counted_by_kind() {
    let mut queue = WaitQueue::<Rc<Waiter>>::new(true);
    assert_eq!(queue.take_removed(), None);
    for kind in [Kind::Take, Kind::Release, Kind::Idle, Kind::Settled] {
        queue.count_removed(kind);
    }
    assert_eq!((queue.take_removed(), queue.take_removed()), (Some((1, 3)), None));
}
