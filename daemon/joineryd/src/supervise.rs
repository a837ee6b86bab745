//! The tasks of the daemon: each has a name, and none ends unnoticed.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// A task ended although nobody asked for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TaskDied {
    /// It returned.
    #[error("task {0} ended")]
    Ended(&'static str),
    /// It returned an error.
    #[error("task {0} failed: {1}")]
    Failed(&'static str, #[source] std::io::Error),
    /// It panicked; the log has where.
    #[error("task {0} panicked")]
    Panicked(&'static str),
}

/// Every long-running task of the process and the token that ends them.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    tasks: JoinSet<std::io::Result<()>>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Supervisor {
    /// The token that tasks end by.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task that is to run until [`Self::stop`] is cancelled.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = std::io::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends, which none should do yet. Waits for ever when there is none.
    pub(crate) async fn first_death(&mut self) -> TaskDied {
        match self.tasks.join_next_with_id().await {
            Some(outcome) => self.describe(outcome),
            None => std::future::pending().await,
        }
    }

    /// Asks all tasks to end and waits for them; says which ones failed.
    pub(crate) async fn drain(&mut self) {
        self.stop.cancel();
        while let Some(outcome) = self.tasks.join_next_with_id().await {
            match self.describe(outcome) {
                TaskDied::Ended(task) => tracing::debug!(task, "task ended"),
                died => tracing::error!(error = %died, "task did not end well"),
            }
        }
    }

    fn describe(&mut self, outcome: Result<(Id, std::io::Result<()>), JoinError>) -> TaskDied {
        let id = outcome.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or("unnamed");
        match outcome {
            Ok((_, Ok(()))) => TaskDied::Ended(name),
            Ok((_, Err(error))) => TaskDied::Failed(name, error),
            Err(_) => TaskDied::Panicked(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_the_task_that_ended_failed_or_panicked() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("waits", std::future::pending());
        supervisor.spawn("ends", async { Ok(()) });
        assert!(matches!(supervisor.first_death().await, TaskDied::Ended("ends")));
        supervisor.spawn("fails", async { Err(std::io::ErrorKind::BrokenPipe.into()) });
        assert!(matches!(supervisor.first_death().await, TaskDied::Failed("fails", _)));
        supervisor.spawn("panics", async { std::panic::resume_unwind(Box::new("planned")) });
        assert!(matches!(supervisor.first_death().await, TaskDied::Panicked("panics")));
    }

    #[tokio::test]
    async fn draining_waits_for_tasks_that_heed_the_token() {
        let mut supervisor = Supervisor::default();
        let stop = supervisor.stop();
        supervisor.spawn("heeds", async move {
            stop.cancelled().await;
            Ok(())
        });
        supervisor.drain().await;
    }
}
