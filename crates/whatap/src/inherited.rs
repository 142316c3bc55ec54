//! What this process inherited and the Rust runtime changes before `main`: the disposition of SIGPIPE, and closed standard
//! descriptors. An application behind a launcher must find both as they were.

use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;

/// Bit 0: SIGPIPE was ignored. Bits 1 to 3: descriptors 0 to 2 were closed.
static FOUND: AtomicU8 = AtomicU8::new(0);

const SIGPIPE_IGNORED: u8 = 1;

#[used]
// SAFETY: the loader calls what lies in this section once, before the runtime touches signals and descriptors; the function
// uses nothing that the runtime would have to set up first.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        let mut found = 0;
        // SAFETY: a null action only asks; `old` is a plain structure for which zeroes are valid.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) == 0
                && old.sa_sigaction == libc::SIG_IGN
            {
                found |= SIGPIPE_IGNORED;
            }
            for fd in 0..3 {
                if libc::fcntl(fd, libc::F_GETFD) == -1 {
                    found |= 2 << fd;
                }
            }
        }
        FOUND.store(found, Ordering::Relaxed);
    }
    look
};

/// Puts everything back; to be called right before an exec.
pub fn restore() {
    let found = FOUND.load(Ordering::Relaxed);
    let disposition = if found & SIGPIPE_IGNORED != 0 {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: no handler function is installed, and the descriptors that are closed are the runtime's `/dev/null`s, which
    // nothing here owns.
    unsafe {
        libc::signal(libc::SIGPIPE, disposition);
        for fd in 0..3 {
            if found & (2 << fd) != 0 {
                libc::close(fd);
            }
        }
    }
}

/// Did the caller close our stdout? What is written there goes nowhere, without an error.
pub fn is_stdout_closed() -> bool {
    FOUND.load(Ordering::Relaxed) & (2 << 1) != 0
}

/// Do the kernel's records say that this program runs with more rights than its caller (set-user-id, capabilities)?
pub fn is_privileged() -> bool {
    // SAFETY: only reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
