//! Each transition as a table of rows `before → after`, the ends of every field, and random transitions against a plain model.

extern crate std;

use std::cell::Cell;
use std::fmt;
use std::format;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

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

macro_rules! table {
    ($($name:ident: $transition:expr => { $($before:literal => $after:literal,)* })*) => {$(
        #[test]
        fn $name() {
            let transition = $transition;
            $(assert_eq!(Outcome::text(transition(state($before))), $after, "from {}", $before);)*
        }
    )*};
}

table! {
    take_2: |state: State| state.take(2, 2) => {
        "5/8" => "3/8: 2 taken",
        "2/8" => "0/8: 2 taken",
        "1/8" => "NotNow",
        "0/8" => "NotNow",
        "-1/8" => "NotNow",
        "5/2" => "3/2: 2 taken",
        "5/8 CLOSED" => "Closed",
        "0/8 CLOSED" => "Closed",
        "5/8 NO_BARGING" => "NotNow",
        "5/8 HAS_WAITERS NO_BARGING" => "NotNow",
        // The take is a loss for the head.
        "5/8 HAS_WAITERS" => "3/8 HAS_WAITERS BYPASSED: 2 taken",
        "5/8 HAS_WAITERS BYPASSED" => "3/8 HAS_WAITERS BYPASSED: 2 taken",
        "5/8 HAS_DEFERRED" => "3/8 HAS_DEFERRED: 2 taken",
        "8/8 HAS_RELEASERS" => "6/8 HAS_RELEASERS: 2 taken",
        "5/8 RECHECK" => "3/8 RECHECK: 2 taken",
    }

    take_2_to_4: |state: State| state.take(2, 4) => {
        "6/8" => "2/8: 4 taken",
        "4/8" => "0/8: 4 taken",
        "3/8" => "0/8: 3 taken",
        "2/8" => "0/8: 2 taken",
        "1/8" => "NotNow",
        "-2/8" => "NotNow",
        "3/8 NO_BARGING" => "NotNow",
        "3/8 CLOSED" => "Closed",
        "3/8 HAS_WAITERS" => "0/8 HAS_WAITERS BYPASSED: 3 taken",
    }

    take_fast_2: |state: State| state.take_fast(2) => {
        "5/8" => "3/8",
        "2/8" => "0/8",
        "1/8" => "None",
        "-1/8" => "None",
        "5/8 CLOSED" => "None",
        "5/8 NO_BARGING" => "None",
        "8/8 HAS_RELEASERS" => "None",
        "5/8 HAS_WAITERS" => "3/8 HAS_WAITERS BYPASSED",
        "5/8 HAS_DEFERRED RECHECK" => "3/8 HAS_DEFERRED RECHECK",
    }

    lacks_2: |state: State| state.lacks(2) => {
        "2/8" => "false",
        "1/8" => "true",
        "-1/8" => "true",
        "5/8 NO_BARGING" => "true",
        // It fails for good, or needs the slow path.
        "1/8 CLOSED NO_BARGING" => "false",
        "5/8 HAS_RELEASERS" => "false",
    }

    // The waiter's own take is no loss; what a newcomer took before is.
    retry_2_to_4: |state: State| state.retry(2, 4) => {
        "5/8 HAS_WAITERS" => "1/8 HAS_WAITERS: 4 taken",
        "5/8 HAS_WAITERS BYPASSED" => "1/8 HAS_WAITERS BYPASSED: 4 taken",
        "3/8 HAS_WAITERS" => "0/8 HAS_WAITERS: 3 taken",
        "1/8 HAS_WAITERS" => "NotNow",
        "5/8 HAS_WAITERS NO_BARGING" => "NotNow",
        "5/8 HAS_WAITERS CLOSED" => "Closed",
    }

    retry_fast_2_to_4: |state: State| state.retry_fast(2, 4) => {
        "5/8 HAS_WAITERS BYPASSED" => "1/8 HAS_WAITERS BYPASSED: 4 taken",
        "5/8 HAS_WAITERS" => "1/8 HAS_WAITERS: 4 taken",
        "3/8 HAS_WAITERS HAS_DEFERRED RECHECK" => "0/8 HAS_WAITERS HAS_DEFERRED RECHECK: 3 taken",
        "1/8 HAS_WAITERS" => "None",
        "5/8 HAS_WAITERS NO_BARGING" => "None",
        "5/8 HAS_WAITERS HAS_RELEASERS" => "None",
        "5/8 CLOSED HAS_WAITERS" => "None",
    }

    grant_2_to_4: |state: State| state.grant(2, 4) => {
        "5/8 HAS_WAITERS NO_BARGING" => "1/8 HAS_WAITERS NO_BARGING: 4 taken",
        "3/8 HAS_WAITERS NO_BARGING" => "0/8 HAS_WAITERS NO_BARGING: 3 taken",
        // It is no bypass.
        "5/8 HAS_WAITERS" => "1/8 HAS_WAITERS: 4 taken",
        "5/8 HAS_WAITERS BYPASSED NO_BARGING" => "1/8 HAS_WAITERS BYPASSED NO_BARGING: 4 taken",
        "1/8 HAS_WAITERS NO_BARGING" => "Err(1/8 HAS_WAITERS NO_BARGING)",
        "-1/8 HAS_WAITERS NO_BARGING" => "Err(-1/8 HAS_WAITERS NO_BARGING)",
        "5/8 CLOSED HAS_WAITERS NO_BARGING" => "Err(5/8 CLOSED HAS_WAITERS NO_BARGING)",
    }

    give_2: |state: State| state.give(2, MAX) => {
        "3/8" => "5/8: 2 restored, 0 paid",
        "7/8" => "8/8: 1 restored, 0 paid",
        "8/8" => "8/8: 0 restored, 0 paid",
        "3/3" => "5/3: 2 restored, 0 paid",
        // A deficit comes first.
        "-3/2" => "-1/2: 0 restored, 2 paid",
        "-2/2" => "0/2: 0 restored, 2 paid",
        "-1/2" => "1/2: 1 restored, 1 paid",
        "3/8 CLOSED" => "5/8 CLOSED: 2 restored, 0 paid",
        "0/8 HAS_WAITERS BYPASSED NO_BARGING" => "2/8 HAS_WAITERS BYPASSED NO_BARGING: 2 restored, 0 paid",
        "0/8 HAS_RELEASERS HAS_DEFERRED RECHECK" => "2/8 HAS_RELEASERS HAS_DEFERRED RECHECK: 2 restored, 0 paid",
    }

    give_fast_2: |state: State| state.give_fast(2, MAX) => {
        "3/8" => "5/8",
        "6/8" => "8/8",
        "7/8" => "None",
        "-1/2" => "1/2",
        "3/8 CLOSED" => "5/8 CLOSED",
        "3/8 NO_BARGING HAS_RELEASERS RECHECK" => "5/8 NO_BARGING HAS_RELEASERS RECHECK",
        "0/8 HAS_WAITERS" => "None",
        "0/8 HAS_DEFERRED" => "None",
    }

    top_up_2: |state: State| state.top_up(2) => {
        "3/8" => "5/8: 2 restored, 0 paid",
        "7/8" => "8/8: 1 restored, 0 paid",
        "8/8" => "8/8: 0 restored, 0 paid",
        "3/4" => "4/4: 1 restored, 0 paid",
        // Releases have put more into it.
        "5/4" => "5/4: 0 restored, 0 paid",
        "0/0" => "0/0: 0 restored, 0 paid",
        "-3/2" => "-1/2: 0 restored, 2 paid",
        "-1/2" => "1/2: 1 restored, 1 paid",
        "-1/0" => "0/0: 0 restored, 1 paid",
        "0/2 CLOSED HAS_WAITERS NO_BARGING" => "2/2 CLOSED HAS_WAITERS NO_BARGING: 2 restored, 0 paid",
    }

    release_2: |state: State| state.release(2, MAX) => {
        "6/8" => "8/8",
        "7/8" => "NotNow",
        "8/8" => "NotNow",
        "2/2" => "4/2",
        "-1/2" => "1/2",
        "0/8 HAS_WAITERS NO_BARGING" => "2/8 HAS_WAITERS NO_BARGING",
        "0/8 CLOSED" => "Closed",
        "8/8 CLOSED" => "Closed",
    }

    set_capacity_5: |state: State| state.set_capacity(5, MAX) => {
        "8/8" => "5/5",
        "1/8" => "-2/5",
        "0/0" => "5/5",
        "-3/0" => "2/5",
        "5/5" => "5/5",
        "2/4 HAS_WAITERS BYPASSED" => "3/5 HAS_WAITERS BYPASSED",
        // Deposits have filled the bucket: what does not fit is dropped.
        "8/2" => "8/5",
        "6/2 HAS_DEFERRED" => "8/5 HAS_DEFERRED",
        "5/5 CLOSED" => "Closed",
        "0/8 CLOSED HAS_WAITERS" => "Closed",
    }

    grow_and_take_2: |state: State| state.grow_and_take(2, MAX) => {
        "4/4" => "4/6",
        "0/0" => "0/2",
        "0/6" => "0/8",
        "0/7" => "ExceedsMax",
        "8/8" => "ExceedsMax",
        "8/2" => "8/4",
        "-3/2" => "-3/4",
        "-4/2" => "-4/4",
        "0/4 HAS_WAITERS NO_BARGING HAS_DEFERRED" => "0/6 HAS_WAITERS NO_BARGING HAS_DEFERRED",
        "0/4 CLOSED" => "Closed",
        "0/8 CLOSED" => "Closed",
    }

    retire_2: |state: State| state.retire(2) => {
        "3/8" => "3/6",
        "0/2" => "0/0",
        // A deficit is paid first.
        "-3/4" => "-1/4",
        "-1/4" => "0/3",
        "-2/0" => "0/0",
        "-1/0" => "0/0",
        // Forgotten tokens have been released again.
        "5/1" => "5/0",
        "3/8 CLOSED HAS_WAITERS" => "3/6 CLOSED HAS_WAITERS",
    }

    close: |state: State| state.close() => {
        "3/8" => "3/8 CLOSED",
        "3/8 CLOSED" => "3/8 CLOSED",
        "-2/1 HAS_WAITERS NO_BARGING RECHECK" => "-2/1 CLOSED HAS_WAITERS NO_BARGING RECHECK",
    }

    join_inbox_to_take: |state: State| state.join_inbox(Kind::Take, false) => {
        "0/8" => "0/8 HAS_WAITERS RECHECK",
        "0/8 CLOSED HAS_DEFERRED" => "0/8 CLOSED HAS_WAITERS HAS_DEFERRED RECHECK",
    }

    join_inbox_to_take_where_newcomers_must_queue: |state: State| state.join_inbox(Kind::Take, true) => {
        "0/8" => "0/8 HAS_WAITERS NO_BARGING RECHECK",
    }

    join_inbox_to_release: |state: State| state.join_inbox(Kind::Release, true) => {
        "8/8" => "8/8 HAS_RELEASERS RECHECK",
    }

    join_inbox_until_idle: |state: State| state.join_inbox(Kind::Idle, true) => {
        "1/8" => "1/8 HAS_DEFERRED RECHECK",
    }

    join_inbox_until_settled: |state: State| state.join_inbox(Kind::Settled, true) => {
        "-1/8" => "-1/8 HAS_DEFERRED RECHECK",
    }

    request_recheck: |state: State| state.request_recheck() => {
        "1/8 HAS_WAITERS" => "1/8 HAS_WAITERS RECHECK",
        "1/8 RECHECK" => "1/8 RECHECK",
    }

    request_recheck_of: |state: State| state.request_recheck_of(Summary::new(true, true, false, false)) => {
        "1/8 BYPASSED HAS_DEFERRED" => "1/8 HAS_WAITERS BYPASSED NO_BARGING HAS_DEFERRED RECHECK",
    }

    recheck_exclusively: |state: State| state.recheck_exclusively() => {
        "1/8 HAS_WAITERS BYPASSED" => "1/8 HAS_WAITERS BYPASSED NO_BARGING RECHECK",
        "1/8 HAS_RELEASERS" => "1/8 HAS_RELEASERS RECHECK",
    }

    clear_recheck: |state: State| state.clear_recheck() => {
        "1/8 HAS_WAITERS BYPASSED NO_BARGING RECHECK" => "1/8 HAS_WAITERS NO_BARGING",
        "1/8 CLOSED HAS_RELEASERS HAS_DEFERRED RECHECK" => "1/8 CLOSED HAS_RELEASERS HAS_DEFERRED",
        "1/8" => "1/8",
    }

    owners_give_2: |state: State| state.owners_change(state.give(2, MAX).0, false) => {
        "0/8 HAS_WAITERS" => "2/8 HAS_WAITERS",
        "0/8 HAS_WAITERS BYPASSED" => "2/8 HAS_WAITERS",
        // A deferred request may regain its place ahead of newcomers.
        "0/8 HAS_WAITERS HAS_DEFERRED" => "2/8 HAS_WAITERS NO_BARGING HAS_DEFERRED",
        // Nothing has come.
        "8/8 HAS_WAITERS BYPASSED HAS_DEFERRED" => "8/8 HAS_WAITERS BYPASSED HAS_DEFERRED",
    }

    owners_give_2_for_a_starving_head: |state: State| state.owners_change(state.give(2, MAX).0, true) => {
        "0/8 HAS_WAITERS BYPASSED" => "2/8 HAS_WAITERS NO_BARGING",
        "8/8 HAS_WAITERS BYPASSED" => "8/8 HAS_WAITERS BYPASSED",
    }

    owners_take_2: |state: State| state.owners_change(state.take(2, 2).expect("tokens").0, true) => {
        "8/8 HAS_WAITERS HAS_RELEASERS" => "6/8 HAS_WAITERS BYPASSED HAS_RELEASERS",
    }

    owners_set_capacity_5: |state: State| state.owners_change(state.set_capacity(5, MAX).expect("open"), true) => {
        "0/4 HAS_WAITERS BYPASSED" => "1/5 HAS_WAITERS NO_BARGING",
        "8/4 HAS_WAITERS BYPASSED" => "8/5 HAS_WAITERS NO_BARGING",
        "0/6 HAS_WAITERS BYPASSED" => "-1/5 HAS_WAITERS BYPASSED",
    }

    allows_hand_off_of_2: |state: State| state.allows_hand_off(2) => {
        "0/8 HAS_WAITERS NO_BARGING" => "true",
        "0/8 HAS_WAITERS BYPASSED NO_BARGING HAS_RELEASERS HAS_DEFERRED" => "true",
        "0/2 HAS_WAITERS NO_BARGING" => "true",
        "0/1 HAS_WAITERS NO_BARGING" => "false",
        "1/8 HAS_WAITERS NO_BARGING" => "false",
        "-1/8 HAS_WAITERS NO_BARGING" => "false",
        "0/8" => "false",
        // The head takes its tokens for itself.
        "0/8 HAS_WAITERS" => "false",
        "0/8 NO_BARGING" => "false",
        "0/8 CLOSED HAS_WAITERS NO_BARGING" => "false",
        "0/8 HAS_WAITERS NO_BARGING RECHECK" => "false",
    }

    is_idle: |state: State| state.is_idle() => {
        "8/8 HAS_WAITERS" => "true",
        "7/8" => "false",
        "5/2" => "true",
        "0/0" => "true",
        "-1/0" => "false",
    }

    is_settled: |state: State| state.is_settled() => {
        "0/8 HAS_WAITERS" => "true",
        "-1/8" => "false",
        "-1/0" => "false",
    }

    is_awaited: |state: State| state.is_awaited() => {
        "0/8 HAS_WAITERS" => "true",
        "1/8 HAS_WAITERS" => "true",
        "-1/8 HAS_WAITERS" => "false",
        "0/8 HAS_DEFERRED" => "false",
    }

    allows_service: |state: State| state.allows_service() => {
        "1/8" => "true",
        "0/8 HAS_WAITERS" => "false",
        "-1/8 HAS_WAITERS" => "false",
        "0/8 CLOSED" => "true",
        "-1/8 RECHECK" => "true",
    }

    needs_service: |state: State| state.needs_service(MAX) => {
        "1/8" => "false",
        "1/8 HAS_WAITERS" => "true",
        "0/8 HAS_WAITERS NO_BARGING" => "false",
        "-1/8 HAS_DEFERRED" => "true",
        "7/8 HAS_RELEASERS" => "true",
        "8/8 HAS_RELEASERS" => "false",
    }
}

