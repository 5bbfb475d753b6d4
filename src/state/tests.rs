//! The arithmetic: tables, the ends of every field, and random transitions.

extern crate std;

use std::fmt;
use std::format;
use std::string::{String, ToString as _};

use super::*;

mod ends;
mod random;
mod table;

/// The largest capacity in tables and random states.
const MAX: u32 = 8;

const FLAG_NAMES: [(u64, &str); FLAG_BITS as usize] = [
    (CLOSED, "CLOSED"),
    (HAS_WAITERS, "HAS_WAITERS"),
    (BYPASSED, "BYPASSED"),
    (NO_BARGING, "NO_BARGING"),
    (HAS_RELEASERS, "HAS_RELEASERS"),
    (HAS_DEFERRED, "HAS_DEFERRED"),
    (RECHECK, "RECHECK"),
];

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} of {}", self.available(), self.capacity())?;
        for (_, name) in FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)) {
            write!(f, " {name}")?;
        }
        f.write_str(")")
    }
}

/// Reads `available/capacity FLAGS`.
fn state(text: &str) -> State {
    let mut words = text.split_whitespace();
    let (available, capacity) = words.next().and_then(|numbers| numbers.split_once('/')).expect("two numbers");
    let flags = words.map(|word| FLAG_NAMES.iter().find(|(_, name)| *name == word).expect("a flag").0);
    State::pack(capacity.parse().expect("a capacity"), available.parse().expect("a number"), flags.fold(0, |all, flag| all | flag))
}

/// The numbers of a word.
fn numbers(state: State) -> (i128, i128) {
    (state.available().into(), state.capacity().into())
}

/// What a transition returns, as a row of a table has it: `after`, `after: result` or the refusal.
trait Outcome {
    fn text(self) -> String;
}

impl Outcome for State {
    fn text(self) -> String {
        let flags = FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| format!(" {name}"));
        format!("{}/{}{}", self.available(), self.capacity(), flags.collect::<String>())
    }
}

impl Outcome for bool {
    fn text(self) -> String {
        self.to_string()
    }
}

impl Outcome for (State, u32) {
    fn text(self) -> String {
        format!("{}: {} taken", self.0.text(), self.1)
    }
}

impl Outcome for (State, Given) {
    fn text(self) -> String {
        format!("{}: {} restored, {} paid", self.0.text(), self.1.restored, self.1.paid)
    }
}

impl<T: Outcome> Outcome for Option<T> {
    fn text(self) -> String {
        self.map_or("None".into(), T::text)
    }
}

impl<T: Outcome> Outcome for Result<T, Refused> {
    fn text(self) -> String {
        self.map_or_else(|refused| format!("{refused:?}"), T::text)
    }
}

impl<T: Outcome> Outcome for Result<T, State> {
    fn text(self) -> String {
        self.map_or_else(|actual| format!("Err({})", actual.text()), T::text)
    }
}

#[test]
fn a_request_is_satisfiable_up_to_the_capacity_or_to_what_is_available() {
    for (before, satisfiable) in [("0/3", 3), ("-3/3", 3), ("3/3", 3), ("5/3", 5), ("0/0", 0), ("-8/0", 0)] {
        assert_eq!(state(before).satisfiable(), satisfiable, "{before}");
    }
}

#[test]
fn debug_shows_the_numbers_and_the_names_of_the_flags() {
    assert_eq!(format!("{:?}", state("-3/8")), "State(-3 of 8)");
    assert_eq!(
        format!("{:?}", State::pack(8, 2, FLAGS)),
        "State(2 of 8 CLOSED HAS_WAITERS BYPASSED NO_BARGING HAS_RELEASERS HAS_DEFERRED RECHECK)"
    );
}

/// The fields fill the word and do not overlap; each flag is one bit.
#[test]
fn the_layout_is_the_one_in_the_diagram() {
    let (available, capacity) = (u64::MAX << 35, ((1 << 28) - 1) << 7);
    assert_eq!((available ^ capacity ^ FLAGS, available & capacity, available & FLAGS, capacity & FLAGS), (u64::MAX, 0, 0, 0));
    assert_eq!((State::pack(0, -1, 0).bits(), State::pack(MAX_CAPACITY, 0, 0).bits()), (available, capacity));
    assert!(FLAG_NAMES.iter().enumerate().all(|(bit, (flag, _))| *flag == 1 << bit));
}

/// Only `atomic.rs` turns words into bits.
#[test]
fn no_other_file_looks_at_the_bits() {
    let files = [
        include_str!("../bucket.rs"),
        include_str!("../combiner.rs"),
        include_str!("../queue.rs"),
        include_str!("../take.rs"),
        include_str!("../token.rs"),
        include_str!("../release.rs"),
        include_str!("../idle.rs"),
        include_str!("../waiter.rs"),
    ];
    for file in files {
        assert!(!["bits()", "from_bits", "<<", "0x"].iter().any(|sign| file.contains(sign)));
    }
}
