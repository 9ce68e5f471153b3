//! Big bodies between two plain connections: moved by `splice(2)` through a pipe, so that their bytes never come up to us.
//! Called by `relay` through [`Link::splice_from`]; where it cannot be done, bodies are copied as ever.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::link::{Broken, Link, Received};

/// Of a body at least this much must still be to come: below it, copying is cheaper.
pub(super) const WORTH_IT: u64 = 64 * 1024;
/// Bytes that a pipe holds. More makes nothing faster: the pages fall out of the cache before they are sent on.
const SIZE: usize = 64 * 1024;
/// Pipes that a worker has at most; a pipe is lent only while something is in it.
const MAX_PIPES: usize = 256;

/// A worker's pipes.
#[derive(Default)]
pub(super) struct Pipes(Rc<RefCell<Shelf>>);

#[derive(Default)]
struct Shelf {
    free: Vec<Ends>,
    lent: usize,
}

/// Both ends of a pipe.
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    /// An empty pipe; `None` if there are too many, or the system gives none (then bodies are copied).
    fn lend(&self) -> Option<Pipe> {
        let mut shelf = self.0.borrow_mut();
        let ends = match shelf.free.pop() {
            Some(ends) => ends,
            None if shelf.lent < MAX_PIPES => make()?,
            None => return None,
        };
        shelf.lent += 1;
        Some(Pipe { ends: Some(ends), held: 0, shelf: Rc::clone(&self.0) })
    }
}

fn make() -> Option<Ends> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    // A user may have so many pages in pipes (pipe(7), `pipe-user-pages-soft`); a small pipe is no use.
    let size = fcntl_setpipe_size(&write, SIZE).ok()?;
    (size >= SIZE).then_some(Ends { read, write })
}

/// A pipe that is lent; goes back when dropped, unless something is left in it.
pub(super) struct Pipe {
    ends: Option<Ends>,
    /// Bytes in it.
    held: usize,
    shelf: Rc<RefCell<Shelf>>,
}

impl Pipe {
    /// Sends on what is in it, as far as the kernel takes it; whether it is empty now.
    pub(super) fn drain(&mut self, to: &OwnedFd) -> Result<bool, Broken> {
        let Some(ends) = &self.ends else { return Ok(true) };
        while self.held > 0 {
            match splice(&ends.read, None, to, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Ok(count) => self.held -= count.min(self.held),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(_) => return Err(Broken),
            }
        }
        Ok(true)
    }

    fn fill(&mut self, from: &OwnedFd, limit: usize) -> Result<usize, Errno> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count =
            rustix::io::retry_on_intr(|| splice(from, None, &ends.write, None, limit.min(SIZE), flags))?;
        self.held += count;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut shelf = self.shelf.borrow_mut();
        shelf.lent -= 1;
        if self.held == 0 {
            shelf.free.extend(self.ends.take());
        }
    }
}

impl Link {
    /// Moves up to `limit` bytes that have come from `from` on to this connection, which must have nothing unsent; what
    /// the kernel does not take now goes out with [`Link::flush`]. `None`: it cannot be done, copy.
    pub(super) fn splice_from(&mut self, from: &mut Link, limit: u64, pipes: &Pipes) -> Option<Received> {
        if self.is_tls() || from.is_tls() || !self.is_connected() {
            return None;
        }
        let mut pipe = pipes.lend()?;
        let limit = usize::try_from(limit).unwrap_or(SIZE);
        let received = match pipe.fill(&from.fd, limit) {
            Ok(0) => Received::End,
            Ok(count) => Received::Data(count),
            // The pipe is empty, so it is the socket that has nothing.
            Err(Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::Broken,
        };
        from.note(received);
        // A connection that breaks now says so at the next flush, as after any send.
        if !matches!(pipe.drain(&self.fd), Ok(true)) {
            self.pipe = Some(pipe);
        }
        Some(received)
    }
}
