//! Could one of our own programs be executed? Looked at without running it: who starts it in the background would not hear of a failure.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess};

use crate::home::reason;

/// Why the kernel would refuse to execute this file; `None` if it would not.
pub fn obstacle(program: &Path) -> Option<String> {
    if let Err(errno) = eaccess(program, AccessFlags::X_OK) {
        return Some(reason(&errno.into()));
    }
    let wanted = head(Path::new("/proc/self/exe")).ok()?;
    match head(program) {
        Ok(found) if found.starts_with(b"#!") || machine(&found) == machine(&wanted) => None,
        Ok(found) if found.starts_with(b"\x7fELF") => Some("built for another machine".into()),
        Ok(_) => Some("not a program".into()),
        // What may be executed need not be readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => Some(reason(&error)),
    }
}

/// As much of an ELF file as names its machine.
const HEAD: u64 = 20;

fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(program)?.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Magic number, word size and byte order, and the processor.
fn machine(head: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    (head.get(..6), head.get(18..20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_the_kernel_would_refuse_is_known_before() {
        let temp = tempfile::tempdir().unwrap();
        let own = fs::read("/proc/self/exe").unwrap();
        let mut foreign = own[..64].to_vec();
        foreign[18] ^= 1;
        for (bytes, mode, expected) in [
            (&own[..], 0o755, None),
            (b"#!/bin/sh\n", 0o755, None),
            (&own[..], 0o644, Some("permission denied")),
            (&foreign, 0o755, Some("built for another machine")),
            (b"garbage", 0o755, Some("not a program")),
            (b"", 0o755, Some("not a program")),
        ] {
            let path = temp.path().join("whatap_python");
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(obstacle(&path).as_deref(), expected);
        }
    }
}
