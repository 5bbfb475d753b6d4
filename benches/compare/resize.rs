//! Callers that take and return tokens while the bucket is resized.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use criterion::Bencher;
use crossbeam_utils::CachePadded;

use crate::rivals::Resize;
use crate::runner::{Group, Runner, against};
use crate::threads::at_once;

const TAKERS: usize = 2;
const SIZES: [usize; 2] = [32, 64];
/// Time between two resizes.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn run(runner: &mut Runner) {
    let name = (Group::Waiting, "2 threads, uncontended, resized");
    runner.compare(name, TAKERS as u64, vec![], against!(baseline, resizing: takers()));
}

/// Resizes to one of two sizes alternately until the work is done, and then back to the first.
pub(crate) fn meanwhile<R: Resize, T>(rival: &R, sizes: [usize; 2], work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut now = sizes[0];
            for to in sizes.iter().rev().cycle() {
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                now = rival.resize(now, *to);
            }
            while now != sizes[0] {
                now = rival.resize(now, sizes[0]);
            }
        });
        let result = work();
        drop(stop);
        result
    })
}

/// Each thread takes and returns a token, repeatedly.
fn takers<R: Resize>(b: &mut Bencher<'_>) {
    let rival = CachePadded::new(R::new(SIZES[0]));
    b.iter_custom(|iterations| {
        meanwhile(&*rival, SIZES, || {
            at_once(TAKERS, || {
                for _ in 0..iterations {
                    drop(rival.try_take().expect("plenty"));
                }
            })
        })
    });
}
