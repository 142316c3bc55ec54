//! `DATA_DIR/server.json`: where a running server listens, and the token that opens it. Mode 0600, replaced as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::private_file::{read_private, write_private};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerJson {
    pub version: u32,
    pub pid: u32,
    /// `address:port` of the agents' port.
    pub agents: String,
    /// `address:port` of dashboard and API.
    pub http: String,
    /// OTLP/HTTP on a port of its own, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    pub url: String,
    pub token: String,
    pub data_dir: PathBuf,
    pub started_us: i64,
}

impl ServerJson {
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        write_private(&path(data_dir), &text)
    }

    /// What the file says, whether or not that server still runs. Nothing there, or nothing readable: none.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<Self> {
        Self::load(data_dir).ok()
    }

    pub(crate) fn load(data_dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&read_private(&path(data_dir))?)?)
    }

    /// Removes the file at a clean end, if it is still this server's.
    pub fn remove(&self, data_dir: &Path) {
        if Self::read(data_dir)
            .is_some_and(|found| found.pid == self.pid && found.token == self.token)
        {
            // Somebody may have removed it meanwhile; then it is gone, as wanted.
            drop(fs::remove_file(path(data_dir)));
        }
    }
}

#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(SERVER_JSON)
}

/// The licence of the default project, for the collectors of this user.
pub fn write_licence(data_dir: &Path, licence: &str) -> io::Result<()> {
    let file = data_dir.join(LICENCE);
    let text = format!("{licence}\n");
    if read_private(&file).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    write_private(&file, text.as_bytes())
}

pub(crate) const SERVER_JSON: &str = "server.json";
pub(crate) const LICENCE: &str = "licence";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn example(data_dir: &Path, token: &str) -> ServerJson {
        ServerJson {
            version: 1,
            pid: 7,
            agents: "127.0.0.1:6600".into(),
            http: "127.0.0.1:6680".into(),
            otlp: None,
            url: "http://127.0.0.1:6680/".into(),
            token: token.into(),
            data_dir: data_dir.into(),
            started_us: 1,
        }
    }

    #[test]
    fn it_is_written_whole_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        for token in ["one", "two"] {
            let info = example(dir.path(), token);
            info.write(dir.path()).unwrap();
            assert!(ServerJson::read(dir.path()) == Some(info));
        }
        let mode = fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn only_its_own_server_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (example(dir.path(), "first"), example(dir.path(), "second"));
        first.write(dir.path()).unwrap();
        second.write(dir.path()).unwrap();
        first.remove(dir.path());
        assert!(ServerJson::read(dir.path()) == Some(second.clone()));
        second.remove(dir.path());
        assert!(ServerJson::read(dir.path()).is_none());
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("licence")).unwrap();
        write_licence(dir.path(), "x1").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(
            fs::read_to_string(dir.path().join("licence")).unwrap(),
            "x1\n"
        );
    }
}
