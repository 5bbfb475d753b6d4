//! Each transition as a table of rows `before → after`, and random transitions against a plain model.

extern crate std;

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const MAX: u32 = 8;

/// Reads `available/capacity FLAGS`.
fn state(text: &str) -> State {
    let mut words = text.split_whitespace();
    let (available, capacity) = words.next().and_then(|numbers| numbers.split_once('/')).expect("two numbers");
    let flags = words.map(|name| FLAG_NAMES.iter().find(|(_, flag)| *flag == name).expect("a flag").0);
    State::pack(capacity.parse().expect("a capacity"), available.parse().expect("a number"), flags.fold(0, |all, flag| all | flag))
}

fn text(state: State) -> String {
    let flags: Vec<_> = FLAG_NAMES.iter().filter(|(flag, _)| state.has(*flag)).map(|(_, name)| *name).collect();
    format!("{}/{} {}", state.available(), state.capacity(), flags.join(" ")).trim_end().into()
}

/// Applies a transition, and writes what became of it: `after ! action`, or the refusal.
fn row(before: &str, transition: impl Fn(State) -> Result<(State, Action), Refused>) -> String {
    match transition(state(before)) {
        Ok((after, Action::Nothing)) => text(after),
        Ok((after, action)) => format!("{} ! {action:?}", text(after)),
        Err(refused) => format!("{refused:?}"),
    }
}

macro_rules! table {
    ($($name:ident: $transition:expr => { $($before:literal => $after:literal,)* })*) => {$(
        #[test]
        fn $name() {
            $(assert_eq!(row($before, $transition), $after, "from {}", $before);)*
        }
    )*};
}

#[allow(clippy::unnecessary_wraps, reason = "for the tables")]
fn sure<R>((state, result): (State, R)) -> Result<(State, R), Refused> {
    Ok((state, result))
}

