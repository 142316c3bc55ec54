//! What other senders' transactions are grouped by: the route if they know it, else a path without its variable parts;
//! and a limit to how many names there may be.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use whatap_wire::url::{self, Patterns};

use super::values::cut;

/// The names of the last minutes, by their hashes.
#[derive(Default)]
pub struct Names {
    seen: Mutex<Option<Seen>>,
    /// Transactions that were filed under `(other)`.
    pub overflown: AtomicU64,
}

struct Seen {
    since: Instant,
    names: HashSet<u64>,
}

impl Names {
    pub(super) fn of(
        &self,
        sender: u32,
        span: &str,
        method: &str,
        route: &str,
        path: &str,
        status: u16,
    ) -> String {
        let name = choose(span, method, route, path, status);
        if self.admit(sender, &name) {
            return cut(name, MAX_NAME);
        }
        self.overflown.fetch_add(1, Ordering::Relaxed);
        OTHER.to_owned()
    }

    fn admit(&self, sender: u32, name: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (sender, name).hash(&mut hasher);
        let hash = hasher.finish();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seen = match seen.as_mut() {
            Some(current) if now.duration_since(current.since) < WINDOW => current,
            _ => seen.insert(Seen {
                since: now,
                names: HashSet::new(),
            }),
        };
        if seen.names.len() >= MAX_NAMES {
            return seen.names.contains(&hash);
        }
        seen.names.insert(hash);
        true
    }
}

/// Without the method before it, as the method is a column of its own.
fn choose(span: &str, method: &str, route: &str, path: &str, status: u16) -> String {
    if !route.is_empty() {
        return route.to_owned();
    }
    let rest = match span.strip_prefix(method) {
        Some(rest) if !method.is_empty() => rest.trim_start(),
        _ => span,
    };
    let rest = rest.strip_prefix("HTTP ").map_or(rest, |rest| {
        rest.strip_prefix(method).unwrap_or(rest).trim_start()
    });
    if method.is_empty() {
        return rest.to_owned();
    }
    // `GET`, `HTTP GET` or the path itself: the sender knows no route.
    if status == 404 {
        return UNMATCHED.to_owned();
    }
    if rest.is_empty() {
        masked(path)
    } else if rest.starts_with('/') {
        masked(rest)
    } else {
        rest.to_owned()
    }
}

fn masked(path: &str) -> String {
    url::normalise_path(path, &Patterns::default(), true)
}

const OTHER: &str = "(other)";
const UNMATCHED: &str = "{unmatched}";
const MAX_NAME: usize = 1_024;
const MAX_NAMES: usize = 5_000;
const WINDOW: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_better_than_a_path_and_a_path_better_than_nothing() {
        assert_eq!(
            choose("GET /o/{id}", "GET", "/o/{id}", "/o/7", 200),
            "/o/{id}"
        );
        assert_eq!(choose("GET", "GET", "", "/o/7", 200), "/o/{}");
        assert_eq!(choose("HTTP GET", "GET", "", "/o/7", 200), "/o/{}");
        assert_eq!(choose("GET /o/8", "GET", "", "/o/8", 200), "/o/{}");
        assert_eq!(
            choose("GET", "GET", "", "/wp-login.php", 404),
            "{unmatched}"
        );
        assert_eq!(choose("shop.tasks.mail", "", "", "", 0), "shop.tasks.mail");
    }

    #[test]
    fn beyond_the_limit_names_share_one_row_and_known_ones_keep_theirs() {
        let names = Names::default();
        let of = |name: &str| names.of(0, name, "", "", "", 0);
        for n in 0..MAX_NAMES {
            of(&n.to_string());
        }
        assert_eq!(of("one more"), OTHER);
        assert_eq!(of("17"), "17");
        assert_eq!(names.overflown.load(Ordering::Relaxed), 1);
    }
}
