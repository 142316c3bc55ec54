//! The shared memory of rings: made, reserved, and such that touching it kills neither side.
//!
//! Usually a memfd, sealed against shrinking and mapped. Kernels before 3.17 and some sandboxes have none: then it is an
//! unlinked file on tmpfs, which other holders of its descriptor could cut; a look at a mapping would end in SIGBUS, so we read
//! and write that one by calls.

use crate::process::memory_left;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, ftruncate, geteuid, unlinkat};
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use whatap_wire::ring::{DATA, Unmapped, View, data_bytes_of};

/// A memory cgroup keeps at least this: reserving in a full one calls the OOM killer instead of failing.
pub const MIN_LEFT_BYTES: u64 = 16 << 20;
const FIRST_FREE_FD: i32 = crate::ensure::FIRST_FREE_FD;

/// Why there is no ring.
#[derive(Debug)]
pub enum Refused {
    /// The memory cgroup, or the file system that the memory would lie on, is nearly full.
    Memory,
    /// Too many rings.
    Limit,
    Io(io::Error),
}

impl Refused {
    /// The word in the answer to the tracer.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Limit | Self::Io(_) => "limit",
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::ENOMEM) => Self::Memory,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(f, "less than 16 MiB of memory are left"),
            Self::Limit => write!(f, "too many processes (`ring_max_count`, `ring_max_mb`)"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Refused {}

/// The memory of one ring.
#[derive(Debug)]
pub struct Memory {
    file: Unsealed,
    bytes: usize,
    mapping: Option<Mapping>,
}

impl Memory {
    /// Reserves new memory for a ring with that much data; all zero.
    pub fn create(data_bytes: usize) -> io::Result<Self> {
        match new_memfd() {
            Ok(fd) => Self::seal(fd, DATA + data_bytes),
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Self::unsealed(data_bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn seal(fd: OwnedFd, bytes: usize) -> io::Result<Self> {
        let fd = high(fd)?;
        reserve(&fd, bytes)?;
        fcntl(
            &fd,
            FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW),
        )?;
        Self::mapped(fd, bytes)
    }

    /// What there is without memfds.
    fn unsealed(data_bytes: usize) -> io::Result<Self> {
        first_tmpfs(|directory| Self::on_tmpfs(directory, DATA + data_bytes))
    }

    fn on_tmpfs(directory: &Path, bytes: usize) -> io::Result<Self> {
        let fd = high(nameless_file(directory)?)?;
        reserve(&fd, bytes)?;
        Ok(Self {
            file: Unsealed(fd.into()),
            bytes,
            mapping: None,
        })
    }

    /// Takes memory that somebody else hands us. It is mapped only if nobody can cut it.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let fd = high(fd)?;
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).unwrap_or(0);
        let file = File::from(fd);
        let meta = file.metadata()?;
        let bytes = usize::try_from(meta.len()).unwrap_or(usize::MAX);
        if !meta.is_file() || data_bytes_of(bytes).is_none() {
            return Err(invalid("not a ring's size"));
        }
        if seals & libc::F_SEAL_SHRINK != 0 {
            return Self::mapped(file.into(), bytes);
        }
        if !is_tmpfs(&file) {
            return Err(invalid("neither sealed nor in memory"));
        }
        Ok(Self {
            file: Unsealed(file),
            bytes,
            mapping: None,
        })
    }

    fn mapped(fd: OwnedFd, bytes: usize) -> io::Result<Self> {
        let mapping = Mapping::of(&fd, bytes)?;
        Ok(Self {
            file: Unsealed(fd.into()),
            bytes,
            mapping: Some(mapping),
        })
    }

    pub fn view(&self) -> View<'_> {
        let view = match &self.mapping {
            Some(mapping) => View::new(mapping.words()),
            None => View::through(&self.file, self.bytes),
        };
        view.unwrap_or_else(|_| unreachable!("made with a ring's size"))
    }

    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nobody can cut it.
    pub const fn is_sealed(&self) -> bool {
        self.mapping.is_some()
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.0.as_fd()
    }

    /// Another descriptor of the same memory, above the fixed places too.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        high_copy(self.descriptor())
    }
}

/// A sealed memfd in our address space.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    length: NonZeroUsize,
}

