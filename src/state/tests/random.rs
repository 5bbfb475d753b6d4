//! Random transitions: each invariant, and what a plain model says.

use std::cell::Cell;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// Capacity and available tokens as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Model {
    available: i64,
    capacity: i64,
    closed: bool,
}

/// A transition of a caller or of a waiter.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(u32, u32),
    Retry(u32, u32),
    Give(usize),
    TopUp(usize),
    Release(usize),
    SetCapacity(u32),
    GrowAndTake(usize),
    Retire(usize),
    Close,
    JoinInbox(Kind, bool),
    RequestRecheck,
    /// A change that finds the queue owned.
    GiveAndRecheck(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (1..=MAX).prop_flat_map(|min| (Just(min), min..=MAX));
    let kind = prop::sample::select([Kind::Take, Kind::Release, Kind::Idle, Kind::Settled].as_slice());
    prop_oneof![
        4 => range().prop_map(|(min, up_to)| Step::Take(min, up_to)),
        2 => range().prop_map(|(min, up_to)| Step::Retry(min, up_to)),
        4 => (0..=20_usize).prop_map(Step::Give),
        2 => (0..=20_usize).prop_map(Step::TopUp),
        2 => (0..=MAX as usize).prop_map(Step::Release),
        4 => (0..=MAX).prop_map(Step::SetCapacity),
        2 => (0..=MAX as usize).prop_map(Step::GrowAndTake),
        2 => (0..=20_usize).prop_map(Step::Retire),
        1 => Just(Step::Close),
        1 => (kind, any::<bool>()).prop_map(|(kind, shut)| Step::JoinInbox(kind, shut)),
        1 => Just(Step::RequestRecheck),
        1 => (0..=20_usize).prop_map(Step::GiveAndRecheck),
    ]
}

/// A word with any numbers (S1) and any of these flags.
fn any_state(flags: u64) -> impl Strategy<Value = State> {
    let max = i64::from(MAX);
    (0..=MAX, 0..=FLAGS).prop_flat_map(move |(capacity, chosen)| {
        (i64::from(capacity) - max..=max).prop_map(move |available| State::pack(capacity, available, chosen & flags))
    })
}

impl Step {
    /// `None` if the transition refuses.
    fn apply(self, state: State) -> Option<State> {
        match self {
            Self::Take(min, up_to) => state.take(min, up_to).ok().map(|(next, _)| next),
            Self::Retry(min, up_to) => state.retry(min, up_to).ok().map(|(next, _)| next),
            Self::Give(n) => Some(state.give(n, MAX).0),
            Self::TopUp(n) => Some(state.top_up(n).0),
            Self::Release(n) => state.release(n, MAX).ok(),
            Self::SetCapacity(to) => state.set_capacity(to, MAX).ok(),
            Self::GrowAndTake(n) => state.grow_and_take(n, MAX).ok(),
            Self::Retire(n) => Some(state.retire(n)),
            Self::Close => Some(state.close()),
            Self::JoinInbox(kind, shut) => Some(state.request_recheck_of(Summary::of(kind, shut))),
            Self::RequestRecheck => Some(state.request_recheck()),
            Self::GiveAndRecheck(n) => Some(state.give(n, MAX).0.recheck_exclusively()),
        }
    }
}

impl Model {
    fn of(state: State) -> Self {
        Self { available: state.available(), capacity: i64::from(state.capacity()), closed: state.is_closed() }
    }

    fn add(self, n: i64) -> Self {
        Self { available: (self.available + n).min(i64::from(MAX)), ..self }
    }

    /// `None` if the step is to be refused; `shut` if newcomers must queue.
    fn after(self, step: Step, shut: bool) -> Option<Self> {
        let Self { available, capacity, closed } = self;
        let max = i64::from(MAX);
        match step {
            Step::Take(min, up_to) | Step::Retry(min, up_to) => {
                (!closed && !shut && available >= min.into()).then(|| self.add(-available.min(up_to.into())))
            }
            Step::Give(n) | Step::GiveAndRecheck(n) => Some(self.add(n as i64)),
            Step::TopUp(n) => Some(Self { available: (available + n as i64).min(capacity).max(available), ..self }),
            Step::Release(n) => (!closed && available + n as i64 <= max).then(|| self.add(n as i64)),
            Step::SetCapacity(to) => (!closed).then(|| Self { capacity: to.into(), ..self.add(i64::from(to) - capacity) }),
            Step::GrowAndTake(n) => {
                let grown = capacity + n as i64;
                (!closed && grown <= max && grown - available <= max).then_some(Self { capacity: grown, ..self })
            }
            Step::Retire(n) => {
                let paid = (n as i64).min(-available).max(0);
                Some(Self { available: available + paid, capacity: (capacity - (n as i64 - paid)).max(0), closed })
            }
            Step::Close => Some(Self { closed: true, ..self }),
            Step::JoinInbox(..) | Step::RequestRecheck => Some(self),
        }
    }
}

