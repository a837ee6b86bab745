//! News for websocket clients, in the order in which it happened (`spec/api.md` 11.5).

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::auth::Epoch;

/// Messages a slow socket may be behind before it is dropped.
pub(crate) const QUEUE: usize = 256;

/// One piece of news.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// JSON text for every authenticated socket.
    Text(Arc<str>),
    /// All tokens from before this epoch are dead: sockets authenticated with one must ask again.
    KeysReset(Epoch),
}

/// Where news is published and subscribed to.
#[derive(Debug)]
pub(crate) struct Hub(broadcast::Sender<News>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }

    /// Sends to whoever listens; nobody listening is fine.
    pub(crate) fn publish(&self, news: News) {
        let _ = self.0.send(news);
    }

    /// Publishes a JSON object.
    pub(crate) fn publish_json(&self, value: &serde_json::Value) {
        self.publish(News::Text(value.to_string().into()));
    }

    /// Everything published from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<News> {
        self.0.subscribe()
    }
}