impl Mapping {
    fn of(fd: &OwnedFd, bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it is unmapped only in `drop`.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `length` bytes, is page-aligned, lives as long as `self`, and cannot shrink (sealed).
        // Both sides access it by atomic words only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length.get() / 8) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and no view outlives `self`.
        let _impossible = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}

/// A file that is read and written by calls.
#[derive(Debug)]
struct Unsealed(File);

impl Unmapped for Unsealed {
    fn read(&self, place: usize, to: &mut [u8]) {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, (place + done) as u64) {
                Ok(0) | Err(_) => return rest.fill(0),
                Ok(bytes) => done += bytes,
            }
        }
    }

    fn write(&self, place: usize, bytes: &[u8]) {
        // It fails when somebody has cut the file and its file system is full: then nobody reads it either.
        let _cut = self.0.write_all_at(bytes, place as u64);
    }
}

/// A file in memory that ends with its last descriptor, of any size and for ourselves only.
pub(crate) fn scratch_file() -> io::Result<File> {
    match memfd_create("whatap-kept", MFdFlags::MFD_CLOEXEC) {
        Ok(fd) => Ok(fd.into()),
        Err(_) => first_tmpfs(nameless_file).map(File::from),
    }
}

/// The first of the places on tmpfs where this works; else why it did not in the first of them, which everybody has.
fn first_tmpfs<T>(mut make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<T> {
    let runtime = format!("/run/user/{}", geteuid());
    make(Path::new("/dev/shm")).or_else(|error| make(Path::new(&runtime)).map_err(|_| error))
}

fn new_memfd() -> nix::Result<OwnedFd> {
    /// Since Linux 6.3; says that nobody will ever execute it, which hardened kernels insist on.
    const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x0008);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create("whatap-ring", flags | NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create("whatap-ring", flags),
        other => other,
    }
}

/// A new file on tmpfs, never on a disk, that has no name.
fn nameless_file(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(directory, flags | OFlag::O_RDONLY, Mode::empty())?;
    if !is_tmpfs(&directory) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let access = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match openat(&directory, ".", access | OFlag::O_TMPFILE, mode) {
        // Before Linux 3.11 there are no files without a name.
        Err(Errno::EISDIR | Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL) => {}
        other => return Ok(other?),
    }
    let number = getrandom::u64().map_err(io::Error::other)?;
    let name = format!(".whatap-{number:016x}");
    let new = access | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = openat(&directory, name.as_str(), new, mode)?;
    unlinkat(&directory, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
    Ok(file)
}

fn is_tmpfs(file: &impl AsFd) -> bool {
    fstatfs(file.as_fd()).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

/// Reserved: touching it can neither fail on a full tmpfs nor be answered by SIGBUS.
fn reserve(fd: &OwnedFd, bytes: usize) -> io::Result<()> {
    ftruncate(fd, bytes as i64)?;
    Ok(fallocate(fd, FallocateFlags::empty(), 0, bytes as i64)?)
}

/// Numbers that survive an exec into a watchdog must lie above its fixed places.
fn high(fd: OwnedFd) -> io::Result<OwnedFd> {
    high_copy(fd.as_fd())
}

fn high_copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_FREE_FD))?;
    // SAFETY: fcntl has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// What all rings together may take: `ring_max_count` and `ring_max_mb`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rings: usize,
    pub bytes: usize,
}

/// Decides whether another ring may be made.
#[derive(Debug, Default)]
pub struct Budget {
    looked_at_ms: u64,
    left: Option<u64>,
}

impl Budget {
    const LOOK_MS: u64 = 200;

