//! Texts under numbers, in the order in which they were first seen. Number 0 is the empty text.

use crate::hash::FastMap;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Texts {
    ids: FastMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl Default for Texts {
    fn default() -> Self {
        let empty: Arc<str> = Arc::from("");
        Self {
            ids: FastMap::from_iter([(empty.clone(), 0)]),
            texts: vec![empty],
            bytes: 0,
        }
    }
}

impl Texts {
    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let shared: Arc<str> = Arc::from(text);
        let id = u32::try_from(self.texts.len()).unwrap_or(0);
        self.bytes += text.len() + OVERHEAD;
        self.texts.push(shared.clone());
        self.ids.insert(shared, id);
        id
    }

    pub(crate) fn get(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", |t| t)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(|t| &**t)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Of a text: its reference count, two pointers to it, its place in the table.
const OVERHEAD: usize = 16 + 2 * 16 + 24;