table! {
    take_2: |state| state.take(2) => {
        "5/8" => "3/8",
        "2/8" => "0/8",
        "1/8" => "NotNow",
        "0/8" => "NotNow",
        "-1/8" => "NotNow",
        "5/8 CLOSED" => "Closed",
        "0/8 CLOSED" => "Closed",
        "5/8 SHUT" => "NotNow",
        "5/8 QUEUED" => "3/8 QUEUED",
        "5/8 ASIDE" => "3/8 ASIDE",
        "8/8 ROOM" => "6/8 SERVING ROOM ! Serve",
        "8/8 ROOM SERVING" => "6/8 SERVING AGAIN ROOM",
    }

    take_plainly_is_take_without_an_action: |state| state.take_plainly(2).map(|state| (state, Action::Nothing)).ok_or(Refused::NotNow) => {
        "5/8" => "3/8",
        "1/8" => "NotNow",
        "5/8 CLOSED" => "NotNow",
        "5/8 SHUT" => "NotNow",
        "5/8 ROOM" => "NotNow",
        "5/8 QUEUED" => "3/8 QUEUED",
    }

    take_up_to_4: |state| state.take_up_to(4).map(|(state, (action, _))| (state, action)) => {
        "6/8" => "2/8",
        "3/8" => "0/8",
        "0/8" => "NotNow",
        "-2/8" => "NotNow",
        "3/8 SHUT" => "NotNow",
        "3/8 CLOSED" => "Closed",
    }

    enqueue_in_a_fifo_bucket: |state| state.enqueue(true) => {
        "0/8" => "0/8 QUEUED SHUT",
        "-2/8" => "-2/8 QUEUED SHUT",
        // A token came between the failed take and this.
        "1/8" => "1/8 QUEUED SHUT SERVING ! Serve",
        // Somebody is before it; the line has seen the tokens.
        "1/8 QUEUED SHUT" => "1/8 QUEUED SHUT",
        "0/8 SERVING" => "0/8 QUEUED SHUT SERVING AGAIN",
        "0/8 CLOSED" => "Closed",
    }

    enqueue_in_a_barging_bucket: |state| state.enqueue(false) => {
        "0/8" => "0/8 QUEUED",
        "1/8" => "1/8 QUEUED SERVING ! Serve",
        "0/8 SERVING" => "0/8 QUEUED SERVING AGAIN",
        "0/8 CLOSED" => "Closed",
    }

    give_2: |state| sure(state.give(2, MAX)).map(|(state, (action, _))| (state, action)) => {
        "3/8" => "5/8",
        "-2/2" => "0/2",
        "7/8" => "8/8",
        "8/8" => "8/8",
        "3/8 CLOSED" => "5/8 CLOSED",
        // What is owed comes first.
        "-2/2 QUEUED SHUT" => "0/2 QUEUED SHUT",
        "-1/2 QUEUED SHUT" => "1/2 QUEUED SHUT SERVING ! Serve",
        "0/2 QUEUED SHUT SERVING" => "2/2 QUEUED SHUT SERVING AGAIN",
        // Newcomers may pass: perhaps somebody is on the way.
        "0/2 QUEUED" => "2/2 QUEUED ! Call",
        "0/2 QUEUED SERVING" => "2/2 QUEUED SERVING AGAIN",
        // Those aside wait for more tokens than the capacity, or for all to be back.
        "0/3 ASIDE" => "2/3 ASIDE",
        "0/2 ASIDE" => "2/2 SERVING ASIDE ! Serve",
        "1/2 ASIDE" => "3/2 SHUT SERVING ASIDE ! Serve",
        "0/2 CLOSED ASIDE" => "2/2 CLOSED SERVING ASIDE ! Serve",
        "3/8 ROOM" => "5/8 ROOM",
    }

    give_2_plainly: |state| state.give_plainly(2, MAX).map(|state| (state, Action::Nothing)).ok_or(Refused::NotNow) => {
        "3/8" => "5/8",
        "-2/2" => "0/2",
        "6/8" => "8/8",
        "7/8" => "NotNow",
        "0/2 QUEUED" => "NotNow",
        "0/2 ASIDE" => "NotNow",
        "3/8 CLOSED" => "5/8 CLOSED",
    }

    top_up_2: |state| sure(state.top_up(2)).map(|(state, (action, _))| (state, action)) => {
        "3/8" => "5/8",
        "7/8" => "8/8",
        "8/8" => "8/8",
        "3/4" => "4/4",
        // Releases have put more into it.
        "5/4" => "5/4",
        "3/8 CLOSED" => "5/8 CLOSED",
        // What is owed comes first.
        "-3/2" => "-1/2",
        "-2/2 QUEUED SHUT" => "0/2 QUEUED SHUT",
        "-1/2 QUEUED SHUT" => "1/2 QUEUED SHUT SERVING ! Serve",
        "0/2 QUEUED SHUT SERVING" => "2/2 QUEUED SHUT SERVING AGAIN",
        "0/2 QUEUED" => "2/2 QUEUED ! Call",
        "0/2 QUEUED SERVING" => "2/2 QUEUED SERVING AGAIN",
        // The line has seen what is there.
        "2/2 QUEUED SHUT" => "2/2 QUEUED SHUT",
        "2/2 QUEUED" => "2/2 QUEUED",
        // Of those aside it reaches who waits for all to be back.
        "0/1 ASIDE" => "1/1 SERVING ASIDE ! Serve",
        "0/3 ASIDE" => "2/3 ASIDE",
    }

    release_2: |state| state.release(2, MAX) => {
        "6/8" => "8/8",
        "7/8" => "NotNow",
        "8/8" => "NotNow",
        "2/2" => "4/2",
        "0/8 QUEUED SHUT" => "2/8 QUEUED SHUT SERVING ! Serve",
        "0/8 CLOSED" => "Closed",
    }

    enqueue_release: |state| state.enqueue_release(MAX).map(|(state, (action, _))| (state, action)) => {
        "7/8" => "8/8",
        "8/8" => "8/8 ROOM",
        "8/8 SERVING" => "8/8 SERVING ROOM",
        "8/8 CLOSED" => "Closed",
        "7/8 CLOSED" => "Closed",
    }

    pass_room: |state| sure(state.pass_room(MAX)) => {
        "7/8 ROOM" => "7/8 SERVING ROOM ! Serve",
        "8/8 ROOM" => "8/8 ROOM",
        "7/8" => "7/8",
    }

    await_all: |state| sure((state.await_all().0, Action::Nothing)) => {
        "1/2" => "1/2 ASIDE",
        "-1/0" => "-1/0 ASIDE",
        "1/2 CLOSED" => "1/2 CLOSED ASIDE",
        "1/2 SERVING ASIDE" => "1/2 SERVING AGAIN ASIDE",
        "2/2" => "2/2",
        "3/2 SERVING" => "3/2 SERVING",
    }

    set_capacity_5: |state| state.set_capacity(5, MAX, true) => {
        "8/8" => "5/5",
        "1/8" => "-2/5",
        "0/0" => "5/5",
        "-3/0" => "2/5",
        // Deposits have filled it up.
        "8/2" => "8/5",
        "5/5" => "5/5",
        "5/5 CLOSED" => "Closed",
        "0/0 QUEUED SHUT" => "5/5 QUEUED SHUT SERVING ! Serve",
        "-5/0 QUEUED SHUT" => "0/5 QUEUED SHUT",
        "0/0 QUEUED" => "5/5 QUEUED SERVING ! Serve",
        // The head may want more than this.
        "4/8 QUEUED SHUT" => "1/5 QUEUED SHUT SERVING ! Serve",
        // One who waits aside comes first from now on, even if there is nothing for it yet.
        "-5/0 ASIDE" => "0/5 SHUT SERVING ASIDE ! Serve",
        "8/8 ASIDE" => "5/5 SERVING ASIDE ! Serve",
        "5/5 ASIDE" => "5/5 SERVING ASIDE ! Serve",
        // A shrink makes room.
        "8/8 ROOM" => "5/5 SERVING ROOM ! Serve",
        "8/2 ROOM" => "8/5 ROOM",
        "0/0 SERVING QUEUED" => "5/5 QUEUED SERVING AGAIN",
    }

    set_capacity_5_where_newcomers_may_pass: |state| state.set_capacity(5, MAX, false) => {
        "0/0 ASIDE" => "5/5 SERVING ASIDE ! Serve",
        "0/0 QUEUED" => "5/5 QUEUED SERVING ! Serve",
    }

    close: |state| sure(state.close()).map(|(state, (action, _))| (state, action)) => {
        "3/8" => "3/8 CLOSED",
        "3/8 CLOSED" => "3/8 CLOSED",
        "0/8 QUEUED SHUT" => "0/8 CLOSED QUEUED SHUT SERVING ! Serve",
        "0/8 ASIDE" => "0/8 CLOSED SERVING ASIDE ! Serve",
        "8/8 ROOM" => "8/8 CLOSED SERVING ROOM ! Serve",
        "0/8 QUEUED SERVING" => "0/8 CLOSED QUEUED SERVING AGAIN",
    }

    call: |state| sure(state.call()) => {
        "1/8 QUEUED" => "1/8 QUEUED SERVING ! Serve",
        "0/8 QUEUED" => "0/8 QUEUED",
        "1/8" => "1/8",
        "1/8 QUEUED SERVING" => "1/8 QUEUED SERVING AGAIN",
        "0/8 QUEUED SHUT SERVING" => "0/8 QUEUED SHUT SERVING",
        "0/8 ASIDE" => "0/8 SERVING ASIDE ! Serve",
    }

    resume: |state| sure(state.resume(MAX)) => {
        "1/8 QUEUED SHUT" => "1/8 QUEUED SHUT SERVING ! Serve",
        "1/8 QUEUED SHUT SERVING" => "1/8 QUEUED SHUT SERVING AGAIN",
        "0/8 QUEUED SHUT" => "0/8 QUEUED SHUT",
        "0/8 CLOSED QUEUED SHUT" => "0/8 CLOSED QUEUED SHUT SERVING ! Serve",
        "-1/8 QUEUED ASIDE" => "-1/8 QUEUED SERVING ASIDE ! Serve",
        "7/8 ROOM" => "7/8 SERVING ROOM ! Serve",
        "8/8 ROOM" => "8/8 ROOM",
    }

    attend: |state| sure((state.attend(), Action::Nothing)) => {
        "1/8 QUEUED SERVING AGAIN" => "1/8 QUEUED SERVING",
        "1/8 QUEUED SERVING" => "1/8 QUEUED SERVING",
    }

    grant_2: |state| sure((state.grant(2), Action::Nothing)) => {
        "2/8 QUEUED SHUT SERVING" => "0/8 QUEUED SHUT SERVING",
    }

    step_back: |state| sure((state.step_back(), Action::Nothing)) => {
        "1/8 QUEUED SHUT SERVING" => "1/8 QUEUED SHUT",
        "0/8 SERVING AGAIN ROOM ASIDE" => "0/8 QUEUED SHUT ROOM ASIDE",
        "0/8 CLOSED QUEUED SHUT SERVING AGAIN" => "0/8 CLOSED QUEUED SHUT",
    }

    shut: |state| sure((state.shut(), Action::Nothing)) => {
        "2/2 SERVING ASIDE" => "2/2 SHUT SERVING ASIDE",
    }

    rest_with_nothing: |state| sure((state.rest(Rest::default()), Action::Nothing)) => {
        "2/8 QUEUED SHUT SERVING ROOM ASIDE" => "2/8",
        "2/8 CLOSED QUEUED SHUT SERVING" => "2/8 CLOSED",
    }

    rest_with_all: |state| sure((state.rest(Rest { queued: true, shut: true, room: true, aside: true }), Action::Nothing)) => {
        "2/8 SERVING" => "2/8 QUEUED SHUT ROOM ASIDE",
    }
}