    /// `held`: how many rings there are, and their bytes.
    pub fn allows(
        &mut self,
        held: (usize, usize),
        wanted: usize,
        limits: Limits,
        now_ms: u64,
    ) -> Result<(), Refused> {
        if held.0 >= limits.rings || held.1.saturating_add(wanted) > limits.bytes {
            return Err(Refused::Limit);
        }
        if self.looked_at_ms == 0 || now_ms >= self.looked_at_ms + Self::LOOK_MS {
            self.left = memory_left();
            self.looked_at_ms = now_ms.max(1);
        }
        match &mut self.left {
            Some(left) if *left < MIN_LEFT_BYTES + wanted as u64 => Err(Refused::Memory),
            Some(left) => {
                *left -= wanted as u64;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_wire::frame::{Draft, Frame};
    use whatap_wire::ring::{DATA_BYTES, Header, Look, MAX_DATA_BYTES, RING_BYTES, Writer};

    const HEADER: Header = Header {
        ring: 7,
        created_us: 1,
        pid: 2,
    };

    #[test]
    fn nobody_can_cut_a_ring_under_the_other_side() {
        let memory = Memory::create(DATA_BYTES).unwrap();
        assert!(memory.is_sealed());
        for bytes in [0, RING_BYTES as i64 / 2, RING_BYTES as i64 * 2] {
            assert_eq!(ftruncate(memory.descriptor(), bytes), Err(Errno::EPERM));
        }
        assert!(reserved(&memory) >= RING_BYTES, "reserved");
    }

    fn reserved(memory: &Memory) -> usize {
        let status = nix::sys::stat::fstat(memory.descriptor()).unwrap();
        status.st_blocks as usize * 512
    }

    #[test]
    fn rings_of_every_size_are_read_by_whoever_gets_them() {
        for data in [DATA_BYTES, 1 << 20, MAX_DATA_BYTES] {
            let memory = Memory::create(data).unwrap();
            memory.view().init(HEADER);
            let again = Memory::adopt(memory.duplicate().unwrap()).unwrap();
            assert_eq!(again.bytes(), DATA + data);
            assert_eq!(again.view().header(), Ok(HEADER));
            assert!(again.is_sealed());
        }
    }

    #[test]
    fn without_memfds_a_ring_is_a_reserved_file_on_tmpfs_without_a_name() {
        let memory = Memory::unsealed(DATA_BYTES).unwrap();
        let meta = memory.file.0.metadata().unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((meta.nlink(), meta.mode() & 0o777), (0, 0o600));
        assert!(reserved(&memory) >= RING_BYTES, "reserved");
        memory.view().init(HEADER);
        let again = Memory::adopt(memory.duplicate().unwrap()).unwrap();
        assert!(!again.is_sealed());
        let writer = Writer::new(again.view());
        let (mut tail, mut buffer) = (0, Vec::new());
        // More than one lap.
        for seq in 1..2_000 {
            let path = "x".repeat(300);
            let head = Frame {
                ring: 7,
                seq,
                id: seq,
                path: &path,
                ..Frame::default()
            };
            let draft = || Draft {
                head,
                ..Draft::default()
            };
            assert!(writer.put(|at| draft().encode(at)));
            let look = memory.view().look(tail, memory.view().head(), &mut buffer);
            let Look::Frame { next } = look else {
                panic!("frame {seq}: {look:?}")
            };
            tail = next;
            memory.view().set_tail(tail);
        }
        assert!(tail > DATA_BYTES as u64);
        assert_eq!(memory.view().counted().ended, 1_999);
    }

    #[test]
    fn a_file_that_somebody_cuts_reads_as_zero_and_kills_nobody() {
        let memory = Memory::unsealed(DATA_BYTES).unwrap();
        memory.view().init(HEADER);
        Writer::new(memory.view()).lose(0, 5);
        ftruncate(memory.descriptor(), 0).unwrap();
        assert!(memory.view().header().is_err());
        assert_eq!(memory.view().counted().ended, 0);
        assert!(memory.view().slots().is_empty());
        memory.view().beat(9);
        assert!(Memory::adopt(memory.duplicate().unwrap()).is_err());
    }

    #[test]
    fn only_memory_becomes_a_ring() {
        let sizes = |file: &File, bytes: usize| file.set_len(bytes as u64).unwrap();
        let disk = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        sizes(&disk, RING_BYTES);
        if !is_tmpfs(&disk) {
            assert!(Memory::adopt(disk.into()).is_err());
        }
        let small = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        fcntl(&small, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert!(Memory::adopt(small).is_err());
        assert!(Memory::adopt(File::open("/dev/null").unwrap().into()).is_err());
        assert!(Memory::on_tmpfs(Path::new("/proc/self"), RING_BYTES).is_err());
    }

    #[test]
    fn memory_that_could_shrink_is_not_mapped() {
        let fd = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&fd, RING_BYTES as i64).unwrap();
        assert!(!Memory::adopt(fd).unwrap().is_sealed());
    }

    #[test]
    fn rings_are_refused_before_memory_runs_out_and_beyond_the_limits() {
        let limits = Limits {
            rings: 3,
            bytes: 3 * RING_BYTES,
        };
        let mut budget = Budget {
            looked_at_ms: 1,
            left: Some(MIN_LEFT_BYTES + RING_BYTES as u64),
        };
        assert!(budget.allows((0, 0), RING_BYTES, limits, 2).is_ok());
        let full = budget.allows((1, RING_BYTES), RING_BYTES, limits, 2);
        assert_eq!(full.unwrap_err().reason(), "memory");
        let mut budget = Budget::default();
        let many = budget.allows((3, 0), RING_BYTES, limits, 2);
        assert_eq!(many.unwrap_err().reason(), "limit");
        let large = budget.allows((1, 2 * RING_BYTES + 1), RING_BYTES, limits, 2);
        assert_eq!(large.unwrap_err().reason(), "limit");
        let none = Refused::from(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(none.reason(), "memory");
    }
}