#[test]
fn concerns_waiters() {
    let rows = [
        ("0/8", "2/8", false),
        ("0/8 BYPASSED RECHECK", "2/8 BYPASSED RECHECK", false),
        // Tokens for takers.
        ("0/8 HAS_WAITERS", "1/8 HAS_WAITERS", true),
        ("0/8 NO_BARGING", "1/8 NO_BARGING", false),
        ("-2/8 HAS_WAITERS", "0/8 HAS_WAITERS", false),
        ("3/8 HAS_WAITERS", "1/8 HAS_WAITERS BYPASSED", false),
        // The head may no longer be satisfiable.
        ("4/8 HAS_WAITERS", "1/5 HAS_WAITERS", true),
        ("3/8 HAS_WAITERS", "0/5 HAS_WAITERS", false),
        ("5/4 HAS_WAITERS", "4/4 HAS_WAITERS BYPASSED", true),
        ("4/4 HAS_WAITERS", "3/4 HAS_WAITERS BYPASSED", false),
        ("1/0 HAS_WAITERS", "0/0 HAS_WAITERS BYPASSED", false),
        // The capacity for deferred requests, or more tokens than that; all tokens back, or no deficit left.
        ("0/4 HAS_DEFERRED", "3/4 HAS_DEFERRED", false),
        ("0/4 HAS_DEFERRED", "4/4 HAS_DEFERRED", true),
        ("0/4 HAS_DEFERRED", "5/4 HAS_DEFERRED", true),
        ("-4/4 HAS_DEFERRED", "-3/5 HAS_DEFERRED", true),
        ("4/4 HAS_DEFERRED", "3/3 HAS_DEFERRED", true),
        ("-2/4 HAS_DEFERRED", "-1/4 HAS_DEFERRED", false),
        ("-2/4 HAS_DEFERRED", "0/4 HAS_DEFERRED", true),
        ("5/4 HAS_DEFERRED", "4/4 HAS_DEFERRED", false),
        // Room for releasers.
        ("8/8 HAS_RELEASERS", "7/8 HAS_RELEASERS", true),
        ("8/8 HAS_RELEASERS", "7/7 HAS_RELEASERS", true),
        ("8/2 HAS_RELEASERS", "8/5 HAS_RELEASERS", false),
        ("6/8 HAS_RELEASERS", "7/8 HAS_RELEASERS", false),
        // The end.
        ("0/8 HAS_WAITERS", "0/8 CLOSED HAS_WAITERS", true),
        ("8/8 HAS_RELEASERS", "8/8 CLOSED HAS_RELEASERS", true),
        ("0/8 HAS_DEFERRED", "0/8 CLOSED HAS_DEFERRED", true),
        ("0/8", "0/8 CLOSED", false),
        ("0/8 CLOSED HAS_WAITERS", "0/8 CLOSED HAS_WAITERS", false),
    ];
    for (before, after, concerned) in rows {
        assert_eq!(state(before).concerns_waiters(state(after), MAX), concerned, "from {before} to {after}");
    }
}

