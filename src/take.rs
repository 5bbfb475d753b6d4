//! Waiting for tokens.

use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use futures_core::future::FusedFuture;

use crate::line::Place;
use crate::state::{Action, Refused};
use crate::{OwnedToken, TakeError, Token, TokenBucket};

/// A request for tokens: what [`Take`] and [`TakeOwned`] have in common.
struct Request {
    count: usize,
    stage: Stage,
}

enum Stage {
    /// Not polled yet.
    Fresh,
    /// In the line.
    Queued(Place),
    Done,
}

impl Request {
    const fn new(count: usize) -> Self {
        Self { count, stage: Stage::Fresh }
    }

    /// If this is new, takes what is there. Errors and waiting are left to [`poll`](Self::poll).
    #[inline]
    fn take_now(&mut self, bucket: &TokenBucket) -> bool {
        let Stage::Fresh = self.stage else { return false };
        // Before the attempt, where the compiler still knows that there is nothing to be dropped.
        self.stage = Stage::Done;
        let taken = bucket.acquire_plainly(self.count);
        if !taken {
            self.stage = Stage::Fresh;
        }
        taken
    }

    /// If this is new, takes without waiting, or fails for good.
    fn try_now(&mut self, bucket: &TokenBucket) -> Option<Result<(), TakeError>> {
        let Stage::Fresh = self.stage else { return None };
        match bucket.acquire(self.count) {
            Err(Refused::NotNow) => None,
            taken => Some(self.finish(bucket, taken)),
        }
    }

    #[cold]
    #[track_caller]
    fn poll(&mut self, bucket: &TokenBucket, cx: &mut Context<'_>) -> Poll<Result<(), TakeError>> {
        let line = bucket.line();
        let registered = match self.stage {
            Stage::Queued(_) => false,
            Stage::Fresh => {
                if let Some(result) = self.try_now(bucket) {
                    return Poll::Ready(result);
                }
                match line.enqueue(bucket.fitting(self.count), cx.waker()) {
                    Ok((place, action)) => {
                        self.stage = Stage::Queued(place);
                        if action == Action::Nothing {
                            return Poll::Pending;
                        }
                        line.act(action);
                        true
                    }
                    Err(refused) => return Poll::Ready(self.finish(bucket, Err(refused))),
                }
            }
            Stage::Done => panic!("`Take` polled after it completed"),
        };
        // The place stays where a panic of user code finds it.
        let Stage::Queued(place) = &self.stage else { unreachable!("it has a place now") };
        match line.poll(place, cx.waker(), registered) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(self.finish(bucket, result)),
        }
    }

    fn finish(&mut self, bucket: &TokenBucket, result: Result<(), Refused>) -> Result<(), TakeError> {
        let stage = mem::replace(&mut self.stage, Stage::Done);
        match (stage, result) {
            (Stage::Queued(place), Ok(())) => place.leave_served(),
            (Stage::Queued(place), Err(_)) => bucket.line().cancel(place),
            _ => {}
        }
        result.map_err(|refused| match refused {
            Refused::ExceedsMax => TakeError::ExceedsMax { requested: self.count, max_capacity: bucket.max_capacity() },
            Refused::NotNow | Refused::Closed => bucket.closed().into(),
        })
    }

    #[inline]
    fn is_queued(&self) -> bool {
        matches!(self.stage, Stage::Queued(_))
    }

    #[cold]
    fn cancel(&mut self, bucket: &TokenBucket) {
        if let Stage::Queued(place) = mem::replace(&mut self.stage, Stage::Done) {
            bucket.line().cancel(place);
        }
    }

    fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Fresh => "new",
            Stage::Queued(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct(name).field("count", &self.count).field("stage", &format_args!("{stage}")).finish_non_exhaustive()
    }
}

macro_rules! take {
    (
        $(#[$attr:meta])* $take:ident [$($lifetime:lifetime)?], $owner:ty => $token:ty,
        |$borrow:ident| $borrowed:expr, |$finish:ident| $finished:expr
    ) => {
        $(#[$attr])*
        ///
        /// # Fairness
        ///
        /// The request takes its place in the line when it is first polled (or first blocks), see [`Fairness`](crate::Fairness).
        /// It holds tokens from the moment they are granted, also if it is not polled then: a future that is kept but
        /// not polled any more keeps them from others. Drop it instead.
        ///
        /// # Errors
        ///
        /// Ready with [`TakeError::Closed`] when the bucket is closed, and with [`TakeError::ExceedsMax`] at once if more
        /// than [`max_capacity`](TokenBucket::max_capacity) tokens are asked for.
        ///
        /// # Panics
        ///
        /// When it is polled again after it was ready.
        ///
        /// # Cancel safety
        ///
        /// Dropping it gives up its place in the line and nothing else, at any moment: tokens that it has just been
        /// granted go to the next in line, who is woken if need be.
        #[must_use = "futures do nothing unless polled, awaited or waited for"]
        pub struct $take$(<$lifetime>)? {
            bucket: $owner,
            request: Request,
        }

        impl$(<$lifetime>)? $take$(<$lifetime>)? {
            #[inline]
            pub(crate) fn new(bucket: $owner, count: usize) -> Self {
                Self { bucket, request: Request::new(count) }
            }
        }

        impl$(<$lifetime>)? Future for $take$(<$lifetime>)? {
            type Output = Result<$token, TakeError>;

            #[inline]
            #[track_caller]
            fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                let $borrow = self.get_mut();
                if !$borrow.request.take_now($borrowed) {
                    match $borrow.request.poll($borrowed, cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                let $finish = $borrow;
                Poll::Ready(Ok($finished))
            }
        }

        impl$(<$lifetime>)? FusedFuture for $take$(<$lifetime>)? {
            fn is_terminated(&self) -> bool {
                matches!(self.request.stage, Stage::Done)
            }
        }

        #[cfg(feature = "std")]
        crate::block::waits! {
            $take[$($lifetime)?], $token, TakeError,
            |take| {
                let $borrow = &mut *take;
                $borrow.request.try_now($borrowed).map(|result| {
                    let $finish = $borrow;
                    result.map(|()| $finished)
                })
            }
        }

        impl$(<$lifetime>)? Drop for $take$(<$lifetime>)? {
            #[inline]
            fn drop(&mut self) {
                if self.request.is_queued() {
                    let $borrow = self;
                    $borrow.request.cancel($borrowed);
                }
            }
        }

        impl$(<$lifetime>)? fmt::Debug for $take$(<$lifetime>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.request.fmt(stringify!($take), f)
            }
        }
    };
}

take! {
    /// A future of tokens, made by [`TokenBucket::take`] and [`TokenBucket::take_many`].
    ///
    /// Await it, or block a thread with [`wait`](Self::wait).
    Take['a], &'a TokenBucket => Token<'a>,
    |take| take.bucket, |take| Token::new(take.bucket, take.request.count)
}

take! {
    /// A future of tokens that owns its bucket, made by [`TokenBucket::take_owned`] and [`TokenBucket::take_many_owned`].
    ///
    /// As [`Take`], but for tasks that outlive the borrow of a bucket.
    TakeOwned[], Option<Arc<TokenBucket>> => OwnedToken,
    |take| take.bucket.as_deref().expect(OWNED), |take| OwnedToken::new(take.bucket.take().expect(OWNED), take.request.count)
}

const OWNED: &str = "`TakeOwned` polled after it completed";
