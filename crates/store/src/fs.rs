//! The little of a file system that the log needs, as a trait: [`Disk`] is the real one, [`Memory`] a
//! double that forgets what was not synced and fails when told to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub trait Fs: Clone + Send {
    type File: File;

    /// Makes the directory, private to its owner, if it is not there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the plain files in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A new file; an existing one is an error.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, removals and renames in the directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

pub trait File: Send {
    fn bytes(&self) -> io::Result<u64>;
    /// Fills as much of `buffer` as the file has from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// The real file system. Links are not followed, new files are 0600.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Fs for Disk {
    type File = std::fs::File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Self::File> {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        let open = |write| {
            std::fs::OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(NO_FOLLOW)
                .open(path)
        };
        // Files that may only be read can still be looked at; the first write to one fails.
        open(true).or_else(|_| open(false))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }
}

impl File for std::fs::File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

const NO_FOLLOW: i32 = nix::fcntl::OFlag::O_NOFOLLOW.bits();

/// A file system in memory, for tests: [`Memory::crash`] does to it what a power cut does to a disk.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Content>,
    /// What the directories held when they were last synced.
    durable_names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    /// Bytes that may still be written before the disk is full.
    room: Option<u64>,
    fail_syncs: bool,
    fail_truncates: bool,
    syncs: u64,
}

#[derive(Clone, Default)]
struct Content {
    inode: u64,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    pending: Vec<(u64, Vec<u8>)>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// A file of [`Memory`].
#[derive(Clone, Debug)]
pub struct MemoryFile {
    fs: Memory,
    path: PathBuf,
    inode: u64,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Power cut: of what was not synced each write survives wholly, in part or not at all, as `choose`
    /// says (a number below its argument); the survivors may leave zeroed holes.
    pub fn crash(&self, mut choose: impl FnMut(u64) -> u64) -> Self {
        let state = self.lock();
        let mut after = State {
            next_inode: state.next_inode,
            ..State::default()
        };
        for (path, content) in &state.files {
            let named = state.durable_names.get(path) == Some(&content.inode);
            if !named && choose(2) == 0 {
                continue;
            }
            let mut bytes = content.durable.clone();
            for (offset, written) in &content.pending {
                let kept = match choose(3) {
                    0 => 0,
                    1 => choose(written.len() as u64 + 1),
                    _ => written.len() as u64,
                };
                overwrite(
                    &mut bytes,
                    *offset,
                    &written[..usize::try_from(kept).unwrap_or(0)],
                );
            }
            let inode = content.inode;
            after.durable_names.insert(path.clone(), inode);
            after.files.insert(
                path.clone(),
                Content {
                    inode,
                    now: bytes.clone(),
                    durable: bytes,
                    pending: Vec::new(),
                },
            );
        }
        Self {
            state: Arc::new(Mutex::new(after)),
        }
    }

    /// The disk is full after so many bytes more; `None`: never.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.lock().fail_syncs = fail;
    }

    pub fn fail_truncates(&self, fail: bool) {
        self.lock().fail_truncates = fail;
    }

    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.lock().files.get(path).map(|c| c.now.clone())
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().files.keys().cloned().collect()
    }

    /// Replaces a file's bytes behind everybody's back: bit rot.
    pub fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.lock().files.get_mut(path) {
            change(&mut content.now);
            content.durable.clone_from(&content.now);
            content.pending.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs for Memory {
    type File = MemoryFile;

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let inside = state.files.keys().filter(|p| p.parent() == Some(dir));
        Ok(inside
            .filter_map(|p| Some(p.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Self::File> {
        let mut state = self.lock();
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        let content = Content {
            inode,
            ..Content::default()
        };
        state.files.insert(path.to_owned(), content);
        Ok(MemoryFile {
            fs: self.clone(),
            path: path.to_owned(),
            inode,
        })
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        let inode = self
            .lock()
            .files
            .get(path)
            .ok_or(io::ErrorKind::NotFound)?
            .inode;
        Ok(MemoryFile {
            fs: self.clone(),
            path: path.to_owned(),
            inode,
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.lock().files.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.fail_syncs {
            return Err(io::Error::other("sync failed as told"));
        }
        state.durable_names.retain(|p, _| p.parent() != Some(dir));
        let names: Vec<_> = state
            .files
            .iter()
            .filter(|(p, _)| p.parent() == Some(dir))
            .map(|(p, c)| (p.clone(), c.inode))
            .collect();
        state.durable_names.extend(names);
        Ok(())
    }
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.fs.lock();
        match state.files.get_mut(&self.path) {
            Some(content) if content.inode == self.inode => act(content),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl File for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        self.with(|c| Ok(c.now.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|c| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = c.now.get(from..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = {
            let mut state = self.fs.lock();
            let room = state.room.unwrap_or(u64::MAX).min(bytes.len() as u64);
            if let Some(left) = &mut state.room {
                *left -= room;
            }
            usize::try_from(room).unwrap_or(usize::MAX)
        };
        self.with(|c| {
            let written = &bytes[..room];
            overwrite(&mut c.now, offset, written);
            c.pending.push((offset, written.to_vec()));
            Ok(())
        })?;
        if room < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        if self.fs.lock().fail_truncates {
            return Err(io::Error::other("truncate failed as told"));
        }
        self.with(|c| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            c.now.truncate(bytes);
            // Metadata journals order truncation before later writes; model it as durable at once.
            c.durable.truncate(bytes);
            for (offset, written) in &mut c.pending {
                let from = usize::try_from(*offset).unwrap_or(usize::MAX);
                written.truncate(bytes.saturating_sub(from));
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut state = self.fs.lock();
            if state.fail_syncs {
                return Err(io::Error::other("sync failed as told"));
            }
            state.syncs += 1;
        }
        self.with(|c| {
            c.durable.clone_from(&c.now);
            c.pending.clear();
            Ok(())
        })
    }
}

fn overwrite(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    if written.is_empty() {
        return;
    }
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = from.saturating_add(written.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[from..end].copy_from_slice(written);
}
