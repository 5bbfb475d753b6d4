//! Each transition as a table of rows `before → after`, the refusing ones too.

use super::*;

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
        "2/8 HAS_WAITERS" => "0/8 HAS_WAITERS: 2 taken",
        "2/8 HAS_WAITERS BYPASSED" => "0/8 HAS_WAITERS BYPASSED: 2 taken",
        // Others may claim what is more than two.
        "5/8 HAS_WAITERS" => "1/8 HAS_WAITERS BYPASSED: 4 taken",
        "3/8 HAS_WAITERS" => "0/8 HAS_WAITERS BYPASSED: 3 taken",
        "1/8 HAS_WAITERS" => "NotNow",
        "5/8 HAS_WAITERS NO_BARGING" => "NotNow",
        "5/8 HAS_WAITERS CLOSED" => "Closed",
    }

    retry_fast_2_to_4: |state: State| state.retry_fast(2, 4) => {
        "5/8 HAS_WAITERS BYPASSED" => "1/8 HAS_WAITERS BYPASSED: 4 taken",
        "5/8 HAS_WAITERS" => "1/8 HAS_WAITERS BYPASSED: 4 taken",
        "2/8 HAS_WAITERS HAS_DEFERRED RECHECK" => "0/8 HAS_WAITERS HAS_DEFERRED RECHECK: 2 taken",
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

    join_inbox_to_take: |state: State| state.request_recheck_of(Summary::of(Kind::Take, false)) => {
        "0/8" => "0/8 HAS_WAITERS RECHECK",
        "0/8 CLOSED HAS_DEFERRED" => "0/8 CLOSED HAS_WAITERS HAS_DEFERRED RECHECK",
    }

    join_inbox_to_take_where_newcomers_must_queue: |state: State| state.request_recheck_of(Summary::of(Kind::Take, true)) => {
        "0/8" => "0/8 HAS_WAITERS NO_BARGING RECHECK",
    }

    join_inbox_to_release: |state: State| state.request_recheck_of(Summary::of(Kind::Release, true)) => {
        "8/8" => "8/8 HAS_RELEASERS RECHECK",
    }

    join_inbox_until_idle: |state: State| state.request_recheck_of(Summary::of(Kind::Idle, true)) => {
        "1/8" => "1/8 HAS_DEFERRED RECHECK",
    }

    join_inbox_until_settled: |state: State| state.request_recheck_of(Summary::of(Kind::Settled, true)) => {
        "-1/8" => "-1/8 HAS_DEFERRED RECHECK",
    }

    request_recheck: |state: State| state.request_recheck() => {
        "1/8 HAS_WAITERS" => "1/8 HAS_WAITERS RECHECK",
        "1/8 RECHECK" => "1/8 RECHECK",
    }

    request_recheck_of: |state: State| state.request_recheck_of(Summary::HAS_WAITERS.with(Summary::NO_BARGING, true)) => {
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
        // The head may be deferred for this: its loss is counted before.
        "3/6 HAS_WAITERS BYPASSED" => "2/5 HAS_WAITERS NO_BARGING",
        "0/6 HAS_WAITERS BYPASSED" => "-1/5 HAS_WAITERS NO_BARGING",
        "0/5 HAS_WAITERS BYPASSED" => "0/5 HAS_WAITERS BYPASSED",
        // The loss of a waiter in the inbox is counted later.
        "0/4 HAS_WAITERS BYPASSED RECHECK" => "1/5 HAS_WAITERS BYPASSED NO_BARGING RECHECK",
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

    needs_service: |state: State| state.needs_service() => {
        "1/8" => "false",
        "1/8 HAS_WAITERS" => "true",
        "0/8 HAS_WAITERS NO_BARGING" => "false",
        "-1/8 HAS_DEFERRED" => "true",
        "7/8 HAS_RELEASERS" => "false",
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
    let (no_waiter, all) = (
        Summary::default(),
        Summary::HAS_WAITERS.with(Summary::NO_BARGING, true).with(Summary::HAS_RELEASERS, true).with(Summary::HAS_DEFERRED, true),
    );
    let releasers = Summary::HAS_RELEASERS;
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
        ("1/8 HAS_WAITERS BYPASSED", "2/8 HAS_WAITERS", Summary::HAS_WAITERS, "1/8 HAS_WAITERS BYPASSED"),
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
        assert!(settled.is_err() || settled.is_ok_and(|settled| settled.is_summarised_by(summary)));
    }
}