fn s1_holds(state: State) -> bool {
    let (available, capacity, max) = (state.available(), i64::from(state.capacity()), i64::from(MAX));
    (0..=max).contains(&capacity) && (capacity - max..=max).contains(&available)
}

/// A queue, as far as the word's flags tell of it.
#[derive(Clone, Debug)]
struct Waiters {
    /// What takers need, in order of arrival, and whether each is deferred (if it is not satisfiable).
    takers: Vec<(u32, bool)>,
    releasers: usize,
    idle: bool,
    settled: bool,
    fifo: bool,
}

/// Each kind of waiter is absent in half of the queues, so that its flag stands alone.
fn waiters() -> impl Strategy<Value = Waiters> {
    let takers = prop_oneof![Just(Vec::new()), prop::collection::vec((1..=MAX, any::<bool>()), 1..6)];
    let releasers = prop_oneof![Just(0), 1..4_usize];
    (takers, releasers, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(takers, releasers, idle, settled, fifo)| Waiters {
        takers,
        releasers,
        idle,
        settled,
        fifo,
    })
}

impl Waiters {
    fn is_deferred(&self, state: State, taker: usize) -> bool {
        let (need, deferred) = self.takers[taker];
        deferred && i64::from(need) > state.satisfiable()
    }

    /// The flags that an owner leaves behind.
    fn summary(&self, state: State) -> Summary {
        let deferred = (0..self.takers.len()).filter(|taker| self.is_deferred(state, *taker)).count();
        let has_waiters = deferred < self.takers.len();
        Summary::default()
            .with(Summary::HAS_WAITERS, has_waiters)
            .with(Summary::NO_BARGING, has_waiters && self.fifo)
            .with(Summary::HAS_RELEASERS, self.releasers > 0)
            .with(Summary::HAS_DEFERRED, deferred > 0 || self.idle || self.settled)
    }

    /// Who may proceed: takers in order of arrival, as long as the tokens suffice for the next satisfiable one; as many releasers
    /// as there is room; watchers whose state is reached; all but watchers if the bucket is closed.
    fn able(&self, state: State) -> Vec<String> {
        let mut able = Vec::new();
        let mut tokens = state.available();
        for (taker, (need, _)) in self.takers.iter().enumerate() {
            if state.is_closed() || i64::from(*need) <= tokens {
                tokens -= i64::from(*need);
                able.push(format!("taker {taker}"));
            } else if i64::from(*need) <= state.satisfiable() {
                break;
            }
        }
        let room = if state.is_closed() { self.releasers } else { self.releasers.min(state.room(MAX) as usize) };
        able.extend((0..room).map(|releaser| format!("releaser {releaser}")));
        able.extend((self.idle && state.is_idle()).then(|| "idle".into()));
        able.extend((self.settled && state.is_settled()).then(|| "settled".into()));
        able
    }

    /// Those that may proceed in `next` and could not before.
    fn gain(&self, state: State, next: State) -> Vec<String> {
        let before = self.able(state);
        self.able(next).into_iter().filter(|waiter| !before.contains(waiter)).collect()
    }

    /// The index of the head, and what it needs: an owner that finds tokens defers what is not satisfiable.
    fn head(&self, state: State) -> Option<(usize, i64)> {
        let mut needs = self.takers.iter().map(|(need, _)| i64::from(*need)).enumerate();
        needs.find(|(_, need)| *need <= state.satisfiable())
    }

    /// Whether an owner is not done: it grants a head above the capacity its tokens before it leaves.
    fn has_head_to_grant(&self, state: State) -> bool {
        let capacity = i64::from(state.capacity());
        self.head(state).is_some_and(|(_, need)| (capacity + 1..=state.available()).contains(&need))
    }
}

