//! Cases for `.ci/instructions`, which counts their instructions with callgrind: unlike times, these are the same on a busy machine.
//!
//! `--cases` lists them; `CASE CANDIDATE ROUNDS` runs one. Each case is a function of its own that is not inlined, and keeps the results of
//! its polls, so that the compiler can omit nothing that a caller would need.
//!
//! * `hand-over`: a future waits, the token is returned, and the future is ready.
//! * `take`: an uncontended take is polled, its result is inspected, and dropped.

#[allow(dead_code, reason = "the comparison uses all of them")]
#[path = "compare/rivals.rs"]
mod rivals;

use std::env;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use event_listener::{Event, Listener as _};
use rivals::{AsyncLock, Barging, Baseline, Fifo, IntrusiveFair, IntrusiveUnfair, Mea, Rival, Tokio};

/// Rounds where nothing is counted, and the case is only tried.
const TRIAL: usize = 3;

struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
    fn wake_by_ref(self: &Arc<Self>) {}
}

#[inline(never)]
fn hand_over<R: Rival>(rounds: usize) {
    let (rival, waker) = (R::new(1), Waker::from(Arc::new(Ignore)));
    let mut cx = Context::from_waker(&waker);
    let mut held = pin!(rival.plain_take()).poll(&mut cx);
    for _ in 0..rounds {
        let mut next = pin!(black_box(&rival).plain_take());
        assert!(held.is_ready() && next.as_mut().poll(&mut cx).is_pending());
        held = Poll::Pending; // returns the token
        assert!(held.is_pending());
        held = black_box(next.as_mut().poll(&mut cx));
    }
    assert!(held.is_ready());
}

/// What `event-listener` takes for a hand-over.
#[inline(never)]
fn hand_over_by_event(rounds: usize) {
    let (event, waker) = (Event::<()>::new(), Waker::from(Arc::new(Ignore)));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..rounds {
        let mut listener = black_box(&event).listen();
        assert!(Pin::new(&mut listener).poll(&mut cx).is_pending());
        event.notify(1);
        assert!(black_box(Pin::new(&mut listener).poll(&mut cx)).is_ready());
        assert!(listener.listens_to(&event));
    }
}

#[inline(never)]
fn take<R: Rival>(rounds: usize) {
    let (rival, waker) = (R::new(8), Waker::from(Arc::new(Ignore)));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..rounds {
        let mut future = pin!(black_box(&rival).plain_take());
        drop(black_box(future.as_mut().poll(&mut cx)));
    }
}

type Case = (&'static str, &'static str, fn(usize));

fn cases() -> Vec<Case> {
    fn of<R: Rival>() -> [Case; 2] {
        [("hand-over", R::NAME, hand_over::<R>), ("take", R::NAME, take::<R>)]
    }
    let rivals = [
        of::<Fifo>(),
        of::<Barging>(),
        of::<Tokio>(),
        of::<AsyncLock>(),
        of::<Mea>(),
        of::<IntrusiveFair>(),
        of::<IntrusiveUnfair>(),
    ];
    let baselines: [Case; 2] = [("hand-over", "event-listener", hand_over_by_event), ("take", Baseline::NAME, take::<Baseline>)];
    let mut cases: Vec<_> = baselines.into_iter().chain(rivals.into_iter().flatten()).collect();
    cases.sort_by_key(|case| case.0);
    cases
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--cases"] => {
            for (case, candidate, _) in cases() {
                println!("{case} {candidate}");
            }
        }
        [case, candidate, rounds] => {
            let run = cases().into_iter().find(|one| one.0 == case && one.1 == candidate);
            let (Some((_, _, run)), Ok(rounds)) = (run, rounds.parse()) else {
                eprintln!("error: no case {case} of {candidate}, or {rounds} is not a number");
                return ExitCode::FAILURE;
            };
            run(rounds);
        }
        _ => {
            for (_, _, run) in cases() {
                run(TRIAL);
            }
            println!("all cases run; `.ci/instructions` counts them");
        }
    }
    ExitCode::SUCCESS
}
