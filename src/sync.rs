//! Everything that differs under loom or without `std`. No other file in `src` says `cfg(loom)`, nor `cfg(token_bucket_chaos)`: a
//! build that delays threads at random at every atomic access, so that tests with real threads reach rare interleavings
//! (`.ci/chaos`).

#[cfg(not(any(loom, token_bucket_chaos)))]
pub(crate) mod atomic {
    #[cfg(not(feature = "portable-atomic"))]
    pub(crate) use core::sync::atomic::AtomicU64;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
    #[cfg(feature = "portable-atomic")]
    pub(crate) use portable_atomic::AtomicU64;
}

#[cfg(token_bucket_chaos)]
pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($atomic:ident($value:ty),)*) => {$(
            pub(crate) struct $atomic(core::sync::atomic::$atomic);

            impl $atomic {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(core::sync::atomic::$atomic::new(value))
                }
            }

            /// Every access passes through here.
            impl core::ops::Deref for $atomic {
                type Target = core::sync::atomic::$atomic;

                fn deref(&self) -> &Self::Target {
                    super::chaos::maybe_yield();
                    &self.0
                }
            }
        )*};
    }
    atomics! { AtomicBool(bool), AtomicU32(u32), AtomicU64(u64), AtomicUsize(usize), }
}

/// Random delays. (It needs `std`.)
#[cfg(token_bucket_chaos)]
mod chaos {
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU64, Ordering};
    use core::time::Duration;
    use std::sync::OnceLock;
    use std::time::SystemTime;

    std::thread_local! {
        /// The thread's random number, and the exponent of its pace: it is delayed once in 2ⁿ accesses.
        static THREAD: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    static THREADS: AtomicU64 = AtomicU64::new(0);
    static SEED: OnceLock<u64> = OnceLock::new();

    /// From the environment, or from the clock.
    fn seed() -> u64 {
        let seed = match std::env::var("TOKEN_BUCKET_CHAOS") {
            Ok(seed) => seed.parse().expect("TOKEN_BUCKET_CHAOS is a number"),
            Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| u64::from(now.subsec_nanos())),
        };
        std::eprintln!("TOKEN_BUCKET_CHAOS={seed}");
        seed
    }

    /// Every thread has its own numbers, and its own pace.
    fn begin() -> (u64, u32) {
        let thread = THREADS.fetch_add(1, Ordering::Relaxed) + 1;
        let random = (SEED.get_or_init(seed) << 20 ^ thread).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (random, 3 + (random >> 60) as u32 % 6)
    }

    /// Mostly does nothing; otherwise spins, yields or sleeps.
    pub(super) fn maybe_yield() {
        let (mut random, seldom) = match THREAD.get() {
            (0, _) => begin(),
            thread => thread,
        };
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        THREAD.set((random, seldom));
        if (random >> 40) & ((1 << seldom) - 1) != 0 {
            return;
        }
        match (random >> 32) % 16 {
            0 => std::thread::sleep(Duration::from_micros(random >> 20 & 63)),
            1..=6 => std::thread::yield_now(),
            _ => (0..random >> 20 & 255).for_each(|_| core::hint::spin_loop()),
        }
    }

    /// Returns true once in a while.
    pub(super) fn now_and_then() -> bool {
        maybe_yield();
        (THREAD.get().0 >> 50) % 8 == 0
    }
}

#[cfg(loom)]
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

