//! A light that can only be on or off, made to breathe: a thread that switches it fast enough for an eye.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::{Led, spawn};
use crate::led::Pattern;

/// Switches the light on or off.
pub type Switch = Box<dyn FnMut(bool) -> io::Result<()> + Send>;

/// One turn of a light that is neither on nor off: a hundred a second do not flicker.
const TURN: Duration = Duration::from_millis(10);

/// A light on a pin. It is dark when this has been dropped.
#[derive(Debug)]
pub struct Lamp {
    /// Taken when the light is let go.
    patterns: Option<Sender<Pattern>>,
    thread: Option<JoinHandle<()>>,
}

impl Lamp {
    /// A dark light.
    ///
    /// # Errors
    /// When there is no room for another thread.
    pub fn new(switch: Switch) -> io::Result<Self> {
        let (sender, patterns) = channel();
        let thread = spawn("light", move || run(switch, &patterns))?;
        Ok(Self { patterns: Some(sender), thread: Some(thread) })
    }
}

impl Led for Lamp {
    fn show(&mut self, pattern: Pattern) {
        // The thread ends only when the light cannot be switched any more, and it has said so.
        let _ = self.patterns.as_ref().map(|patterns| patterns.send(pattern));
    }
}

impl Drop for Lamp {
    fn drop(&mut self) {
        // The thread ends when nobody can send any more, and a line keeps its level when the process is gone.
        self.patterns = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

fn run(mut switch: Switch, patterns: &Receiver<Pattern>) {
    if let Err(error) = follow(&mut switch, patterns) {
        tracing::error!(%error, "the light cannot be switched");
    }
    let _ = switch(false);
}

fn follow(switch: &mut Switch, patterns: &Receiver<Pattern>) -> io::Result<()> {
    let (mut pattern, mut since) = (Pattern::Off, Instant::now());
    loop {
        let (lit, lasts) = pattern.at(since.elapsed());
        let next = match (lit, lasts) {
            (0 | 255, lasts) => {
                switch(lit == 255)?;
                match lasts {
                    // Nothing to do until there is another pattern: this is how an idle box costs nothing.
                    None => patterns.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(lasts) => patterns.recv_timeout(lasts),
                }
            }
            (lit, _) => {
                let on = TURN * u32::from(lit) / 255;
                switch(true)?;
                sleep(on);
                switch(false)?;
                patterns.recv_timeout(TURN - on)
            }
        };
        match next {
            Ok(other) => (pattern, since) = (other, Instant::now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// How often the light was switched on, until `switches` were seen.
    fn watch(pattern: Pattern, switches: usize) -> Vec<(bool, Instant)> {
        let (seen, switched) = channel();
        let mut lamp = Lamp::new(Box::new(move |on| {
            seen.send((on, Instant::now())).map_err(io::Error::other)
        }))
        .unwrap();
        lamp.show(pattern);
        let mut log = Vec::new();
        while log.len() < switches {
            log.push(switched.recv_timeout(Duration::from_secs(20)).expect("a light that goes on"));
        }
        log
    }

    #[test]
    fn a_steady_light_is_switched_once() {
        let log = watch(Pattern::Steady, 2);
        assert_eq!(log.iter().map(|(on, _)| *on).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_breathing_light_is_switched_on_and_off_in_turn() {
        let log = watch(Pattern::SlowBreath, 40);
        assert!(log.windows(2).skip(1).all(|pair| pair[0].0 != pair[1].0), "{log:?}");
    }

    #[test]
    fn a_light_that_is_let_go_is_dark() {
        let (seen, switched) = channel();
        let mut lamp =
            Lamp::new(Box::new(move |on| seen.send(on).map_err(io::Error::other))).unwrap();
        lamp.show(Pattern::Steady);
        drop(lamp);
        let log: Vec<bool> = switched.try_iter().collect();
        assert_eq!(log.last(), Some(&false));
    }
}
