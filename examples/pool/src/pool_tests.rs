//! The pool, with resources that are counted while they are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use token_bucket::TakeError;

use crate::pool::Pool;

/// How many resources are open, and how many were ever opened.
#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    opened: AtomicUsize,
    broken: AtomicBool,
}

impl Counts {
    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// A resource, with its number.
struct Resource(Arc<Counts>, usize);

impl Drop for Resource {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn pool(size: usize) -> (Arc<Pool<Resource>>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    let open = move || {
        if shared.broken.load(Ordering::SeqCst) {
            return Err("cannot open".into());
        }
        shared.open.fetch_add(1, Ordering::SeqCst);
        Ok(Resource(Arc::clone(&shared), shared.opened.fetch_add(1, Ordering::SeqCst)))
    };
    (Pool::new(size, open).unwrap(), counts)
}

#[test]
fn an_idle_resource_is_used_again() {
    let (pool, counts) = pool(2);
    for _ in 0..3 {
        let mut resource = pool.get().unwrap();
        assert_eq!(resource.1, 0);
        assert_eq!(std::mem::replace(&mut resource.1, 0), 0);
    }
    assert_eq!((counts.open(), counts.opened()), (1, 1));
}

#[test]
fn a_shrink_closes_surplus_idle_resources_at_once() {
    let (pool, counts) = pool(5);
    let mut used: Vec<_> = (0..5).map(|_| pool.get().unwrap()).collect();
    used.truncate(2);
    assert_eq!(counts.open(), 5);
    pool.resize(3).unwrap();
    assert_eq!(counts.open(), 3, "one idle resource is kept for the available token");
    drop(used);
    assert_eq!((counts.open(), pool.bucket.available()), (3, 3), "none was surplus");
    pool.resize(0).unwrap();
    assert_eq!(counts.open(), 0);
}

#[test]
fn a_shrink_closes_surplus_resources_in_use_as_they_come_back() {
    let (pool, counts) = pool(4);
    let mut used: Vec<_> = (0..4).map(|_| pool.get().unwrap()).collect();
    pool.resize(1).unwrap();
    for left in [3, 2, 1] {
        assert_eq!(counts.open(), left + 1);
        used.pop();
        assert_eq!(counts.open(), left);
    }
    used.pop();
    assert_eq!((counts.open(), pool.bucket.available()), (1, 1), "the last one is kept");
}

#[test]
fn a_shrink_that_is_undone_closes_no_resource_in_use() {
    let (pool, counts) = pool(3);
    let used: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
    pool.resize(1).unwrap();
    pool.resize(3).unwrap();
    drop(used);
    assert_eq!((counts.open(), counts.opened()), (3, 3));
}

#[test]
fn a_growth_serves_waiters() {
    let (pool, counts) = pool(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pool.get().unwrap());
        }
        while pool.bucket.waiting() < 3 {
            thread::yield_now();
        }
        assert_eq!(counts.opened(), 0);
        pool.resize(2).unwrap();
    });
    assert!((1..=2).contains(&counts.open()));
}

/// With the token before the resource, a waiter finds no idle one, and opens another.
#[test]
fn a_waiter_gets_the_resource_that_came_back() {
    let (pool, counts) = pool(1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5000).for_each(|_| drop(pool.get().unwrap())));
        }
    });
    assert_eq!(counts.opened(), 1);
}

#[test]
fn a_resource_that_cannot_be_opened_costs_no_token() {
    let (pool, counts) = pool(1);
    counts.broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(pool.get().err().unwrap().to_string(), "cannot open");
    }
    counts.broken.store(false, Ordering::SeqCst);
    assert!(pool.get().is_ok());
}

#[test]
fn a_panic_returns_the_resource() {
    let (pool, counts) = pool(1);
    let shared = Arc::clone(&pool);
    let panicked = thread::spawn(move || {
        let _resource = shared.get().unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(pool.get().unwrap().1, 0);
    assert_eq!(counts.opened(), 1);
}

#[test]
fn a_closed_pool_fails() {
    let (pool, counts) = pool(1);
    let used = pool.get().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.get().err().unwrap());
        while pool.bucket.waiting() == 0 {
            thread::yield_now();
        }
        pool.bucket.close();
        let error = waiter.join().unwrap();
        assert!(matches!(error.downcast_ref(), Some(TakeError::Closed(_))), "{error}");
    });
    drop((used, pool));
    assert_eq!(counts.open(), 0);
}

#[test]
fn sizes_out_of_range_are_errors() {
    assert!(Pool::<()>::new(usize::MAX, || Ok(())).is_err());
    let (pool, counts) = pool(1);
    drop(pool.get().unwrap());
    assert!(pool.resize(usize::MAX).is_err());
    assert_eq!((counts.open(), pool.bucket.capacity()), (1, 1));
}

/// Under resizes, there are never more idle resources than available tokens once all is quiet.
#[test]
fn resizes_under_load_leave_no_surplus() {
    let (pool, counts) = pool(4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let resource = pool.get().unwrap();
                    thread::yield_now();
                    drop(resource);
                }
            });
        }
        for size in [4, 1, 3, 0, 2, 5].into_iter().cycle().take(600) {
            pool.resize(size).unwrap();
            thread::sleep(Duration::from_micros(100));
            assert!(counts.open() <= 5 + 6, "those in use, and at most one more for each thread");
        }
        pool.resize(2).unwrap();
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(pool.bucket.available(), 2);
    assert!(counts.open() <= 2, "{} are open", counts.open());
}