/// **S5** If a change allows a queued waiter to proceed, `concerns_waiters` says so.
#[test]
fn s5_a_change_that_lets_a_waiter_proceed_concerns_waiters() {
    let (concerned, needless) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() });
    let tested = runner.run(&(any_state(CLOSED | BYPASSED | RECHECK), waiters(), step()), |(state, waiters, step)| {
        let state = State(state.bits() | waiters.summary(state).0);
        let Some(next) = step.apply(state).filter(|_| !waiters.has_head_to_grant(state)) else { return Ok(()) };
        let (gain, concerns) = (waiters.gain(state, next), state.concerns_waiters(next, MAX));
        if !concerns {
            prop_assert!(gain.is_empty(), "{:?} makes {:?} of {:?}: {:?}", step, next, state, gain);
        }
        // Where the queue had been served before.
        if concerns && waiters.able(state).is_empty() {
            concerned.set(concerned.get() + 1);
            needless.set(needless.get() + u32::from(gain.is_empty()));
        }
        Ok(())
    });
    tested.unwrap_or_else(|failure| panic!("{failure}"));
    std::println!(
        "{} changes concern waiters that cannot proceed yet; {} of them let no waiter proceed",
        concerned.get(),
        needless.get()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_field_comes_back_as_it_was_packed(
        available in -i64::from(MAX_CAPACITY)..=i64::from(MAX_CAPACITY), capacity in 0..=MAX_CAPACITY, flags in 0..=FLAGS,
    ) {
        let state = State::pack(capacity, available, flags);
        prop_assert_eq!((state.available(), state.capacity(), state.bits() & FLAGS), (available, capacity, flags));
        prop_assert_eq!(State::from_bits(state.bits()), state);
        for n in [0, 1, capacity, MAX_CAPACITY] {
            prop_assert_eq!(state.has_available(n), available >= i64::from(n));
        }
    }

    /// **S1** The numbers keep their bounds. They change as the model says, or not at all.
    #[test]
    fn s1_random_transitions_keep_the_numbers_in_bounds(steps in prop::collection::vec(step(), 1..60)) {
        let mut state = State::new(MAX / 2);
        for step in steps {
            let next = step.apply(state);
            prop_assert_eq!(next.map(Model::of), Model::of(state).after(step, state.has(NO_BARGING)), "{:?} in {:?}", step, state);
            // The owner lets newcomers in again, mostly.
            let next = next.unwrap_or(state);
            state = State(next.bits() & !if next.capacity() % 2 == 0 { NO_BARGING } else { 0 });
            prop_assert!(s1_holds(state), "{:?}", state);
        }
    }

    /// **S2** Where it refuses, it leaves the word as it is, and what is full stays so bit for bit.
    #[test]
    fn s2_a_refusal_has_no_new_state(
        state in any_state(FLAGS), seen in any_state(FLAGS), range in (0..=MAX, 0..=MAX), n in 0..=20_usize, flags in 0..=FLAGS,
    ) {
        let (min, up_to) = (range.0.min(range.1), range.0.max(range.1));
        prop_assert_eq!(state.grant(min, up_to).err().unwrap_or(state), state);
        prop_assert_eq!(state.settle(seen, Summary(flags & SUMMARY)).err().unwrap_or(state), state);
        if state.is_idle() {
            prop_assert_eq!(state.top_up(n), (state, Given::default()));
        }
        if state.room(MAX) == 0 {
            prop_assert_eq!(state.give(n, MAX), (state, Given::default()));
        }
        // These tell by their type that there is no state: it remains to show that they refuse what they must.
        prop_assert_eq!(state.take(min, up_to).is_err(), state.has(CLOSED | NO_BARGING) || state.available() < min.into());
        prop_assert_eq!(state.release(n, MAX).is_err(), state.is_closed() || n as u64 > state.room(MAX));
    }

    /// **S3** CLOSED stays, and only returned tokens change the numbers after it.
    #[test]
    fn s3_closed_is_never_cleared(state in any_state(FLAGS), seen in any_state(FLAGS), step in step(), flags in 0..=FLAGS) {
        let closed = state.close();
        if let Some(next) = step.apply(closed) {
            prop_assert!(next.is_closed());
            let is_return = matches!(step, Step::Give(_) | Step::GiveAndRecheck(_) | Step::TopUp(_) | Step::Retire(_));
            prop_assert!(is_return || numbers(next) == numbers(closed), "{:?} in {:?}", step, closed);
            prop_assert!(closed.owners_change(next, true).is_closed());
        }
        prop_assert!(closed.clear_recheck().is_closed() && closed.grant(0, 1) == Err(closed));
        prop_assert!(closed.settle(seen, Summary(flags & SUMMARY)).is_ok_and(State::is_closed) || seen != closed || closed.needs_recheck());
    }

    /// **S4** Only the owner clears the flags that tell of the queue. Callers and waiters set BYPASSED only where takers wait.
    #[test]
    fn s4_callers_and_waiters_clear_no_flag_of_the_queue(state in any_state(FLAGS), step in step()) {
        if let Some(next) = step.apply(state) {
            prop_assert_eq!(state.bits() & (SUMMARY | RECHECK) & !next.bits(), 0, "{:?} in {:?} makes {:?}", step, state, next);
            let bypassed = match step {
                Step::Take(..) => state.is_bypassed() || state.has(HAS_WAITERS),
                Step::Retry(min, _) if state.available() - next.available() > min.into() => state.is_bypassed() || state.has(HAS_WAITERS),
                _ => state.is_bypassed(),
            };
            prop_assert_eq!(next.is_bypassed(), bypassed, "{:?} in {:?} makes {:?}", step, state, next);
        }
    }

    /// The fast forms do as the full ones, and only where no waiter has to hear of it.
    #[test]
    fn fast_transitions_agree_with_the_full_ones(state in any_state(FLAGS), n in 0..=MAX) {
        match state.take_fast(n) {
            Some(next) => prop_assert_eq!(state.take(n, n), Ok((next, n))),
            None => prop_assert!(state.take(n, n).is_err() || state.take_may_unblock()),
        }
        match state.retry_fast(n, MAX) {
            Some(retried) => prop_assert_eq!(state.retry(n, MAX), Ok(retried)),
            None => prop_assert!(state.retry(n, MAX).is_err() || state.take_may_unblock()),
        }
        prop_assert!(state.retry_fast(n, MAX).is_none_or(|(next, _)| !state.concerns_waiters(next, MAX)));
        prop_assert_eq!(state.lacks(n), state.take(n, n) == Err(Refused::NotNow));
        prop_assert!(state.take_fast(n).is_none_or(|next| !state.concerns_waiters(next, MAX)));
        match state.give_fast(n as usize, MAX) {
            Some(next) => prop_assert_eq!(state.give(n as usize, MAX).0, next),
            None => prop_assert!(u64::from(n) > state.room(MAX) || state.has(HAS_WAITERS | HAS_DEFERRED)),
        }
        prop_assert!(state.give_fast(n as usize, MAX).is_none_or(|next| !state.concerns_waiters(next, MAX)));
    }

    /// An owner that settles overlooks no waiter who could proceed since it looked (C2).
    #[test]
    fn the_owner_settles_only_if_no_waiter_can_proceed_since(state in any_state(FLAGS), waiters in waiters(), step in step()) {
        let summary = waiters.summary(state);
        let Some(next) = step.apply(state).filter(|_| !waiters.has_head_to_grant(state)) else { return Ok(()) };
        let settled = next.settle(state, summary);
        let gain = waiters.gain(state, next);
        if settled.is_ok() {
            prop_assert!(gain.is_empty(), "{:?} in {:?} makes {:?}: {:?}", step, state, settled, gain);
        }
        prop_assert!(settled.is_ok() || next != state || next.needs_recheck());
        if let Ok(settled) = settled {
            prop_assert!(settled.is_summarised_by(summary) && numbers(settled) == numbers(next));
            prop_assert_eq!(settled.is_bypassed(), next.is_bypassed() && summary.0 & HAS_WAITERS != 0);
        }
    }

    /// A hand-off is a return and a grant: it is allowed only where the word would come out the same.
    #[test]
    fn a_hand_off_leaves_the_word_as_a_return_and_a_grant_would(state in any_state(FLAGS), n in 1..=MAX) {
        if state.allows_hand_off(n as usize) {
            let (given, Given { restored, paid }) = state.give(n as usize, MAX);
            prop_assert_eq!((restored, paid), (n as usize, 0));
            prop_assert_eq!(given.grant(n, n), Ok((state, n)));
            prop_assert_eq!(given.satisfiable(), state.satisfiable());
        }
    }
}
