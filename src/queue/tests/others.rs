//! Releasers and watchers, the summary, and the close.

use super::*;

#[test]
fn as_many_releasers_are_woken_as_there_is_room() {
    let mut bucket = Bucket::fifo(8, 8);
    for _ in 0..4 {
        assert_eq!(bucket.queue(Kind::Release, 1, 1), []);
    }
    assert!(bucket.bypass(2));
    assert_eq!(
        bucket.waiters.iter().map(|waiter| waiter.standing.get()).filter(|standing| *standing == Standing::Woken).count(),
        2
    );
    // They have not answered: the room is theirs.
    assert_eq!(bucket.serve(), []);
    // The first one leaves, and the second finds the bucket full again.
    assert_eq!(bucket.leave(0), [Woken(2)]);
    assert_eq!(bucket.give(2), []);
    assert_eq!(bucket.poll(1), (false, vec![]));
    assert!(bucket.bypass(1));
    // It has kept its place. The other one has not answered yet.
    assert_eq!(bucket.waiters[1].standing.get(), Standing::Woken);
    assert_eq!(bucket.poll(1), (true, vec![]));
    assert_eq!(bucket.poll(2), (false, vec![]));
    assert_eq!(bucket.set_capacity(6), [Woken(2), Woken(3)]);
}

#[test]
fn watchers_are_notified_when_their_state_is_reached() {
    for (available, capacity, idle, settled) in
        [(-1, 2, false, false), (0, 2, false, true), (2, 2, true, true), (-1, 0, false, false), (0, 0, true, true)]
    {
        let mut bucket = Bucket::fifo(available, capacity);
        assert_eq!(bucket.queue.others(), 0);
        bucket.push(Kind::Idle, 0, 0);
        assert!(bucket.queue.others() > 0);
        bucket.push(Kind::Settled, 0, 0);
        bucket.push(Kind::Idle, 0, 0);
        let reached: Vec<_> =
            [(0, idle), (2, idle), (1, settled)].into_iter().filter(|(_, holds)| *holds).map(|(id, _)| Granted(id, 0)).collect();
        assert_eq!(bucket.serve(), reached, "{available}/{capacity}");
        assert_eq!(bucket.queue.others() > 0, !idle || !settled);
    }
}

#[test]
fn the_summary_tells_of_each_kind() {
    let summary = |bucket: &Bucket| bucket.queue.summary();
    let mut bucket = Bucket::fifo(0, 2);
    assert_eq!(summary(&bucket), Summary::default());
    bucket.queue_all([3]);
    assert_eq!(summary(&bucket), Summary::HAS_WAITERS.with(Summary::NO_BARGING, true));
    bucket.give(1);
    assert_eq!(summary(&bucket), Summary::HAS_DEFERRED);
    bucket.push(Kind::Release, 1, 1);
    assert_eq!(summary(&bucket), Summary::HAS_RELEASERS.with(Summary::HAS_DEFERRED, true));

    for kind in [Kind::Idle, Kind::Settled] {
        let mut bucket = Bucket::fifo(-1, 0);
        bucket.push(kind, 0, 0);
        assert_eq!(summary(&bucket), Summary::HAS_DEFERRED);
    }

    let mut bucket = Bucket::barging(0, 2);
    bucket.queue_all([1]);
    assert_eq!(summary(&bucket), Summary::HAS_WAITERS);
    lose(&mut bucket, 16);
    assert_eq!(summary(&bucket), Summary::HAS_WAITERS.with(Summary::NO_BARGING, true));
}

#[test]
fn all_takers_and_releasers_are_taken_out_for_the_close() {
    let mut bucket = Bucket::barging(0, 2);
    bucket.queue_all([4, 1, 2]);
    assert_eq!(bucket.give(1), [Woken(1)]);
    let (releaser, idle) = (bucket.push(Kind::Release, 1, 1), bucket.push(Kind::Idle, 0, 0));
    let mut taken: Vec<_> = bucket.queue.take_all().map(|waiter| waiter.id).collect();
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2, releaser]);
    assert_eq!((bucket.queue.takers(), bucket.queue.others()), (0, 1));
    assert_eq!(bucket.queue.take_watchers(state(2, 2)).map(|waiter| waiter.id).collect::<Vec<_>>(), [idle]);
    // Nothing is left of the claims.
    assert_eq!((bucket.queue.takers.woken, bucket.queue.takers.claimed), (0, 0));
}