#[test]
fn take_up_to_tells_how_many() {
    assert_eq!(state("6/8").take_up_to(4).map(|(_, (_, n))| n), Ok(4));
    assert_eq!(state("3/8").take_up_to(4).map(|(_, (_, n))| n), Ok(3));
}

#[test]
fn give_tells_how_many_fitted() {
    for (before, n, fitted) in [("3/8", 2, 2), ("7/8", 2, 1), ("8/8", 2, 0), ("-8/0", usize::MAX, 16)] {
        assert_eq!(state(before).give(n, MAX).1.1, fitted, "{n} into {before}");
    }
}

#[test]
fn top_up_tells_how_many_fitted() {
    for (before, n, fitted) in
        [("3/8", 2, 2), ("7/8", 2, 1), ("8/8", 2, 0), ("5/4", 2, 0), ("-8/0", usize::MAX, 8), ("0/8", 0, 0), ("0/8", 1 << 31, 8)]
    {
        assert_eq!(state(before).top_up(n).1.1, fitted, "{n} onto {before}");
    }
}

#[test]
fn only_the_first_close_closes() {
    assert!(state("3/8").close().1.1);
    assert!(!state("3/8 CLOSED").close().1.1);
}

#[test]
fn a_request_is_reached_by_the_capacity_or_by_what_is_there() {
    for (before, n, reached) in [("0/3", 3, true), ("0/3", 4, false), ("-3/3", 3, true), ("5/3", 5, true), ("5/3", 6, false)] {
        assert_eq!(state(before).reaches(n), reached, "{n} of {before}");
    }
}

