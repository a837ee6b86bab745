//! Runs `joinery-board --backend auto` on a GPIO chip that the kernel simulates (gpio-sim, mounted configfs, root): the
//! button's line is pulled down and up, the light's line is read. Give it the path of `joinery-board`.
//!
//! `board/gpio-sim.sh` runs it in an emulated machine whose kernel has gpio-sim. There is no display there, so that the
//! other half of the rule is seen as well: nothing can be approved that nobody can see.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Longest wait for anything, in an emulated machine without help of the processor.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let program = std::env::args().nth(1).context("gpio_sim PATH-OF-JOINERY-BOARD")?;
    let chip = Chip::make()?;
    let socket = std::env::temp_dir().join("joinery-gpio-sim.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let mut board = Command::new(&program)
        .arg("--socket")
        .arg(&socket)
        .args(["--backend", "auto", "--verbose"])
        .spawn()?;
    let outcome = story(&chip, &listener, &mut board);
    let _ = board.kill();
    let _ = board.wait();
    outcome?;
    ensure!(!chip.lit()?, "the light is on after the end");
    println!("gpio-sim: ok");
    Ok(())
}

fn story(chip: &Chip, listener: &UnixListener, board: &mut Child) -> anyhow::Result<()> {
    let daemon = Daemon::accept(listener)?;
    let hello = daemon.hear(PATIENCE)?.context("the board says nothing")?;
    ensure!(hello["type"] == "hello" && hello["panel"] == "none", "{hello}");

    daemon.say(include_str!("../tests/link/locked.json"))?;
    chip.wait_for_light("locked", |course| course.iter().all(|lit| !lit))?;
    daemon.say(include_str!("../tests/link/idle.json"))?;
    chip.wait_for_light("idle", |course| course.iter().all(|lit| *lit))?;
    daemon.say(include_str!("../tests/link/taker.json"))?;
    chip.wait_for_light("taker", |course| switches(course) > 8)?;
    daemon.say(include_str!("../tests/link/unlock.json"))?;
    chip.wait_for_light("asking", |course| (2..=8).contains(&switches(course)))?;
    println!("the light follows the state");

    chip.press(Duration::from_millis(200))?;
    if let Some(line) = daemon.hear(Duration::from_secs(3))? {
        bail!("said without a display: {line}");
    }
    println!("nothing is approved without a display");

    chip.press(Duration::from_millis(3300))?;
    let line = daemon.hear(PATIENCE)?.context("the hold was not heard")?;
    ensure!(line["type"] == "hold" && line["pending"] == "unlock-7f3a", "{line}");
    println!("a hold locks");

    daemon.say(include_str!("../tests/link/idle.json"))?;
    // Bounces: forty edges in less than the time that counts.
    for _ in 0..20 {
        chip.press(Duration::from_micros(300))?;
    }
    chip.press(Duration::from_millis(10_500))?;
    let line = daemon.hear(PATIENCE)?.context("the hold was not heard")?;
    ensure!(line["type"] == "hold" && line.get("pending").is_none(), "{line}");
    let line = daemon.hear(PATIENCE)?.context("the long hold was not heard")?;
    ensure!(line["type"] == "shutdown", "{line}");
    println!("a long hold switches off");

    daemon.say(include_str!("../tests/link/idle.json"))?;
    chip.wait_for_light("idle", |course| course.iter().all(|lit| *lit))?;
    let pid = i32::try_from(board.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    ensure!(board.wait()?.success(), "an orderly end");
    Ok(())
}

fn switches(course: &[bool]) -> usize {
    course.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// A simulated chip that looks like a Raspberry Pi's.
struct Chip {
    lines: PathBuf,
}

impl Chip {
    fn make() -> anyhow::Result<Self> {
        let config = Path::new("/sys/kernel/config/gpio-sim/joinery");
        let bank = config.join("bank0");
        fs::create_dir_all(&bank).context("configfs of gpio-sim")?;
        fs::write(bank.join("num_lines"), "32")?;
        fs::write(bank.join("label"), "pinctrl-bcm2835")?;
        fs::write(config.join("live"), "1")?;
        let read = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let device = read(config.join("dev_name"))?;
        let name = read(bank.join("chip_name"))?;
        println!("{name} of {device}");
        Ok(Self { lines: Path::new("/sys/devices/platform").join(device).join(name) })
    }

    /// The button connects its line to ground.
    fn press(&self, length: Duration) -> anyhow::Result<()> {
        let pull = self.lines.join("sim_gpio17/pull");
        fs::write(&pull, "pull-down")?;
        sleep(length);
        fs::write(&pull, "pull-up")?;
        Ok(())
    }

    fn lit(&self) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(self.lines.join("sim_gpio27/value"))?.trim() == "1")
    }

    /// Watches the light for two seconds at a time until it does what it should.
    fn wait_for_light(&self, name: &str, right: impl Fn(&[bool]) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (begin, mut course) = (Instant::now(), Vec::new());
            while begin.elapsed() < Duration::from_secs(2) {
                course.push(self.lit()?);
                sleep(Duration::from_millis(3));
            }
            if right(&course) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "the light of {name} switches {} times in 2 s",
                switches(&course)
            );
        }
    }
}

/// Says the last thing every second.
struct Daemon {
    say: Sender<String>,
    lines: Receiver<Value>,
}

impl Daemon {
    fn accept(listener: &UnixListener) -> anyhow::Result<Self> {
        let (stream, _) = listener.accept()?;
        let (tell, lines) = channel();
        let reader = BufReader::new(stream.try_clone()?).lines();
        std::thread::spawn(move || {
            for line in reader.map_while(Result::ok) {
                println!("board: {line}");
                let _ = tell.send(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        let (say, said) = channel();
        std::thread::spawn(move || repeat(stream, &said));
        Ok(Self { say, lines })
    }

    fn say(&self, line: &str) -> anyhow::Result<()> {
        Ok(self.say.send(line.to_owned())?)
    }

    fn hear(&self, within: Duration) -> anyhow::Result<Option<Value>> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the board has closed the connection"),
        }
    }
}

fn repeat(mut stream: UnixStream, said: &Receiver<String>) {
    let mut last = String::new();
    loop {
        match said.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => last = line,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if stream.write_all(last.as_bytes()).is_err() {
            return;
        }
    }
}
