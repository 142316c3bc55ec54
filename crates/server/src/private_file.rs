//! Small files of the data directory that are for the server's user alone, read and written as a whole. Somebody else may have been in
//! the directory before: no link is followed, and nothing is waited for.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// For `custom_flags`: a link in the way is an error, and a pipe does not wait for its other end.
pub(crate) const NO_TRAPS: i32 = OFlag::O_NOFOLLOW.bits() | OFlag::O_NONBLOCK.bits();

/// The contents of a regular file.
pub(crate) fn read_private(file: &Path) -> io::Result<Vec<u8>> {
    let mut opened = OpenOptions::new()
        .read(true)
        .custom_flags(NO_TRAPS)
        .open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    opened.read_to_end(&mut text)?;
    Ok(text)
}

/// A new file beside the old one, on disk before it takes the name: a reader sees the old text or the new one.
pub(crate) fn write_private(file: &Path, text: &[u8]) -> io::Result<()> {
    let name = file
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.{}", std::process::id()));
    // Left by a process of this pid that was killed; `create_new` then also refuses links.
    drop(fs::remove_file(&temporary));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut out| {
            out.write_all(text)?;
            out.sync_all()?;
            fs::rename(&temporary, file)
        });
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}
