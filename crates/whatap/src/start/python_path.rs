//! `PYTHONPATH` with our directory first, once, and everything that the user had behind it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use whatap_conf::Env;

pub(super) fn with(bootstrap: &Path, env: &Env) -> OsString {
    prepend(
        bootstrap.as_os_str(),
        env.raw("PYTHONPATH").unwrap_or_default(),
    )
}

fn prepend(bootstrap: &OsStr, before: &OsStr) -> OsString {
    let mut path = bootstrap.as_bytes().to_vec();
    // An empty value means nothing to Python; an empty entry among others means the working directory and stays.
    if !before.is_empty() {
        for entry in before
            .as_bytes()
            .split(|b| *b == b':')
            .filter(|e| *e != bootstrap.as_bytes())
        {
            path.push(b':');
            path.extend_from_slice(entry);
        }
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_entries_stay_and_ours_is_first_once() {
        for (before, after) in [
            ("", "/boot"),
            ("/a:/b", "/boot:/a:/b"),
            ("/a:/boot:/b", "/boot:/a:/b"),
            ("/boot:/a", "/boot:/a"),
            ("/boot", "/boot"),
            (":/a", "/boot::/a"),
        ] {
            assert_eq!(
                prepend(OsStr::new("/boot"), OsStr::new(before)),
                after,
                "{before}"
            );
        }
    }
}
