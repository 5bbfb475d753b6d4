//! What token-bucket, event-listener and parking use of loom, made of shuttle's types: the same source then runs under shuttle.

pub use shuttle::{thread, thread_local};

pub mod sync {
    pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

    /// Wakes one thread, now or when it waits.
    #[derive(Debug)]
    pub struct Notify {
        notified: Mutex<bool>,
        changed: Condvar,
    }

    impl Notify {
        #[allow(clippy::new_without_default, reason = "as loom has it")]
        pub fn new() -> Self {
            Self { notified: Mutex::new(false), changed: Condvar::new() }
        }

        pub fn notify(&self) {
            *self.notified.lock().unwrap() = true;
            self.changed.notify_one();
        }

        pub fn wait(&self) {
            let mut notified = self.notified.lock().unwrap();
            while !*notified {
                notified = self.changed.wait(notified).unwrap();
            }
            *notified = false;
        }
    }

    pub mod atomic {
        pub use shuttle::sync::atomic::*;

        /// Shuttle's, with loom's `with_mut`.
        #[derive(Debug)]
        pub struct AtomicPtr<T>(shuttle::sync::atomic::AtomicPtr<T>);

        impl<T> AtomicPtr<T> {
            pub fn new(pointer: *mut T) -> Self {
                Self(shuttle::sync::atomic::AtomicPtr::new(pointer))
            }

            pub fn with_mut<R>(&mut self, f: impl FnOnce(&mut *mut T) -> R) -> R {
                f(self.0.get_mut())
            }
        }

        impl<T> core::ops::Deref for AtomicPtr<T> {
            type Target = shuttle::sync::atomic::AtomicPtr<T>;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    }
}

/// One thread runs at a time, and none is preempted while it holds one of these.
pub mod cell {
    pub use core::cell::Cell;

    #[derive(Debug)]
    pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    pub struct ConstPtr<T>(*const T);

    impl<T> UnsafeCell<T> {
        pub fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        pub fn get(&self) -> ConstPtr<T> {
            ConstPtr(self.0.get())
        }

        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    impl<T> ConstPtr<T> {
        /// # Safety
        ///
        /// The cell must be alive, and its value must not be changed meanwhile.
        pub unsafe fn deref(&self) -> &T {
            unsafe { &*self.0 }
        }
    }
}
