//! One bucket shared by tasks of several runtimes and by plain threads.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use futures::executor::{LocalPool, ThreadPool};
use futures::task::{LocalSpawnExt, SpawnExt};
use futures_lite::future::{self, yield_now};
use support::{both, bucket, in_time, numbers, poll_with, waiting};
use token_bucket::{Fairness, OwnedToken, TakeError, TokenBucket, WaitError};
use tokio::task::JoinSet;
use tokio::time::timeout;

both! {
    all_runtimes_share_a_bucket_that_is_resized,
    tasks_and_threads_wait_in_one_queue,
    a_tokio_timeout_gives_up_the_place,
    a_tokio_timeout_that_does_not_elapse_has_no_effect,
    select_of_tokio_is_a_deadline,
    select_of_futures_resumes_a_take,
    or_of_futures_lite_is_a_deadline,
    owned_tokens_go_from_task_to_task,
    an_aborted_task_leaves_the_queue,
    an_aborted_task_returns_its_tokens,
    a_runtime_that_shuts_down_drops_its_waiters,
    a_thread_of_a_runtime_may_block,
    a_borrowed_take_works_within_a_scope,
    many_tasks_on_one_thread_take_turns,
}

/// Counts the held tokens. Never more than are outstanding: it counts after the take and before the return.
#[derive(Default)]
struct Meter {
    held: AtomicUsize,
    peak: AtomicUsize,
    turns: AtomicUsize,
}

impl Meter {
    fn enter(&self, n: usize) {
        let held = self.held.fetch_add(n, Ordering::SeqCst) + n;
        self.peak.fetch_max(held, Ordering::SeqCst);
    }