#[test]
fn the_ends_of_every_field() {
    let max = i64::from(MAX_CAPACITY);
    for (available, capacity) in [(0, 0), (max, MAX_CAPACITY), (-max, 0), (-max, MAX_CAPACITY), (max, 0), (-1, 1)] {
        for flags in [0, FLAGS, CLOSED, ASIDE] {
            let state = State::pack(capacity, available, flags);
            assert_eq!((state.available(), state.capacity(), state.bits() & FLAGS), (available, capacity, flags));
        }
    }
    let full = State::new(MAX_CAPACITY);
    assert_eq!(full.take(MAX_CAPACITY).map(|(state, _)| state.available()), Ok(0));
    let (owing, _) = State::pack(MAX_CAPACITY, 0, 0).set_capacity(0, MAX_CAPACITY, true).expect("open");
    assert_eq!(owing.available(), -max);
    assert_eq!(owing.give(usize::MAX, MAX_CAPACITY).1.1 as i64, 2 * max);
}

/// Capacity and available tokens as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Model {
    available: i64,
    capacity: i64,
    closed: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Take(u32),
    TakeUpTo(u32),
    Give(usize),
    TopUp(usize),
    Release(usize),
    SetCapacity(u32, bool),
    Enqueue(bool),
    EnqueueRelease,
    AwaitAll,
    Call,
    Serve { queued: bool, shut: bool, room: bool, aside: bool },
    Back,
    Resume,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..=MAX).prop_map(Step::Take),
        2 => (1..=MAX).prop_map(Step::TakeUpTo),
        4 => (0..=20_usize).prop_map(Step::Give),
        2 => (0..=20_usize).prop_map(Step::TopUp),
        2 => (0..=MAX as usize).prop_map(Step::Release),
        3 => (0..=MAX, any::<bool>()).prop_map(|(c, shut)| Step::SetCapacity(c, shut)),
        2 => any::<bool>().prop_map(Step::Enqueue),
        1 => Just(Step::EnqueueRelease),
        1 => Just(Step::AwaitAll),
        1 => Just(Step::Call),
        4 => any::<(bool, bool, bool, bool)>().prop_map(|(queued, shut, room, aside)| Step::Serve { queued, shut, room, aside }),
        1 => Just(Step::Back),
        1 => Just(Step::Resume),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..60)
}

