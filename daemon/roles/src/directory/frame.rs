//! What is sent: encoded once, shared by all recipients.

use std::sync::Arc;

use joinery_proto::onion::envelope::{Envelope, MessageType};

/// An encoded line with its end. Cloning it copies no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Arc<[u8]>,
    directed: bool,
}

impl Frame {
    /// For everybody. `None` when it is longer than any peer takes.
    pub(super) fn shared(kind: MessageType, line: String) -> Option<Self> {
        Self::new(kind, line, false)
    }

    /// For one peer.
    pub(super) fn directed(kind: MessageType, line: String) -> Option<Self> {
        Self::new(kind, line, true)
    }

    fn new(kind: MessageType, line: String, directed: bool) -> Option<Self> {
        let text = Envelope::new(kind, line).encode().ok()?;
        Some(Self { bytes: text.into_bytes().into(), directed })
    }

    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether only one peer gets it.
    #[must_use]
    pub const fn is_directed(&self) -> bool {
        self.directed
    }
}

/// Frames that a driver has handed over to the network, or that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// All of them.
    pub frames: u32,
    /// Those for one peer alone.
    pub directed: u32,
    /// Bytes of those.
    pub directed_bytes: usize,
}

impl Load {
    /// Adds a frame.
    pub fn add(&mut self, frame: &Frame) {
        self.frames = self.frames.saturating_add(1);
        if frame.directed {
            self.directed = self.directed.saturating_add(1);
            self.directed_bytes = self.directed_bytes.saturating_add(frame.bytes.len());
        }
    }

    /// Takes away what another load has.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.frames = self.frames.saturating_sub(other.frames);
        self.directed = self.directed.saturating_sub(other.directed);
        self.directed_bytes = self.directed_bytes.saturating_sub(other.directed_bytes);
    }
}
