//! Temporary: lets the doors be built before the embedded engine is there. Whoever lands `impl Queries for Engine`
//! deletes this file and its line in lib.rs.
use crate::answers::*;
use crate::engine::*;
impl Queries for Engine {
    fn services(&self, _: &Scope, _: i64) -> Result<Vec<Service>, QueryError> { Ok(vec![]) }
    fn meters(&self, _: &Scope, _: i64) -> Result<Meters, QueryError> { Ok(Meters::default()) }
    fn hitmap(&self, _: &Scope, _: u32, _: Option<u64>) -> Result<Hitmap, QueryError> { Ok(Hitmap::default()) }
    fn transactions(&self, _: &Scope, _: &TransactionFilter, _: &Page) -> Result<TransactionList, QueryError> { Ok(Default::default()) }
    fn count(&self, _: &Scope, _: &TransactionFilter) -> Result<u64, QueryError> { Ok(0) }
    fn transaction(&self, _: u64) -> Result<Option<Profile>, QueryError> { Ok(None) }
    fn trace(&self, _: u128) -> Result<Option<Trace>, QueryError> { Ok(None) }
    fn statistics(&self, _: &Scope, _: StatisticsKind, _: StatisticsSort, _: usize) -> Result<Statistics, QueryError> { Ok(Default::default()) }
    fn lost(&self, _: &Scope) -> Result<Lost, QueryError> { Ok(Default::default()) }
    fn live(&self, _: &Scope, _: i64) -> Result<LiveFigures, QueryError> { Ok(Default::default()) }
    fn storage(&self) -> Result<StorageFigures, QueryError> { Ok(Default::default()) }
    fn revision(&self, _: i64, _: i64) -> u64 { 0 }
}
