pub(crate) fn resizes(_: token_bucket::Fairness, _: usize) {}
pub(crate) fn deposits(_: token_bucket::Fairness, _: usize) {}
pub(crate) fn everything(_: token_bucket::Fairness, _: usize) {}
