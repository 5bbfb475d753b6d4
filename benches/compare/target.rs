//! What the ratios are meant to be.

use crate::rivals::Order;

/// A limit for the ratio of a bucket's time to that of the best of some rivals.
pub(crate) struct Target {
    /// Of the bucket of this order, or of both.
    order: Option<Order>,
    pub(crate) limit: f64,
    pub(crate) against: &'static [&'static str],
}

pub(crate) const FLOOR: &[&str] = &["floor"];
pub(crate) const TOKIO: &[&str] = &["tokio"];
pub(crate) const ASYNC_LOCK: &[&str] = &["async-lock"];
pub(crate) const TOKIO_AND_MEA: &[&str] = &["tokio", "mea"];
pub(crate) const USUAL: &[&str] = &["tokio", "async-lock", "mea"];
pub(crate) const ALL: &[&str] = &["tokio", "async-lock", "mea", "futures-intrusive-fair", "futures-intrusive-unfair"];

impl Target {
    pub(crate) const fn both(limit: f64, against: &'static [&'static str]) -> Self {
        Self { order: None, limit, against }
    }

    pub(crate) const fn fifo(limit: f64, against: &'static [&'static str]) -> Self {
        Self { order: Some(Order::Fifo), limit, against }
    }

    pub(crate) const fn barging(limit: f64, against: &'static [&'static str]) -> Self {
        Self { order: Some(Order::Barging), limit, against }
    }

    pub(crate) fn is_for(&self, order: Order) -> bool {
        self.order.is_none_or(|wanted| wanted == order)
    }
}