#[test]
fn settle() {
    let (no_waiter, all) = (Summary::default(), Summary::new(true, true, true, true));
    let releasers = Summary::new(false, false, true, false);
    let rows = [
        // The word is as it was seen.
        ("2/8", "2/8", all, "2/8 HAS_WAITERS NO_BARGING HAS_RELEASERS HAS_DEFERRED"),
        ("2/8 HAS_WAITERS NO_BARGING HAS_RELEASERS HAS_DEFERRED", "", no_waiter, "2/8"),
        ("2/8 CLOSED HAS_WAITERS", "", no_waiter, "2/8 CLOSED"),
        // A loss is forgotten together with the head.
        ("2/8 HAS_WAITERS BYPASSED", "", no_waiter, "2/8"),
        ("2/8 HAS_WAITERS BYPASSED", "", all, "2/8 HAS_WAITERS BYPASSED NO_BARGING HAS_RELEASERS HAS_DEFERRED"),
        ("2/8 HAS_WAITERS RECHECK", "", no_waiter, "Err(2/8 HAS_WAITERS RECHECK)"),
        // A newcomer took tokens since.
        ("1/8 HAS_WAITERS BYPASSED", "2/8 HAS_WAITERS", Summary::new(true, false, false, false), "1/8 HAS_WAITERS BYPASSED"),
        ("7/8 HAS_WAITERS", "8/8 HAS_WAITERS", releasers, "Err(7/8 HAS_WAITERS)"),
        ("2/8 HAS_WAITERS BYPASSED", "2/8 HAS_WAITERS", releasers, "2/8 HAS_RELEASERS"),
        // Tokens came, the capacity changed, or the bucket was closed.
        ("3/8 HAS_WAITERS", "2/8 HAS_WAITERS", no_waiter, "Err(3/8 HAS_WAITERS)"),
        ("1/7 HAS_WAITERS", "2/8 HAS_WAITERS", no_waiter, "Err(1/7 HAS_WAITERS)"),
        ("2/9 HAS_WAITERS", "2/8 HAS_WAITERS", no_waiter, "Err(2/9 HAS_WAITERS)"),
        ("2/8 CLOSED", "2/8", no_waiter, "Err(2/8 CLOSED)"),
    ];
    for (before, seen, summary, after) in rows {
        let seen = if seen.is_empty() { state(before) } else { state(seen) };
        let settled = state(before).settle(seen, summary);
        assert_eq!(settled.text(), after, "from {before}, seen as {seen:?}");
        assert!(settled.is_err() || settled.is_ok_and(|settled| settled.is_summarized_by(summary)));
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

// The ends of every field.

/// The numbers of a word.
fn numbers(state: State) -> (i128, i128) {
    (state.available().into(), state.capacity().into())
}

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

// Random transitions.

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
            Self::JoinInbox(kind, shut) => Some(state.join_inbox(kind, shut)),
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
        Summary::new(has_waiters, has_waiters && self.fifo, self.releasers > 0, deferred > 0 || self.idle || self.settled)
    }

    /// Who may proceed: takers in order of arrival, as long as the tokens suffice for the next satisfiable one; as many releasers as
    /// there is room; watchers whose state is reached; all but watchers if the bucket is closed.
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
        "{} changes concern waiters that wait in vain; {} of them let no waiter proceed",
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
            prop_assert!(settled.is_summarized_by(summary) && numbers(settled) == numbers(next));
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
