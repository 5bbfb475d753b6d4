//! Tokens that come by time.

use std::time::Duration;

use loom_tests::{at_rest, barging, check, fifo, race};
use token_bucket::Refill;

const SECOND: Duration = Duration::from_secs(1);

/// One token a second; the clock has started.
fn refill() -> Refill {
    let mut refill = Refill::new(1, SECOND).unwrap();
    refill.set_rate(Duration::ZERO, 1, SECOND).unwrap();
    refill
}

/// Guards `Combiner::top_up`, which has the queue served: else the taker is queued, and sleeps on.
#[test]
fn tick_against_take() {
    for bucket in [fifo, barging] {
        check(Some(3), move || {
            let bucket = bucket(2, 1);
            bucket.try_take().unwrap().forget();
            let tick = |bucket: &_| assert_eq!(refill().tick(bucket, SECOND).added, 1);
            race(&bucket, move |bucket| tick(bucket), |bucket| bucket.take().wait().unwrap().forget());
            assert_eq!((bucket.available(), bucket.outstanding(), bucket.waiting()), (0, 1, 0));
        });
    }
}

/// Guards `State::top_up`, which looks at the capacity in the step in which it fills the bucket up.
#[test]
fn two_ticks_for_the_last_room() {
    check(None, || {
        let bucket = fifo(2, 1);
        bucket.try_take().unwrap().forget();
        let tick = |bucket: &_| refill().tick(bucket, SECOND).added;
        let added = race(&bucket, move |bucket| tick(bucket), move |bucket| tick(bucket));
        assert!(added == (1, 0) || added == (0, 1), "{added:?}");
        at_rest(&bucket, 0, 0);
    });
}
