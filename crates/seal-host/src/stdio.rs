//! Standard output belongs to the protocol.
//!
//! Code that we link may print: an executor therefore keeps the real standard output for itself
//! and points file descriptor 1 at standard error before any foreign code runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Takes standard output away from everybody else: returns a duplicate of it (closed on exec) and
/// points file descriptor 1 at standard error.
pub fn claim_stdout() -> io::Result<File> {
    let ours: OwnedFd = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(File::from(ours))
}

/// Whether anybody can still read what is written to `output`. For a pipe or socket that is
/// whether the other end is open; a file or terminal always has a reader.
pub fn has_reader(output: &File) -> bool {
    let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => {
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            !events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL)
        }
        Err(_) => true,
    }
}

/// Whether anybody can still write to `input`. Without, what is in it is the last that comes. A file
/// or terminal always has a writer.
pub fn has_writer(input: impl AsFd) -> bool {
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => {
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            !events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL)
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_a_writer_until_its_end_is_closed_whatever_is_in_it() {
        use std::io::Write;
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert!(has_writer(&reader));
        writer.write_all(b"x").expect("there is room");
        assert!(has_writer(&reader));
        drop(writer);
        // A child that another test starts just now has the descriptor until it runs its program.
        let begin = std::time::Instant::now();
        while has_writer(&reader) {
            assert!(begin.elapsed().as_secs() < 60, "nobody can write to it");
            std::thread::yield_now();
        }
        assert!(has_writer(tempfile::tempfile().expect("a file")));
    }

    #[test]
    fn a_pipe_has_a_reader_until_its_end_is_closed() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let writer = File::from(OwnedFd::from(writer));
        assert!(has_reader(&writer));
        drop(reader);
        assert!(!has_reader(&writer));
    }

    #[test]
    fn a_file_always_has_a_reader() {
        assert!(has_reader(&tempfile::tempfile().expect("a temporary file")));
    }
}
