//! The instance's address: an abstract unix socket whose binding is the lock, and the messages on it.
//!
//! No pid, lock or record file exists, hence none can be forged or left behind: the kernel removes the name with its
//! owner. Whoever connects checks the other side's uid; whoever accepts does too.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, sockopt,
};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use whatap_wire::Message;
use whatap_wire::message::MAX_BYTES;
use whatap_wire::ring::MAX_FRAME;

/// Connections that may wait to be accepted; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;
/// Descriptors that one packet may carry.
const MAX_DESCRIPTORS: usize = 4;
/// The uid that the kernel shows for users that this user namespace does not know.
const UNMAPPED: u32 = 65_534;

/// The name of the instance of this home, this user and these namespaces.
pub fn name(home: &Path) -> String {
    let home = fs::canonicalize(home).unwrap_or_else(|_| home.to_path_buf());
    let mut hash = Sha256::new();
    hash.update(home.as_os_str().as_bytes());
    for part in [
        u64::from(geteuid().as_raw()),
        namespace("net"),
        namespace("pid"),
    ] {
        hash.update([0]);
        hash.update(part.to_string());
    }
    named(hash.finalize().as_slice())
}

/// A name that nobody can have taken beforehand.
pub fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(named(&bytes))
}

/// A launch's token: 32 hex digits.
pub fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}

fn named(bytes: &[u8]) -> String {
    format!("whatap-{}", hex(bytes.get(..16).unwrap_or(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Inode of one of our own namespaces, 0 where there is no `/proc`.
fn namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |meta| meta.ino())
}

/// Whether a process is in our PID and mount namespaces: who is not may attach, but not control.
pub fn shares_namespaces(pid: u32) -> bool {
    pid != 0
        && ["pid", "mnt"].iter().all(|kind| {
            let theirs = fs::metadata(format!("/proc/{pid}/ns/{kind}"));
            theirs.is_ok_and(|meta| meta.ino() == namespace(kind))
        })
}

/// Takes the name and listens on it. `AddrInUse`: somebody has it.
pub fn hold(name: &str) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    bind(fd.as_raw_fd(), &address(name)?)?;
    listen_on(fd.as_fd())?;
    Ok(fd)
}

/// Listens (again): from now on, who connects sees this process as its peer.
pub fn listen_on(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(listen(&fd, Backlog::new(BACKLOG)?)?)
}

/// Connects without ever waiting. `WouldBlock`: the holder's backlog is full.
pub fn reach(name: &str) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    connect(fd.as_raw_fd(), &address(name)?)?;
    Ok(fd)
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

fn address(name: &str) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new_abstract(name.as_bytes())?)
}

/// Who is on the other side, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// 0 = a process that our PID namespace does not know.
    pub pid: u32,
    pub uid: u32,
}

impl Peer {
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let found = getsockopt(&fd, sockopt::PeerCredentials)?;
        Ok(Self {
            pid: u32::try_from(found.pid()).unwrap_or(0),
            uid: found.uid(),
        })
    }

    /// Our own user or root, and not merely what an unknown user looks like.
    pub fn is_trusted(&self) -> bool {
        let own = geteuid().as_raw();
        self.uid == 0 || (self.uid == own && (own != UNMAPPED || every_user_is_mapped()))
    }
}

