
pub mod otlp;
