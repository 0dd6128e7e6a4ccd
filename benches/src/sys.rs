//! What the standard library has no safe call for: epoll, pinning, the processor clocks, the number of files, and an
//! allocator that counts.
//!
//! All unsafe code of this crate is in this room, and each function here is safe to call.
#![allow(unsafe_code)]

mod heap;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

pub use heap::{CountingAllocator, Heap, allocations, heap, watch};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or an end.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

impl Interest {
    fn bits(self) -> u32 {
        let bits = match self {
            Self::Read => libc::EPOLLIN,
            Self::Write => libc::EPOLLOUT,
            Self::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        bits.cast_unsigned()
    }
}

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// One that watches nothing yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the result is checked before it is used.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made `fd`, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd`; its events carry `token`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what `fd` is watched for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    fn control(
        &self,
        verb: libc::c_int,
        fd: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.bits(), u64: token as u64 };
        // SAFETY: both descriptors are borrowed and so open; the kernel copies `event` during the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, fd.as_raw_fd(), &raw mut event) })?;
        Ok(())
    }

    /// Waits for events, at most `timeout` (`None`: for ever; it is cut to milliseconds).
    /// An interrupting signal counts as no events.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => -1,
            Some(timeout) => libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX),
        };
        let room = libc::c_int::try_from(events.raw.len()).unwrap_or(libc::c_int::MAX);
        events.count = 0;
        // SAFETY: the pointer and `room` describe one live, writable slice of the right type.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.raw.as_mut_ptr(), room, timeout) };
        match check(count) {
            Ok(count) => events.count = usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Room for the events of one [`Epoll::wait`].
#[allow(missing_debug_implementations)]
pub struct Events {
    raw: Vec<libc::epoll_event>,
    count: usize,
}

impl Events {
    /// Room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { raw: vec![libc::epoll_event { events: 0, u64: 0 }; capacity], count: 0 }
    }

    /// How many events the last wait brought.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The token of event `index`. An error or a hang-up shows when the descriptor is read or written.
    pub fn token(&self, index: usize) -> Option<usize> {
        self.raw.get(index).and_then(|event| usize::try_from(event.u64).ok())
    }
}

/// Binds the calling thread, and the threads and processes it starts from now on, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let size = size_of::<libc::cpu_set_t>();
    if core >= size * 8 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu_set_t` is an array of integers: all zeroes is a value of it.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `core` lies inside the set, as checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` lives through the call and `size` is its size; 0 names the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const set) })?;
    Ok(())
}

/// Processor time, user and system, that this process has used.
pub fn own_cpu() -> io::Result<Duration> {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Processor time, user and system, that process `pid` has used, all its threads together.
///
/// The clock is read in nanoseconds, where `/proc/PID/stat` would count in hundredths of a second.
pub fn cpu_of(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` lives through the call and is written only there.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    read_clock(clock)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call and is written only there.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(duration(time.tv_sec, time.tv_nsec))
}

/// Processor time of all children, and of theirs, that have ended and been waited for.
pub fn children_cpu() -> io::Result<Duration> {
    // SAFETY: `rusage` is plain integers: all zeroes is a value of it.
    let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `usage` lives through the call and is written only there.
    check(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) })?;
    let user = duration(usage.ru_utime.tv_sec, usage.ru_utime.tv_usec * 1000);
    let system = duration(usage.ru_stime.tv_sec, usage.ru_stime.tv_usec * 1000);
    Ok(user + system)
}

/// Lets this process, and those that it starts, open as many files as it may without asking anybody. Returns how many
/// that is.
pub fn raise_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call and is written only there.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` lives through the call and is only read there.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// Lets the kernel choose the port of a socket that is bound to an address when it is connected, from all those that are
/// free between the two addresses; otherwise it chooses one that nobody uses, and looks long for it when many are in use.
pub fn choose_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    let (level, option) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    // SAFETY: the descriptor is borrowed and so open; `on` lives through the call, is only read, and `size` is its size.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) })?;
    Ok(())
}

/// The unit of `/proc/stat`: one tick.
pub fn tick() -> Duration {
    // SAFETY: takes and returns plain integers.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs(1) / u32::try_from(a_second).unwrap_or(100).max(1)
}

/// The kernel never returns a negative part of these times; were it to, it would read as zero.
fn duration(seconds: i64, nanos: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::hint::black_box;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn the_two_ways_to_read_a_process_clock_agree() {
        let before = own_cpu().unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            black_box(0);
        }
        let by_pid = cpu_of(std::process::id()).unwrap();
        let after = own_cpu().unwrap();
        assert!(before < by_pid && by_pid <= after);
    }

    #[test]
    fn all_files_that_are_allowed_can_be_opened() {
        let files = raise_files().unwrap();
        assert!(files > 0);
        assert_eq!(raise_files().unwrap(), files);
    }

    #[test]
    fn epoll_tells_the_token_of_what_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(4);
        epoll.add(far.as_fd(), 7, Interest::Read).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 0);
        near.write_all(b"x").unwrap();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!((events.len(), events.token(0)), (1, Some(7)));
    }
}
