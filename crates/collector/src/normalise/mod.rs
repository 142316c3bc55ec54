//! Equal things get equal names, and nothing that belongs to the user's data stays in them.

mod cache;
pub mod redact;

pub use cache::{Cache, hash};
pub use whatap_wire::{sql, url};

/// Normalised statements that were seen before, bounded by bytes.
pub struct Statements(Cache);

impl Statements {
    pub fn new(bytes: usize) -> Self {
        Self(Cache::new(bytes))
    }

    /// [`sql::normalise`], or its result for the same statement before.
    pub fn get(&mut self, sql: &str, system: &str, cut: bool) -> &str {
        self.0.get_or(Self::key(sql, system, cut), || {
            sql::normalise(sql, system, cut)
        })
    }

    /// Tells statements as they were written apart.
    pub fn key(sql: &str, system: &str, cut: bool) -> u128 {
        hash(&[sql.as_bytes(), system.as_bytes(), &[u8::from(cut)]])
    }
}

/// Normalised paths that were seen before, bounded by bytes.
pub struct Paths(Cache);

impl Paths {
    pub fn new(bytes: usize) -> Self {
        Self(Cache::new(bytes))
    }

    /// [`url::normalise_path`], or its result for the same path before. `salt` tells sets of patterns apart.
    pub fn get(&mut self, path: &str, patterns: &url::Patterns, automatic: bool) -> &str {
        let key = hash(&[
            path.as_bytes(),
            &patterns.id().to_le_bytes(),
            &[u8::from(automatic)],
        ]);
        self.0
            .get_or(key, || url::normalise_path(path, patterns, automatic))
    }

    /// [`url::normalise_url`], or its result for the same URL before.
    pub fn url(&mut self, text: &str) -> &str {
        let key = hash(&[text.as_bytes(), b"url"]);
        self.0.get_or(key, || url::normalise_url(text))
    }
}
