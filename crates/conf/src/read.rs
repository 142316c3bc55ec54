//! The one way in which a file of settings is read. Nothing is waited for: a pipe in a file's place must not stop an application.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// Bytes of a file that is read at all; nobody writes such a configuration by hand.
pub(crate) const LARGEST: u64 = 1024 * 1024;

/// The bytes of a regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_if(path, |_| true).map(Option::unwrap_or_default)
}

/// The bytes of a regular file if the opened file, and not what has the name a moment later, is `believed`.
pub(crate) fn read_if(
    path: &Path,
    believed: impl FnOnce(&Metadata) -> bool,
) -> io::Result<Option<Vec<u8>>> {
    // Opening a device may do something; nobody can plant one, but a link to one.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    if !believed(&meta) {
        return Ok(None);
    }
    if meta.len() > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

const NOT_REGULAR: &str = "not a regular file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_refused_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let pipe = temp.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&pipe).unwrap_err().to_string(), NOT_REGULAR);
        assert_eq!(read(temp.path()).unwrap_err().to_string(), NOT_REGULAR);
        let missing = read(&temp.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        std::fs::write(temp.path().join("file"), "a=1\n").unwrap();
        assert_eq!(read(&temp.path().join("file")).unwrap(), b"a=1\n");
    }
}
