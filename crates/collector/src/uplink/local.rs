//! This user's own server: where it listens and which licence it knows, from the files of its data directory.

use super::http::Address;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const MAX_FILE: u64 = 64 << 10;

/// What of `server.json` matters here.
#[derive(Deserialize)]
struct ServerFile {
    agents: String,
}

/// Address and licence of the server that keeps its data here. None: there is none, or its files are not to be believed.
pub(super) fn local_server(data_dir: &Path) -> Option<(Address, String)> {
    let server: ServerFile =
        serde_json::from_slice(&own_file(&data_dir.join("server.json"))?).ok()?;
    let licence = String::from_utf8(own_file(&data_dir.join("licence"))?).ok()?;
    let licence = licence.trim();
    (!licence.is_empty()).then_some((Address::parse(&server.agents, 6600)?, licence.to_owned()))
}

/// A file of ours or root's; nobody else can have put it there.
fn own_file(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    let owner = metadata.uid();
    let ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 || metadata.len() > MAX_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