    fn leave(&self, n: usize) {
        self.held.fetch_sub(n, Ordering::SeqCst);
        self.turns.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Work {
    bucket: Arc<TokenBucket>,
    meter: Arc<Meter>,
    /// Lets all start at once, so that they compete.
    ready: Arc<AtomicBool>,
}

/// Always elapses: nothing happens that would end the wait sooner.
const SHORT: Duration = Duration::from_millis(3);
/// Elapses in no test.
const LONG: Duration = Duration::from_secs(600);

/// How often each task or thread takes.
const TURNS: usize = 200;

impl Work {
    fn new(fairness: Fairness) -> Self {
        Self { bucket: Arc::new(bucket(fairness, 3)), meter: Arc::default(), ready: Arc::default() }
    }

    async fn run(self, n: usize) {
        while !self.ready.load(Ordering::SeqCst) {
            yield_now().await;
        }
        for turn in 0..TURNS {
            if turn % 2 == 0 {
                let token = self.bucket.take_many(n).await.unwrap();
                self.hold(n).await;
                drop(token);
            } else {
                let token = self.bucket.take_many_owned(n).await.unwrap();
                self.hold(n).await;
                drop(token);
            }
        }
    }

    async fn hold(&self, n: usize) {
        self.meter.enter(n);
        yield_now().await;
        self.meter.leave(n);
    }

    fn block(&self, n: usize) {
        while !self.ready.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        for turn in 0..TURNS {
            let token = match turn % 3 {
                0 => self.bucket.take_many_owned(n).wait().unwrap(),
                1 => self.bucket.take_many_owned(n).wait_timeout(LONG).unwrap(),
                _ => loop {
                    match self.bucket.take_many_owned(n).wait_timeout(Duration::from_micros(50)) {
                        Ok(token) => break token,
                        Err(WaitError::TimedOut) => {}
                        Err(error) => panic!("{error}"),
                    }
                },
            };
            self.meter.enter(n);
            thread::yield_now();
            self.meter.leave(n);
            drop(token);
        }
    }

    /// Sets one capacity after another. Once the deficit is paid off, no more tokens may be held than the capacity allows.
    fn resize(&self, done: &AtomicUsize, all: usize) {
        self.ready.store(true, Ordering::SeqCst);
        for capacity in [4, 1, 3, 0, 2, 5, 0, 4].into_iter().cycle() {
            self.bucket.set_capacity(capacity).unwrap();
            while self.bucket.deficit() > 0 {
                thread::yield_now();
            }
            for _ in 0..20 {
                let held = self.meter.held.load(Ordering::SeqCst);
                assert!(held <= capacity, "{held} are held of {capacity}");
                thread::yield_now();
            }
            if done.load(Ordering::SeqCst) == all {
                break;
            }
        }
    }
}

fn tokio_of_one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn tokio_of_two_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn all_runtimes_share_a_bucket_that_is_resized(fairness: Fairness) {
    in_time(move || {
        let work = Work::new(fairness);
        let done = Arc::new(AtomicUsize::new(0));
        let runtimes: [fn(Work); 7] = [
            |work| {
                tokio_of_one_thread().block_on(async {
                    let mut tasks = JoinSet::new();
                    for n in [1, 2, 1] {
                        tasks.spawn(work.clone().run(n));
                    }
                    while let Some(result) = tasks.join_next().await {
                        result.unwrap();
                    }
                });
            },
            |work| {
                tokio_of_two_threads().block_on(async {
                    let tasks: Vec<_> = [1, 3, 1].into_iter().map(|n| tokio::spawn(work.clone().run(n))).collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            },
            |work| {
                let tasks: Vec<_> = [1, 2, 1].into_iter().map(|n| smol::spawn(work.clone().run(n))).collect();
                smol::block_on(async {
                    for task in tasks {
                        task.await;
                    }
                });
            },
            |work| {
                let pool = ThreadPool::builder().pool_size(2).create().unwrap();
                let tasks: Vec<_> = [1, 2, 1].into_iter().map(|n| pool.spawn_with_handle(work.clone().run(n)).unwrap()).collect();
                futures::executor::block_on(futures::future::join_all(tasks));
            },
            |work| {
                let mut pool = LocalPool::new();
                let spawner = pool.spawner();
                for n in [1, 2, 1] {
                    spawner.spawn_local(work.clone().run(n)).unwrap();
                }
                pool.run();
            },
            |work| pollster::block_on(work.run(1)),
            |work| {
                thread::scope(|scope| {
                    for n in [1, 2] {
                        let work = &work;
                        scope.spawn(move || work.block(n));
                    }
                });
            },
        ];
        let threads: Vec<_> = runtimes
            .into_iter()
            .map(|run| {
                let (work, done) = (work.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    run(work);
                    done.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        work.resize(&done, threads.len());
        for thread in threads {
            thread.join().unwrap();
        }
        let tasks = 5 * 3 + 1 + 2;
        assert_eq!(work.meter.turns.load(Ordering::SeqCst), tasks * TURNS);
        assert_eq!(work.meter.held.load(Ordering::SeqCst), 0);
        assert!(work.meter.peak.load(Ordering::SeqCst) <= 5, "more were held than the largest capacity");
        assert_eq!(numbers(&work.bucket), [work.bucket.capacity(), 0, 0, 0]);
    });
}

/// A thread, a tokio task, a smol task and a thread; each has its place in the queue before the next one arrives.
fn tasks_and_threads_wait_in_one_queue(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 1));
        let token = bucket.try_take().unwrap();
        let (served, order) = mpsc::channel();
        let (queued, has_place) = mpsc::channel();
        let runtime = tokio_of_two_threads();
        // A waiter that is counted may not have its place yet; a polled one has.
        let enqueue = {
            let bucket = Arc::clone(&bucket);
            move || {
                let mut take = bucket.take_owned();
                assert!(poll_with(&mut take, Waker::noop()).is_pending());
                queued.send(()).unwrap();
                take
            }
        };
        let block = |number| {
            let (enqueue, served) = (enqueue.clone(), served.clone());
            let thread = thread::spawn(move || {
                let token = enqueue().wait().unwrap();
                served.send(number).unwrap();
                drop(token);
            });
            has_place.recv().unwrap();
            thread
        };
        let wait = |number| {
            let (enqueue, served) = (enqueue.clone(), served.clone());
            async move {
                let token = enqueue().await.unwrap();
                served.send(number).unwrap();
                drop(token);
            }
        };
        let first = block(1);
        let second = runtime.spawn(wait(2));
        has_place.recv().unwrap();
        let third = smol::spawn(wait(3));
        has_place.recv().unwrap();
        let fourth = block(4);

        drop(token);
        first.join().unwrap();
        runtime.block_on(second).unwrap();
        smol::block_on(third);
        fourth.join().unwrap();
        drop(served);
        assert_eq!(order.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    });
}

fn a_tokio_timeout_gives_up_the_place(fairness: Fairness) {
    in_time(move || {
        tokio_of_one_thread().block_on(async {
            let bucket = Arc::new(bucket(fairness, 1));
            let token = bucket.try_take().unwrap();
            let mut behind = waiting(bucket.take());
            assert!(timeout(SHORT, bucket.take()).await.is_err());
            assert!(timeout(SHORT, bucket.take_many_owned(3)).await.is_err());
            assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
            drop(token);
            drop(behind.done().unwrap());
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);

            // So do releasers.
            assert_eq!(bucket.refill(usize::MAX), support::MAX - 1);
            assert!(timeout(SHORT, bucket.release()).await.is_err());
            bucket.try_take().unwrap().forget();
            assert_eq!(bucket.available(), support::MAX - 1);
        });
    });
}

fn a_tokio_timeout_that_does_not_elapse_has_no_effect(fairness: Fairness) {
    in_time(move || {
        tokio_of_one_thread().block_on(async {
            let bucket = Arc::new(bucket(fairness, 1));
            let token = bucket.try_take_owned().unwrap();
            let holder = tokio::spawn(async move {
                tokio::time::sleep(SHORT).await;
                drop(token);
            });
            let token = timeout(LONG, bucket.take()).await.unwrap().unwrap();
            assert_eq!(numbers(&bucket), [0, 1, 0, 0]);
            drop(token);
            holder.await.unwrap();
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        });
    });
}

fn select_of_tokio_is_a_deadline(fairness: Fairness) {
    in_time(move || {
        tokio_of_one_thread().block_on(async {
            let bucket = bucket(fairness, 1);
            let token = bucket.try_take().unwrap();
            tokio::select! {
                _ = bucket.take() => panic!("no token is available"),
                () = tokio::time::sleep(SHORT) => {}
            }
            assert_eq!(bucket.waiting(), 0);
            // Polled by reference, it keeps its place.
            let mut take = bucket.take();
            for _ in 0..3 {
                tokio::select! {
                    _ = &mut take => panic!("no token is available"),
                    () = tokio::time::sleep(SHORT) => {}
                }
                assert_eq!(bucket.waiting(), 1);
            }
            drop(token);
            tokio::select! {
                biased;
                token = &mut take => assert_eq!(token.unwrap().count(), 1),
                () = tokio::time::sleep(LONG) => panic!("a token is available"),
            }
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        });
    });
}

fn select_of_futures_resumes_a_take(fairness: Fairness) {
    let bucket = Arc::new(bucket(fairness, 2));
    let mut held = bucket.try_take_many(2).unwrap();
    let (mut borrowed, mut owned) = (bucket.take(), bucket.take_owned());
    let mut given = 0;
    let mut got = Vec::new();
    pollster::block_on(async {
        loop {
            // `select!` skips a take that has completed; it asks `is_terminated`.
            futures::select! {
                token = borrowed => got.push(token.unwrap().count()),
                token = owned => got.push(token.unwrap().count()),
                default => {
                    given += 1;
                    drop(held.split(1));
                }
                complete => break,
            }
        }
    });
    assert_eq!(got, [1, 1]);
    // The first take returned its token, which the second then took.
    assert_eq!(given, 1);
    drop(held);
    assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
}

fn or_of_futures_lite_is_a_deadline(fairness: Fairness) {
    let bucket = bucket(fairness, 1);
    let token = bucket.try_take().unwrap();
    let late = async {
        for _ in 0..3 {
            yield_now().await;
        }
        None
    };
    assert!(future::block_on(future::or(async { Some(bucket.take().await) }, late)).is_none());
    assert_eq!(bucket.waiting(), 0);
    drop(token);
    let token = future::block_on(future::or(async { Some(bucket.take().await) }, async { None }));
    assert_eq!(token.unwrap().unwrap().count(), 1);
    assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
}

/// Taken in a tokio task, counted in a smol task, returned in a thread.
fn owned_tokens_go_from_task_to_task(fairness: Fairness) {
    in_time(move || {
        const TOKENS: usize = 50;
        let bucket = Arc::new(bucket(fairness, 3));
        let (to_smol, from_tokio) = smol::channel::bounded::<OwnedToken>(2);
        let (to_thread, from_smol) = mpsc::channel::<OwnedToken>();
        let thread = thread::spawn(move || from_smol.into_iter().map(|token| token.count()).sum::<usize>());
        let middle = smol::spawn(async move {
            while let Ok(token) = from_tokio.recv().await {
                to_thread.send(token).unwrap();
            }
        });
        let runtime = tokio_of_two_threads();
        let taker = Arc::clone(&bucket);
        let first = runtime.spawn(async move {
            for turn in 0..TOKENS {
                to_smol.send(taker.take_many_owned(1 + turn % 3).await.unwrap()).await.unwrap();
            }
        });
        runtime.block_on(first).unwrap();
        smol::block_on(middle);
        let sum: usize = (0..TOKENS).map(|turn| 1 + turn % 3).sum();
        assert_eq!(thread.join().unwrap(), sum);
        assert_eq!(numbers(&bucket), [3, 0, 0, 0]);
        assert_eq!(Arc::strong_count(&bucket), 1);
    });
}

fn an_aborted_task_leaves_the_queue(fairness: Fairness) {
    in_time(move || {
        for runtime in [tokio_of_one_thread(), tokio_of_two_threads()] {
            let bucket = Arc::new(bucket(fairness, 2));
            runtime.block_on(async {
                let token = bucket.try_take_many(2).unwrap();
                let mut tasks = JoinSet::new();
                let take = |n| {
                    let bucket = Arc::clone(&bucket);
                    async move { bucket.take_many_owned(n).await.map(|token| token.count()) }
                };
                // The first request cannot be served, and more waiters queue than there are tokens.
                let big = tasks.spawn(take(3));
                let head = tasks.spawn(take(2));
                for _ in 0..10 {
                    tasks.spawn(take(1));
                }
                while bucket.waiting() < 12 {
                    tokio::task::yield_now().await;
                }
                head.abort();
                big.abort();
                let mut aborted = 0;
                while aborted < 2 {
                    aborted += usize::from(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
                }
                assert_eq!(numbers(&bucket), [0, 2, 0, 10]);
                // The others proceed.
                drop(token);
                while let Some(result) = tasks.join_next().await {
                    assert_eq!(result.unwrap().unwrap(), 1);
                }
                assert_eq!(numbers(&bucket), [2, 0, 0, 0]);

                let token = bucket.try_take_many(2).unwrap();
                for n in [1, 2, 3, 1] {
                    tasks.spawn(take(n));
                }
                while bucket.waiting() < 4 {
                    tokio::task::yield_now().await;
                }
                // When they are aborted, some already have their tokens, or have been granted them.
                drop(token);
                tasks.shutdown().await;
            });
            assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
        }
    });
}

fn an_aborted_task_returns_its_tokens(fairness: Fairness) {
    in_time(move || {
        tokio_of_one_thread().block_on(async {
            let bucket = Arc::new(bucket(fairness, 1));
            let holder = tokio::spawn({
                let bucket = Arc::clone(&bucket);
                async move {
                    let _token = bucket.take().await.unwrap();
                    std::future::pending::<()>().await;
                }
            });
            while bucket.available() > 0 {
                tokio::task::yield_now().await;
            }
            let waiter = tokio::spawn({
                let bucket = Arc::clone(&bucket);
                async move { bucket.take_owned().await.map(|token| token.count()) }
            });
            while bucket.waiting() < 1 {
                tokio::task::yield_now().await;
            }
            holder.abort();
            assert!(holder.await.unwrap_err().is_cancelled());
            assert_eq!(waiter.await.unwrap().unwrap(), 1);

            // So does a task that panics.
            let panics = tokio::spawn({
                let bucket = Arc::clone(&bucket);
                async move {
                    let _token = bucket.take().await.unwrap();
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
            });
            assert!(panics.await.unwrap_err().is_panic());
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        });
    });
}

fn a_runtime_that_shuts_down_drops_its_waiters(fairness: Fairness) {
    in_time(move || {
        let bucket = Arc::new(bucket(fairness, 1));
        let token = bucket.try_take().unwrap();
        let runtime = tokio_of_two_threads();
        for n in [1, 2, 1] {
            let bucket = Arc::clone(&bucket);
            drop(runtime.spawn(async move { bucket.take_many(n).await.map(|token| token.count()) }));
        }
        while bucket.waiting() < 3 {
            thread::yield_now();
        }
        let mut outside = waiting(bucket.take());
        drop(runtime);
        assert_eq!(numbers(&bucket), [0, 1, 0, 1]);
        drop(token);
        assert_eq!(outside.wakes(), 1);
        drop(outside.done());
        assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
    });
}

fn a_thread_of_a_runtime_may_block(fairness: Fairness) {
    in_time(move || {
        tokio_of_two_threads().block_on(async {
            let bucket = Arc::new(bucket(fairness, 1));
            let token = bucket.take().await.unwrap();
            let blocked = tokio::task::spawn_blocking({
                let bucket = Arc::clone(&bucket);
                move || bucket.take_owned().wait()
            });
            while bucket.waiting() < 1 {
                tokio::task::yield_now().await;
            }
            drop(token);
            drop(blocked.await.unwrap().unwrap());
            let blocked = smol::unblock({
                let bucket = Arc::clone(&bucket);
                move || bucket.take_owned().wait_timeout(LONG)
            });
            drop(blocked.await.unwrap());
            assert_eq!(numbers(&bucket), [1, 0, 0, 0]);
        });
    });
}

fn a_borrowed_take_works_within_a_scope(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 2);
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for n in [1, 2, 1, 2] {
                let (bucket, barrier) = (&bucket, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    pollster::block_on(async {
                        for _ in 0..200 {
                            drop(bucket.take_many(n).await?);
                        }
                        Ok::<_, TakeError>(())
                    })
                });
            }
        });
        assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    });
}

/// A waiting task never blocks the only thread; otherwise the task that holds the token could not run.
fn many_tasks_on_one_thread_take_turns(fairness: Fairness) {
    in_time(move || {
        let bucket = bucket(fairness, 2);
        let meter = Meter::default();
        let tasks = (0..100).map(|task| {
            let n = 1 + task % 2;
            let (bucket, meter) = (&bucket, &meter);
            async move {
                for _ in 0..5 {
                    let token = bucket.take_many(n).await.unwrap();
                    meter.enter(n);
                    yield_now().await;
                    meter.leave(n);
                    drop(token);
                }
            }
        });
        pollster::block_on(futures::future::join_all(tasks));
        assert_eq!(meter.peak.load(Ordering::SeqCst), 2);
        assert_eq!(numbers(&bucket), [2, 0, 0, 0]);
    });
}
