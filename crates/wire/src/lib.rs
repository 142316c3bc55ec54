
pub mod licence;
pub mod otlp;