/// Declares a function that is `const`, except under loom, whose types have no const constructors.
#[cfg(not(loom))]
macro_rules! const_fn {
    ($(#[$attr:meta])* $vis:vis const fn $($rest:tt)*) => { $(#[$attr])* $vis const fn $($rest)* };
}
#[cfg(loom)]
macro_rules! const_fn {
    ($(#[$attr:meta])* $vis:vis const fn $($rest:tt)*) => { $(#[$attr])* $vis fn $($rest)* };
}
pub(crate) use const_fn;

/// Returns a limit; under loom a small one, so that models reach it in a few steps.
#[cfg(not(loom))]
pub(crate) const fn loom_or(_modelled: u32, value: u32) -> u32 {
    value
}
#[cfg(loom)]
pub(crate) const fn loom_or(modelled: u32, _value: u32) -> u32 {
    modelled
}

/// A load; a read-modify-write under loom, which does not branch at a load that is followed by another access to the same atomic.
#[cfg(not(loom))]
#[inline]
pub(crate) fn load_exact(word: &atomic::AtomicU64) -> u64 {
    word.load(atomic::Ordering::Acquire)
}
#[cfg(loom)]
pub(crate) fn load_exact(word: &atomic::AtomicU64) -> u64 {
    word.fetch_or(0, atomic::Ordering::AcqRel)
}

#[cfg(not(loom))]
pub(crate) use crossbeam_utils::Backoff;

/// No retries: a model explores the schedules in which another try succeeds anyway.
#[cfg(loom)]
pub(crate) struct Backoff;

#[cfg(loom)]
impl Backoff {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn is_completed(&self) -> bool {
        true
    }

    pub(crate) fn snooze(&self) {}
}

/// A slot for one `T`, which any thread can put in or take out at any time.
#[cfg(not(loom))]
pub(crate) struct Slot<T>(crossbeam_utils::atomic::AtomicCell<Option<T>>);
#[cfg(loom)]
pub(crate) struct Slot<T>(loom::sync::Mutex<Option<T>>);

impl<T> Slot<T> {
    const_fn! {
        pub(crate) const fn new(value: Option<T>) -> Self {
            #[cfg(not(loom))]
            return Self(crossbeam_utils::atomic::AtomicCell::new(value));
            #[cfg(loom)]
            return Self(loom::sync::Mutex::new(value));
        }
    }

    #[cfg(not(loom))]
    pub(crate) fn swap(&self, value: Option<T>) -> Option<T> {
        #[cfg(token_bucket_chaos)]
        chaos::maybe_yield();
        self.0.swap(value)
    }
    #[cfg(loom)]
    pub(crate) fn swap(&self, value: Option<T>) -> Option<T> {
        core::mem::replace(&mut *self.0.lock().unwrap(), value)
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.swap(None)
    }
}

/// Captures the waiters that are pushed while a closure runs on this thread.
#[cfg(all(feature = "std", not(loom)))]
pub(crate) mod bridge {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::cell::Cell;
    use core::mem::ManuallyDrop;

    use crate::waiter::Waiter;

    // Empty except within `capture`. Without drop glue, it can be used while the thread is torn down.
    std::thread_local! {
        static CAPTURED: Cell<ManuallyDrop<Vec<Arc<Waiter>>>> = const { Cell::new(ManuallyDrop::new(Vec::new())) };
    }

    fn replace(captured: Vec<Arc<Waiter>>) -> Vec<Arc<Waiter>> {
        ManuallyDrop::into_inner(CAPTURED.replace(ManuallyDrop::new(captured)))
    }

    pub(crate) fn push(waiter: Arc<Waiter>) {
        let mut captured = replace(Vec::new());
        captured.push(waiter);
        replace(captured);
    }

    pub(crate) fn capture<R>(room: Vec<Arc<Waiter>>, f: impl FnOnce() -> R) -> (R, Vec<Arc<Waiter>>) {
        replace(room);
        (f(), replace(Vec::new()))
    }
}

#[cfg(all(feature = "std", loom))]
pub(crate) mod bridge {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    use crate::waiter::Waiter;

    loom::thread_local! {
        static CAPTURED: RefCell<Vec<Arc<Waiter>>> = RefCell::new(Vec::new());
    }

    pub(crate) fn push(waiter: Arc<Waiter>) {
        CAPTURED.with(|captured| captured.borrow_mut().push(waiter));
    }

    pub(crate) fn capture<R>(_room: Vec<Arc<Waiter>>, f: impl FnOnce() -> R) -> (R, Vec<Arc<Waiter>>) {
        (f(), CAPTURED.with(RefCell::take))
    }
}

#[cfg(not(feature = "std"))]
pub(crate) mod bridge {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, Ordering};

    use crossbeam_utils::{Backoff, atomic::AtomicCell};

    use crate::waiter::Waiter;

    // There are no thread-locals: one vector for all, and one thread at a time.
    static CAPTURING: AtomicBool = AtomicBool::new(false);
    static CAPTURED: AtomicCell<Vec<Arc<Waiter>>> = AtomicCell::new(Vec::new());

    pub(crate) fn push(waiter: Arc<Waiter>) {
        let mut captured = CAPTURED.take();
        captured.push(waiter);
        CAPTURED.store(captured);
    }

    pub(crate) fn capture<R>(room: Vec<Arc<Waiter>>, f: impl FnOnce() -> R) -> (R, Vec<Arc<Waiter>>) {
        let backoff = Backoff::new();
        while CAPTURING.swap(true, Ordering::Acquire) {
            backoff.spin();
        }
        CAPTURED.store(room);
        let captured = (f(), CAPTURED.take());
        CAPTURING.store(false, Ordering::Release);
        captured
    }
}

#[cfg(all(feature = "std", not(loom)))]
mod parker {
    use std::thread::{self, Thread};
    use std::time::Instant;

    use super::Slot;

    /// Parks the thread that made it.
    pub(crate) struct Parker {
        thread: Thread,
        /// An unpark alone could be used up: a poll may run the waker of another waiter, which may park.
        woken: Slot<()>,
    }

    impl Parker {
        pub(crate) fn new() -> Self {
            Self { thread: thread::current(), woken: Slot::new(None) }
        }

        pub(crate) fn unpark(&self) {
            self.woken.swap(Some(()));
            self.thread.unpark();
        }

        /// Blocks until the thread has been unparked since the last call, until `deadline` at the latest. May return early.
        pub(crate) fn park(&self, deadline: Option<Instant>) {
            #[cfg(token_bucket_chaos)]
            if super::chaos::now_and_then() {
                return;
            }
            if self.woken.take().is_none() {
                match deadline {
                    None => thread::park(),
                    Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
                }
                self.woken.take();
            }
        }
    }
}

#[cfg(all(feature = "std", loom))]
mod parker {
    use loom::sync::Notify;
    use std::time::Instant;

    /// Not loom's `unpark`, which also resumes a thread that is blocked by something else, such as a lock or a join.
    pub(crate) struct Parker(Notify);

    impl Parker {
        pub(crate) fn new() -> Self {
            Self(Notify::new())
        }

        pub(crate) fn unpark(&self) {
            self.0.notify();
        }

        /// Loom has no clock.
        pub(crate) fn park(&self, deadline: Option<Instant>) {
            assert!(deadline.is_none(), "a wait with a deadline cannot be modelled");
            self.0.wait();
        }
    }
}
#[cfg(feature = "std")]
pub(crate) use parker::Parker;

/// The part of a future in tokio's cooperative budget.
#[cfg(feature = "tokio")]
pub(crate) mod coop {
    use core::task::{Context, Poll};

    use tokio::task::coop;

    /// A blocked thread has no budget, and no runtime that would wake it when the budget is renewed.
    #[cfg(feature = "std")]
    pub(crate) use tokio::task::coop::unconstrained;

    /// A unit of the budget, which is returned unless it is spent.
    pub(crate) struct Budget(coop::RestoreOnPending);

    #[inline]
    pub(crate) fn poll_proceed(cx: &mut Context<'_>) -> Poll<Budget> {
        coop::poll_proceed(cx).map(Budget)
    }

    impl Budget {
        /// The future has made progress.
        #[inline]
        pub(crate) fn spend(self) {
            self.0.made_progress();
        }

        #[inline]
        pub(crate) fn spend_if_ready<T>(self, polled: Poll<T>) -> Poll<T> {
            if polled.is_ready() {
                self.spend();
            }
            polled
        }
    }
}
#[cfg(not(feature = "tokio"))]
pub(crate) mod coop {
    use core::task::{Context, Poll};

    pub(crate) struct Budget;

    #[cfg(feature = "std")]
    pub(crate) fn unconstrained<F>(future: F) -> F {
        future
    }

    #[inline]
    pub(crate) fn poll_proceed(_: &mut Context<'_>) -> Poll<Budget> {
        Poll::Ready(Budget)
    }

    impl Budget {
        #[inline]
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn spend(self) {}

        #[inline]
        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(crate) fn spend_if_ready<T>(self, polled: Poll<T>) -> Poll<T> {
            polled
        }
    }
}
