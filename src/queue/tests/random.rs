//! Random operations, compared with the model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Queue(Kind, u32, u32),
    Give(usize),
    Bypass(u32),
    /// Tokens come and newcomers take them.
    Lose(u32),
    SetCapacity(u32),
    /// One of the woken waiters answers.
    Poll(prop::sample::Index),
    /// One of all waiters leaves.
    Leave(prop::sample::Index),
    Compact,
}

fn operation() -> impl Strategy<Value = Operation> {
    let range = (1..=MAX).prop_flat_map(|min| (Just(min), prop_oneof![2 => Just(min), 1 => min..=MAX]));
    prop_oneof![
        6 => range.prop_map(|(min, up_to)| Operation::Queue(Kind::Take, min, up_to)),
        1 => prop::sample::select([Kind::Release, Kind::Idle, Kind::Settled].as_slice()).prop_map(|kind| Operation::Queue(kind, 1, 1)),
        6 => (1..=4_usize).prop_map(Operation::Give),
        2 => (1..=4_u32).prop_map(Operation::Bypass),
        1 => (1..=20_u32).prop_map(Operation::Lose),
        2 => (0..=MAX).prop_map(Operation::SetCapacity),
        4 => any::<prop::sample::Index>().prop_map(Operation::Poll),
        3 => any::<prop::sample::Index>().prop_map(Operation::Leave),
        1 => Just(Operation::Compact),
    ]
}

impl Bucket {
    /// One of the waiters that stand so, if there are any.
    fn pick(&self, index: prop::sample::Index, stands: impl Fn(Standing) -> bool) -> Option<usize> {
        let some: Vec<_> = self.waiters.iter().filter(|waiter| stands(waiter.standing.get())).map(|waiter| waiter.id).collect();
        (!some.is_empty()).then(|| *index.get(&some))
    }

    /// Everything is compared with the model, and checked, within.
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Queue(kind, min, up_to) => drop(self.queue(kind, min, up_to)),
            Operation::Give(n) => drop(self.give(n)),
            Operation::Bypass(n) => drop(self.bypass(n)),
            Operation::Lose(times) => {
                for _ in 0..times {
                    self.give(1);
                    self.bypass(1);
                }
            }
            Operation::SetCapacity(capacity) => drop(self.set_capacity(capacity)),
            Operation::Poll(index) => {
                if let Some(id) = self.pick(index, |standing| standing == Standing::Woken) {
                    self.poll(id);
                }
            }
            Operation::Leave(index) => {
                if let Some(id) = self.pick(index, |standing| standing != Standing::Gone) {
                    self.leave(id);
                }
            }
            Operation::Compact => {
                self.queue.compact();
                self.settle();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_model_does(
        fifo in any::<bool>(), capacity in 0..=MAX, operations in prop::collection::vec(operation(), 1..80),
    ) {
        let mut bucket = Bucket::new(fifo, 0, capacity);
        for operation in operations {
            bucket.apply(operation);
        }
        // With enough of everything, and answers from all, no waiter is left.
        bucket.set_capacity(MAX);
        while let Some(id) = bucket.waiters.iter().find(|waiter| waiter.lives()).map(|waiter| waiter.id) {
            if bucket.waiters[id].standing.get() == Standing::Woken {
                bucket.poll(id);
            } else if bucket.waiters[id].kind == Kind::Release {
                prop_assert!(bucket.give(MAX as usize).is_empty() && bucket.bypass(MAX));
            } else {
                prop_assert!(!bucket.give(MAX as usize).is_empty(), "{:?} waits in {:?}", bucket.waiters[id], bucket.state);
            }
        }
    }
}
