//! Lists the package's Python files, so that `embed.rs` can hold them, and a hash over names and contents.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let root =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    println!("cargo::rerun-if-changed=whatap");
    let mut files = Vec::new();
    collect(&root.join("whatap"), "", &mut files)?;
    files.sort();

    let mut hash = Hash::default();
    let mut code = String::from(
        "/// Path below `whatap/`, and contents.\npub static FILES: &[(&str, &[u8])] = &[\n",
    );
    for name in &files {
        let path = root.join("whatap").join(name);
        let bytes = fs::read(&path)?;
        for part in [name.as_bytes(), &bytes] {
            hash.take(&(part.len() as u64).to_le_bytes());
            hash.take(part);
        }
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
    }
    let hash = hash.0;
    write!(code, "];\n\n/// Tells one set of files from another; not a secret and not a seal.\npub static HASH: &str = \"{hash:016x}\";\n")
        .map_err(io::Error::other)?;
    fs::write(out.join("files.rs"), code)
}

/// Every `*.py` below, byte code and caches left out.
fn collect(dir: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| io::ErrorKind::InvalidData)?;
        if entry.file_type()?.is_dir() {
            if name != "__pycache__" && !name.starts_with('.') {
                collect(&entry.path(), &format!("{prefix}{name}/"), files)?;
            }
        } else if name.ends_with(".py") && !name.starts_with('.') {
            files.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

/// FNV-1a.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
