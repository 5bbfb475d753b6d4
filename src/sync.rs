//! What differs between a normal build and one under loom, or between `std` and `no_std`. Nothing else in `src` says `cfg(loom)`.

#[cfg(not(loom))]
pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

#[cfg(loom)]
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
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

/// Limits that a model has to reach in a few steps: the value, and the one under loom.
#[cfg(not(loom))]
pub(crate) const fn limit(value: u32, _modelled: u32) -> u32 {
    value
}
#[cfg(loom)]
pub(crate) const fn limit(_value: u32, modelled: u32) -> u32 {
    modelled
}

/// A place for one `T`, put and taken as a whole by anybody at any time.
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

/// Declares a module `$name` that catches what of `$ty` is posted while a closure runs on this thread.
#[cfg(all(feature = "std", not(loom)))]
macro_rules! mailbox {
    ($name:ident, $ty:ty) => {
        mod $name {
            use alloc::vec::Vec;
            use core::cell::Cell;
            use core::mem::ManuallyDrop;

            // Empty but within `collect`. Without drop glue they also serve while their thread is torn down.
            std::thread_local! {
                static LAST: Cell<Option<ManuallyDrop<$ty>>> = const { Cell::new(None) };
                static EARLIER: Cell<ManuallyDrop<Vec<$ty>>> = const { Cell::new(ManuallyDrop::new(Vec::new())) };
            }

            pub(super) fn post(letter: $ty) {
                if let Some(last) = LAST.replace(Some(ManuallyDrop::new(letter))) {
                    let mut earlier = take_earlier();
                    earlier.push(ManuallyDrop::into_inner(last));
                    EARLIER.set(ManuallyDrop::new(earlier));
                }
            }

            /// Where no more than one is posted.
            pub(super) fn collect<R>(f: impl FnOnce() -> R) -> (R, Option<$ty>) {
                (f(), LAST.take().map(ManuallyDrop::into_inner))
            }

            pub(super) fn collect_all<R>(f: impl FnOnce() -> R) -> (R, Vec<$ty>) {
                let (result, last) = collect(f);
                let mut letters = take_earlier();
                letters.extend(last);
                (result, letters)
            }

            fn take_earlier() -> Vec<$ty> {
                ManuallyDrop::into_inner(EARLIER.replace(ManuallyDrop::new(Vec::new())))
            }
        }
    };
}
#[cfg(all(feature = "std", loom))]
macro_rules! mailbox {
    ($name:ident, $ty:ty) => {
        mod $name {
            use alloc::vec::Vec;
            use core::cell::RefCell;

            loom::thread_local! {
                static LETTERS: RefCell<Vec<$ty>> = RefCell::new(Vec::new());
            }

            pub(super) fn post(letter: $ty) {
                LETTERS.with(|letters| letters.borrow_mut().push(letter));
            }

            pub(super) fn collect<R>(f: impl FnOnce() -> R) -> (R, Option<$ty>) {
                let (result, mut letters) = collect_all(f);
                (result, letters.pop())
            }

            pub(super) fn collect_all<R>(f: impl FnOnce() -> R) -> (R, Vec<$ty>) {
                (f(), LETTERS.with(RefCell::take))
            }
        }
    };
}
#[cfg(not(feature = "std"))]
macro_rules! mailbox {
    ($name:ident, $ty:ty) => {
        mod $name {
            use alloc::vec::Vec;
            use core::sync::atomic::{AtomicBool, Ordering};
            use crossbeam_utils::{Backoff, atomic::AtomicCell};

            // There are no thread-locals: one box for all, and one collector at a time.
            static COLLECTING: AtomicBool = AtomicBool::new(false);
            static LETTERS: AtomicCell<Vec<$ty>> = AtomicCell::new(Vec::new());

            pub(super) fn post(letter: $ty) {
                let mut letters = LETTERS.take();
                letters.push(letter);
                LETTERS.store(letters);
            }

            pub(super) fn collect<R>(f: impl FnOnce() -> R) -> (R, Option<$ty>) {
                let (result, mut letters) = collect_all(f);
                (result, letters.pop())
            }

            pub(super) fn collect_all<R>(f: impl FnOnce() -> R) -> (R, Vec<$ty>) {
                let backoff = Backoff::new();
                while COLLECTING.swap(true, Ordering::Acquire) {
                    backoff.spin();
                }
                let result = (f(), LETTERS.take());
                COLLECTING.store(false, Ordering::Release);
                result
            }
        }
    };
}
pub(crate) use mailbox;

#[cfg(all(feature = "std", not(loom)))]
pub(crate) mod thread {
    pub(crate) use std::thread::{Thread, current};
    use std::time::Instant;

    /// Parks this thread, at the longest until `deadline`.
    pub(crate) fn park(deadline: Option<Instant>) {
        match deadline {
            None => std::thread::park(),
            Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
        }
    }
}

#[cfg(all(feature = "std", loom))]
pub(crate) mod thread {
    use alloc::sync::Arc;
    use loom::sync::Notify;
    use std::time::Instant;

    // Not loom's `unpark`, which also lets a thread go on that is blocked by something else, such as a lock or a join.
    loom::thread_local! {
        static PARKER: Arc<Notify> = Arc::new(Notify::new());
    }

    pub(crate) struct Thread(Arc<Notify>);

    impl Thread {
        pub(crate) fn unpark(&self) {
            self.0.notify();
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(PARKER.with(Arc::clone))
    }

    /// Parks this thread; loom knows no time.
    pub(crate) fn park(deadline: Option<Instant>) {
        assert!(deadline.is_none(), "a wait with a deadline cannot be modelled");
        current().0.wait();
    }
}
