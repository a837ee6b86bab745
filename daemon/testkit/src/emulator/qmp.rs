//! Questions to the emulator itself (QEMU's machine protocol, JSON lines over a Unix socket).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait::PATIENCE;

/// A connection to the emulator's monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes a fresh connection through its greeting.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self { lines: BufReader::new(stream) };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            bail!("the emulator greets with {greeting}");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.lines.get_mut(), "{request}")?;
        loop {
            let mut answer = self.line()?;
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
            if answer.get("error").is_some() {
                bail!("the emulator refuses {command}: {answer}");
            }
            // Anything else is an event.
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("the emulator's monitor")? == 0 {
            bail!("the emulator has closed its monitor");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// The port of the host that leads to a port of the machine, from what `info usernet` prints: a table whose columns
/// are protocol and state, descriptor, source address and port, destination address and port, and two queues.
pub(super) fn forwarded_port(table: &str, inside: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns[..] {
            ["TCP[HOST_FORWARD]", _, _, outside, _, port, ..] if port.parse() == Ok(inside) => {
                outside.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table_of_forwarded_ports() {
        let table = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n\
             \x20 TCP[ESTABLISHED]   16       127.0.0.1  7001       10.0.2.15 28183     0     0\r\n\
             \x20 TCP[HOST_FORWARD]  15       127.0.0.1 40123       10.0.2.15 28183     0     0\r\n\
             \x20 TCP[HOST_FORWARD]  14       127.0.0.1 40124       10.0.2.15 28283     0     0\r\n";
        assert_eq!(forwarded_port(table, 28183), Some(40123));
        assert_eq!(forwarded_port(table, 28283), Some(40124));
        assert_eq!(forwarded_port(table, 7001), None);
    }
}
