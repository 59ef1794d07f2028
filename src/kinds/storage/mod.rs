//! storage: where volumes come from.

pub(crate) mod storage_class;
