//! The named queries on parts. Each adds up over the columns in memory first, under the lock that
//! appends wait for, then over the rest, which cannot change; so nothing is seen twice or missed
//! while rows move from memory into a segment.

mod meters;
mod profile;
mod statistics;
mod transactions;

pub(crate) use meters::{hitmap, live, meters, services};
pub(crate) use profile::{trace, transaction};
pub(crate) use statistics::{lost, statistics};
pub(crate) use transactions::{count, transactions};

use crate::part::{Part, PartError};
use std::ops::Range;
use std::sync::Arc;

/// The parts of one moment.
pub(crate) trait View {
    /// Shows `first` the columns in memory, under their lock, then gives the rest, newest first,
    /// as far as it overlaps `times`.
    fn parts(
        &self,
        times: Range<i64>,
        first: &mut dyn FnMut(&dyn Part) -> Result<(), PartError>,
    ) -> Result<Vec<Arc<dyn Part>>, PartError>;

    /// A part has a damaged file: set it aside, so that the rest can be served.
    fn damaged(&self, part: &dyn Part, file: &'static str);

    fn apdex_us(&self) -> u64;
}

/// Shows every part to `each`. A damaged one is left out.
pub(crate) fn each_part(
    view: &dyn View,
    times: Range<i64>,
    each: &mut dyn FnMut(&dyn Part) -> Result<(), PartError>,
) -> Result<(), PartError> {
    let rest = view.parts(times, each)?;
    for part in rest {
        skip_damaged(view, &*part, each(&*part))?;
    }
    Ok(())
}

pub(crate) fn skip_damaged<T>(
    view: &dyn View,
    part: &dyn Part,
    result: Result<T, PartError>,
) -> Result<Option<T>, PartError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(PartError::Damaged(file)) => {
            view.damaged(part, file);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl From<PartError> for crate::engine::QueryError {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Io(error) => Self::Io(error),
            PartError::Damaged(file) => Self::Storage(format!("`{file}` is damaged")),
        }
    }
}

pub(crate) fn mean(sum: u64, count: u64) -> u64 {
    sum.checked_div(count).unwrap_or(0)
}