impl Model {
    fn of(state: State) -> Self {
        Self { available: state.available(), capacity: i64::from(state.capacity()), closed: state.is_closed() }
    }

    fn add(self, n: i64) -> Self {
        Self { available: (self.available + n).min(i64::from(MAX)), ..self }
    }
}

proptest! {
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

    /// Numbers change as the model says, flags never spill into them, and the invariants hold.
    #[test]
    fn random_transitions_agree_with_plain_numbers(steps in steps()) {
        let mut state = State::new(MAX / 2);
        for step in steps {
            let model = Model::of(state);
            let shut = state.has(SHUT);
            // `None`: refused; there is no new state then (S2).
            let (next, expected) = match step {
                Step::Take(n) => (
                    state.take(n).ok().map(|(next, _)| next),
                    (!model.closed && !shut && model.available >= i64::from(n)).then(|| model.add(-i64::from(n))),
                ),
                Step::TakeUpTo(n) => (
                    state.take_up_to(n).ok().map(|(next, _)| next),
                    (!model.closed && !shut && model.available > 0).then(|| model.add(-i64::from(n).min(model.available))),
                ),
                Step::Give(n) => (Some(state.give(n, MAX).0), Some(model.add(n as i64))),
                Step::TopUp(n) => (
                    Some(state.top_up(n).0),
                    Some(Model { available: (model.available + n as i64).min(model.capacity).max(model.available), ..model }),
                ),
                Step::Release(n) => (
                    state.release(n, MAX).ok().map(|(next, _)| next),
                    (!model.closed && model.available + n as i64 <= i64::from(MAX)).then(|| model.add(n as i64)),
                ),
                Step::SetCapacity(c, shut) => (
                    state.set_capacity(c, MAX, shut).ok().map(|(next, _)| next),
                    (!model.closed).then(|| {
                        let c = i64::from(c);
                        Model { capacity: c, ..model.add(c - model.capacity) }
                    }),
                ),
                Step::Enqueue(shut) => (state.enqueue(shut).ok().map(|(next, _)| next), (!model.closed).then_some(model)),
                Step::EnqueueRelease => (
                    state.enqueue_release(MAX).ok().map(|(next, _)| next),
                    (!model.closed).then(|| model.add(1)),
                ),
                Step::AwaitAll => (Some(state.await_all().0), Some(model)),
                Step::Call => (Some(state.call().0), Some(model)),
                Step::Serve { queued, shut, room, aside } if state.has(SERVING) => {
                    (Some(state.attend().rest(Rest { queued, shut, room, aside })), Some(model))
                }
                Step::Back if state.has(SERVING) => (Some(state.step_back()), Some(model)),
                Step::Serve { .. } | Step::Back => continue,
                Step::Resume => (Some(state.resume(MAX).0), Some(model)),
                Step::Close => (Some(state.close().0), Some(Model { closed: true, ..model })),
            };
            prop_assert_eq!(next.map(Model::of), expected, "{:?} in {:?}", step, state);
            let Some(next) = next else { continue };
            let (available, capacity) = (next.available(), i64::from(next.capacity()));
            prop_assert!(capacity - i64::from(MAX) <= available && available <= i64::from(MAX), "S1: {:?}", next);
            prop_assert!(next.has(SERVING) || !next.has(AGAIN), "S4: {:?}", next);
            state = next;
        }
    }

    /// The plain forms are the full ones where those ask for nothing.
    #[test]
    fn plain_transitions_agree_with_the_full_ones(
        available in 0..=i64::from(MAX), flags in 0..=FLAGS, n in 0..=2 * MAX,
    ) {
        let state = State::pack(MAX, available, flags);
        if let Some(next) = state.take_plainly(n) {
            prop_assert_eq!(state.take(n), Ok((next, Action::Nothing)));
        } else if let Ok((_, action)) = state.take(n) {
            prop_assert!(state.has(ROOM), "{:?}: {:?}", state, action);
        }
        if let Some(next) = state.give_plainly(n as usize, MAX) {
            prop_assert_eq!(state.give(n as usize, MAX), (next, (Action::Nothing, n as usize)));
        }
    }
}
