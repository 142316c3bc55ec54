//! Commands to be copied.

use std::path::Path;

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

pub(crate) fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A command that only root may run, as we have to type it.
pub(crate) fn as_root(command: &str) -> String {
    if nix::unistd::geteuid().is_root() {
        command.to_owned()
    } else {
        format!("sudo {command}")
    }
}

/// The user's name, or the number where it has none.
pub(crate) fn user(uid: u32) -> String {
    let found = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    found
        .ok()
        .flatten()
        .map_or_else(|| format!("#{uid}"), |user| user.name)
}

/// The user as `chown` and `install` take it.
pub(crate) fn owner(uid: u32) -> String {
    user(uid).trim_start_matches('#').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_change_is_quoted() {
        assert_eq!(quoted("/srv/app-1/whatap.conf"), "/srv/app-1/whatap.conf");
        assert_eq!(quoted("my app"), "'my app'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
