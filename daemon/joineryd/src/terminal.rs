//! Asking a person, or a script, for a password.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// Longest password that is read, bytes.
const MAX_PASSWORD: usize = 4096;

/// Echo is off while this lives.
struct Silence<F: AsFd> {
    terminal: F,
    before: Termios,
}

impl<F: AsFd> Silence<F> {
    fn new(terminal: F) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // The newline is still shown, or the next line would follow the prompt.
        silent.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
        // Signals would leave the terminal silent; whoever changed their mind enters nothing.
        silent.local_modes.remove(LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl<F: AsFd> Drop for Silence<F> {
    fn drop(&mut self) {
        // A terminal that went away needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads a password: from a terminal without showing it, from anything else the first line.
///
/// # Errors
/// Stdin cannot be read, or the line is longer than 4096 bytes or not UTF-8.
pub(crate) fn password(prompt: &str) -> io::Result<SecretString> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{prompt}")?;
        stderr.flush()?;
        let silence = Silence::new(stdin.as_fd())?;
        return first_line(silence.terminal.as_fd());
    }
    first_line(stdin.as_fd())
}

/// Past the buffer of `std::io::Stdin`, which would keep the password.
fn first_line(input: impl AsFd) -> io::Result<SecretString> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 1));
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        match rustix::io::read(&input, &mut *byte) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if line.len() > MAX_PASSWORD {
            return Err(io::Error::other("the password is too long"));
        }
    }
    let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("not UTF-8"))?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &[u8]) -> io::Result<String> {
        let mut file = tempfile::tempfile()?;
        file.write_all(text)?;
        io::Seek::rewind(&mut file)?;
        first_line(file).map(|line| line.expose_secret().to_owned())
    }

    #[test]
    fn takes_the_first_line_as_it_is() {
        for (text, expected) in [
            ("pässword ☃\nmore", "pässword ☃"),
            (" spaces count \n", " spaces count "),
            ("no newline", "no newline"),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), expected);
        }
        assert_eq!(read(&[b'a'; MAX_PASSWORD]).unwrap().len(), MAX_PASSWORD);
        assert!(read(&[b'a'; MAX_PASSWORD + 1]).is_err());
        assert!(read(b"\xff\n").is_err());
    }
}
