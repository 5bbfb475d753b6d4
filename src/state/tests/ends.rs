//! The ends of every field.

use super::*;

/// 0, 1, the largest capacity, its neighbours, and numbers that a 32-bit field would cut short.
fn odd_counts() -> impl Iterator<Item = usize> {
    let max = u64::from(MAX_CAPACITY);
    let counts = [0, 1, 2, max - 1, max, max + 1, 2 * max, 2 * max + 1, 1 << 31, 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX];
    counts.into_iter().filter_map(|count| usize::try_from(count).ok()).chain([usize::MAX])
}

/// Words with the extremes of capacity and available tokens (S1), and with all flags or none.
fn extreme_states() -> impl Iterator<Item = State> {
    let max = i64::from(MAX_CAPACITY);
    let capacities = [0, 1, 2, MAX_CAPACITY - 1, MAX_CAPACITY];
    let all = capacities.into_iter().flat_map(move |capacity| {
        let lowest = i64::from(capacity) - max;
        let numbers = [lowest, lowest + 1, -1, 0, 1, i64::from(capacity), max - 1, max];
        numbers.into_iter().filter(move |available| (lowest..=max).contains(available)).map(move |available| (capacity, available))
    });
    all.flat_map(|(capacity, available)| [0, FLAGS & !CLOSED].map(|flags| State::pack(capacity, available, flags)))
}

#[test]
fn gives_at_the_ends() {
    let max = i128::from(MAX_CAPACITY);
    for (state, n) in extreme_states().flat_map(|state| odd_counts().map(move |n| (state, n))) {
        let (available, capacity) = numbers(state);
        let check = |(next, given): (State, Given), limit: i128| {
            let fitted = (n as i128).min(limit - available).max(0);
            let paid = fitted.min((-available).max(0));
            assert_eq!(numbers(next), (available + fitted, capacity), "{n} into {state:?}");
            assert_eq!((given.restored as i128, given.paid as i128), (fitted - paid, paid), "{n} into {state:?}");
            assert_eq!((given.fitted() as i128, next.bits() & FLAGS), (fitted, state.bits() & FLAGS));
        };
        check(state.give(n, MAX_CAPACITY), max);
        check(state.top_up(n), capacity);
        let fits = available + n as i128 <= max;
        let released = if fits { Ok(state.give(n, MAX_CAPACITY).0) } else { Err(Refused::NotNow) };
        assert_eq!(state.release(n, MAX_CAPACITY), released, "{n} into {state:?}");
        let plain = fits && !state.has(HAS_WAITERS | HAS_DEFERRED);
        assert_eq!(state.give_fast(n, MAX_CAPACITY), plain.then(|| state.give(n, MAX_CAPACITY).0), "{n} into {state:?}");
    }
}

#[test]
fn retirements_and_growth_at_the_ends() {
    let max = i128::from(MAX_CAPACITY);
    for (state, n) in extreme_states().flat_map(|state| odd_counts().map(move |n| (state, n))) {
        let (available, capacity) = numbers(state);
        let paid = (n as i128).min((-available).max(0));
        let expected = (available + paid, (capacity - (n as i128 - paid)).max(0));
        assert_eq!(numbers(state.retire(n)), expected, "{n} of {state:?}");

        // The held tokens count, too: a shrink to 0 must be able to ask them all back (S1).
        let fits = capacity + n as i128 <= max && capacity + n as i128 - available <= max;
        let expected = if fits { Ok((available, capacity + n as i128)) } else { Err(Refused::ExceedsMax) };
        assert_eq!(state.grow_and_take(n, MAX_CAPACITY).map(numbers), expected, "{n} for {state:?}");
    }
}

#[test]
fn takes_at_the_ends() {
    let counts = [0, 1, 2, MAX_CAPACITY - 1, MAX_CAPACITY];
    for state in extreme_states().filter(|state| !state.has(NO_BARGING)) {
        let (available, capacity) = numbers(state);
        for (min, up_to) in counts.into_iter().flat_map(|min| counts.map(|up_to| (min, up_to))).filter(|(min, up_to)| min <= up_to)
        {
            let n = i128::from(up_to).min(available);
            let expected = if available >= min.into() { Ok(((available - n, capacity), n)) } else { Err(Refused::NotNow) };
            let plain = |(next, n): (State, u32)| (numbers(next), n.into());
            assert_eq!(state.take(min, up_to).map(plain), expected, "{min} to {up_to} of {state:?}");
            assert_eq!(state.retry(min, up_to).map(plain), expected, "{min} to {up_to} of {state:?}");
            assert_eq!(state.grant(min, up_to).map(plain).map_err(|_| Refused::NotNow), expected, "{min} to {up_to} of {state:?}");
        }
    }
}

#[test]
fn resizes_at_the_ends() {
    let max = i128::from(MAX_CAPACITY);
    for (state, to) in extreme_states().flat_map(|state| [0, 1, MAX_CAPACITY].map(|to| (state, to))) {
        let (available, capacity) = numbers(state);
        let expected = ((available + i128::from(to) - capacity).min(max), i128::from(to));
        assert_eq!(state.set_capacity(to, MAX_CAPACITY).map(numbers), Ok(expected), "{state:?} to {to}");
    }
}

#[test]
fn a_new_bucket_is_full() {
    for capacity in [0, 1, MAX_CAPACITY] {
        assert_eq!(numbers(State::new(capacity)), (capacity.into(), capacity.into()));
    }
}
