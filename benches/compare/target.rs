//! Performance targets: limits of the ratios.

use crate::rivals::Order;

/// A limit for the ratio of a bucket's time to that of the fastest of some candidates.
pub(crate) struct Target {
    /// For the bucket with this order, or for both.
    order: Option<Order>,
    pub(crate) limit: f64,
    pub(crate) against: &'static [&'static str],
}

pub(crate) const BASELINE: &[&str] = &["baseline"];
pub(crate) const TOKIO: &[&str] = &["tokio"];
pub(crate) const ASYNC_LOCK: &[&str] = &["async-lock"];
pub(crate) const MEA: &[&str] = &["mea"];
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