/// Whether our user namespace knows every user, as the host's does: then `nobody` is a user like any other.
fn every_user_is_mapped() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Accepts one connection, if one waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match nix::sys::socket::accept4(listener.as_raw_fd(), flags) {
        // SAFETY: accept4 has just made this descriptor and nobody else knows it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends one message without waiting and without SIGPIPE.
pub fn send(
    to: BorrowedFd<'_>,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = message.encode();
    if bytes.len() > MAX_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(
            to.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            flags,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Before a frame that follows its process's request for a ring, which may come too late.
const LATE: &[u8] = b"late\n";
const MAX_PACKET: usize = LATE.len() + MAX_FRAME;

/// What one look at a connection gave.
#[derive(Debug)]
pub enum Received {
    Message(Message, Vec<OwnedFd>),
    /// A frame that did not wait for its ring.
    Late(Vec<u8>),
    /// A packet that is neither.
    Nonsense,
    Nothing,
    Closed,
}

/// Takes one packet without waiting. Descriptors of packets that nobody wants are closed.
pub fn receive(from: BorrowedFd<'_>) -> io::Result<Received> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut control = cmsg_space!([std::os::fd::RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let mut reset = false;
    let (length, descriptors, cut) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(got) => {
                break (
                    got.bytes,
                    take_descriptors(&got),
                    got.flags.contains(MsgFlags::MSG_TRUNC),
                );
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            // The other side has gone without reading our answer. The kernel says so once, before what it sent: that comes yet.
            Err(Errno::ECONNRESET) if !reset => reset = true,
            Err(Errno::ECONNRESET) => return Ok(Received::Closed),
            Err(errno) => return Err(errno.into()),
        }
    };
    if length == 0 {
        return Ok(Received::Closed);
    }
    bytes.truncate(length);
    if !cut && bytes.starts_with(LATE) {
        bytes.drain(..LATE.len());
        return Ok(Received::Late(bytes));
    }
    Ok(match Message::parse(&bytes) {
        Ok(message) if !cut => Received::Message(message, descriptors),
        _ => Received::Nonsense,
    })
}

fn take_descriptors(got: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    for message in got.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for us and nobody else knows them.
            found.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_belongs_to_whoever_binds_it_first_and_goes_with_him() {
        let name = random_name().unwrap();
        let first = hold(&name).unwrap();
        assert_eq!(hold(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = reach(&name).unwrap();
        assert!(Peer::of(client.as_fd()).unwrap().is_trusted());
        drop(first);
        assert!(reach(&name).is_err());
        hold(&name).unwrap();
    }

    #[test]
    fn homes_have_names_of_their_own() {
        let one = name(Path::new("/nowhere/one"));
        assert_eq!(one, name(Path::new("/nowhere/one")));
        assert_ne!(one, name(Path::new("/nowhere/two")));
        assert_eq!(one.len(), "whatap-".len() + 32);
    }

    #[test]
    fn a_message_waits_in_the_backlog_and_brings_its_descriptor() {
        let name = random_name().unwrap();
        let listener = hold(&name).unwrap();
        let client = reach(&name).unwrap();
        let message = Message::new("attach").with("pid", 1);
        send(client.as_fd(), &message, &[listener.as_fd()]).unwrap();
        drop(client);
        let server = accept(listener.as_fd()).unwrap().unwrap();
        let Received::Message(got, descriptors) = receive(server.as_fd()).unwrap() else {
            panic!()
        };
        assert_eq!((got, descriptors.len()), (message, 1));
        assert!(matches!(receive(server.as_fd()).unwrap(), Received::Closed));
    }

    #[test]
    fn what_was_sent_is_read_although_the_answer_was_not() {
        let name = random_name().unwrap();
        let listener = hold(&name).unwrap();
        let client = reach(&name).unwrap();
        let server = accept(listener.as_fd()).unwrap().unwrap();
        nix::sys::socket::send(client.as_raw_fd(), b"late\nframe", MsgFlags::empty()).unwrap();
        send(server.as_fd(), &Message::new("ring"), &[]).unwrap();
        drop(client);
        let Received::Late(frame) = receive(server.as_fd()).unwrap() else {
            panic!()
        };
        assert_eq!(frame, b"frame");
        assert!(matches!(receive(server.as_fd()).unwrap(), Received::Closed));
    }

    #[test]
    fn nonsense_is_told_from_silence() {
        let name = random_name().unwrap();
        let listener = hold(&name).unwrap();
        let client = reach(&name).unwrap();
        let server = accept(listener.as_fd()).unwrap().unwrap();
        assert!(matches!(
            receive(server.as_fd()).unwrap(),
            Received::Nothing
        ));
        nix::sys::socket::send(client.as_raw_fd(), b"\xff\xff", MsgFlags::empty()).unwrap();
        assert!(matches!(
            receive(server.as_fd()).unwrap(),
            Received::Nonsense
        ));
    }
}
