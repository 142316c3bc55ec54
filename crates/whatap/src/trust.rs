//! May code be loaded from here? Only if nobody but root and we can put something else in its place.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use whatap_conf::is_private_group;

const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The first of the directory and its ancestors that somebody else could replace or write into; `None` if all is well. Links are
/// resolved first: what counts is where they lead.
pub fn weak_spot(dir: &Path, uid: u32) -> Option<PathBuf> {
    let Ok(real) = fs::canonicalize(dir) else {
        return Some(dir.to_owned());
    };
    real.ancestors().enumerate().find_map(|(depth, place)| {
        let sound = fs::symlink_metadata(place).is_ok_and(|meta| is_sound(&meta, uid, depth > 0));
        (!sound).then(|| place.to_owned())
    })
}

/// Like [`weak_spot`] for a path that need not exist yet: what exists above it counts, and may be sticky.
pub fn weak_spot_above(path: &Path, uid: u32) -> Option<PathBuf> {
    if path.exists() {
        return weak_spot(path, uid);
    }
    let existing = fs::canonicalize(path.ancestors().find(|a| a.exists())?).ok()?;
    existing
        .ancestors()
        .find(|place| !fs::symlink_metadata(place).is_ok_and(|meta| is_sound(&meta, uid, true)))
        .map(Path::to_owned)
}

/// Like [`weak_spot_above`] for a home, from which no code is loaded: the user's own group may write.
pub fn weak_spot_of_home(home: &Path, uid: u32) -> Option<PathBuf> {
    let weak = weak_spot_above(home, uid)?;
    let meta = fs::metadata(&weak).ok()?;
    let own_group_only = meta.mode() & OTHERS_WRITE == 0o020 && is_private_group(meta.gid(), uid);
    let owned = meta.uid() == uid || meta.uid() == 0;
    (!(owned && own_group_only)).then_some(weak)
}

/// A directory of ours or root's that nobody else can write to. In an ancestor with the sticky bit others may write, but not
/// replace what is ours.
fn is_sound(meta: &Metadata, uid: u32, ancestor: bool) -> bool {
    let owned = meta.uid() == uid || meta.uid() == 0;
    let closed = meta.mode() & OTHERS_WRITE == 0 || (ancestor && meta.mode() & STICKY != 0);
    meta.is_dir() && owned && closed
}

/// Can every user get here?
pub fn is_open_to_all(dir: &Path) -> bool {
    fs::canonicalize(dir).is_ok_and(|real| {
        real.ancestors()
            .all(|a| fs::metadata(a).is_ok_and(|meta| meta.mode() & 0o001 != 0))
            && fs::metadata(&real).is_ok_and(|meta| meta.mode() & 0o005 == 0o005)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    #[test]
    fn one_open_directory_on_the_way_is_enough_to_refuse() {
        let temp = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let deep = temp.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        mode(&temp.path().join("a"), 0o755);
        mode(&deep, 0o755);
        assert_eq!(weak_spot(&deep, uid), None);
        mode(&temp.path().join("a"), 0o775);
        assert_eq!(
            weak_spot(&deep, uid),
            Some(temp.path().canonicalize().unwrap().join("a"))
        );
        mode(&temp.path().join("a"), 0o1777);
        assert_eq!(
            weak_spot(&deep, uid),
            None,
            "a sticky ancestor keeps what is ours"
        );
        mode(&deep, 0o1777);
        assert!(
            weak_spot(&deep, uid).is_some(),
            "but anybody can put a file into a sticky directory"
        );
        assert!(weak_spot(&temp.path().join("missing"), uid).is_some());
    }

    #[test]
    fn a_link_is_as_good_as_where_it_leads() {
        let temp = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let target = temp.path().join("target");
        fs::create_dir(&target).unwrap();
        mode(&target, 0o777);
        std::os::unix::fs::symlink(&target, temp.path().join("link")).unwrap();
        assert!(weak_spot(&temp.path().join("link"), uid).is_some());
    }
}
