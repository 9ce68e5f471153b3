//! Lets changes flow: from the source through the translation to the data plane, and to whoever writes statuses.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use super::daemon::Daemon;
use super::{Change, next_change};
use crate::source;
use crate::status::{self, Published};
use crate::translate::Translator;

/// What goes from the source to the data plane, and to whoever reports it.
pub(super) struct Following {
    pub(super) objects: source::Receiver,
    pub(super) translator: Translator,
    pub(super) reporting: Option<(watch::Sender<Published>, Reporter)>,
}

impl Following {
    /// Until the source ends.
    pub(super) async fn follow(&mut self, daemon: &Daemon) -> anyhow::Result<Infallible> {
        loop {
            let change = next_change(&mut self.objects, &mut self.translator).await?;
            daemon.publish(&change);
            if let Some((published, reporter)) = &mut self.reporting {
                published.send_replace(change.published());
                reporter.start_with(&change);
            }
        }
    }
}

/// Who writes statuses and Events, once the objects are those of the API server: what was remembered may lack Ingresses,
/// and those would lose their status.
pub(super) struct Reporter {
    waiting: Option<(kube::Client, status::Config, watch::Receiver<Published>)>,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Reporter {
    pub(super) fn new(
        client: Option<kube::Client>,
        node: &str,
        published: watch::Receiver<Published>,
    ) -> Self {
        let waiting = client.map(|client| (client, status::Config::new(node), published));
        Self { waiting, running: None }
    }

    pub(super) fn start_with(&mut self, change: &Change) {
        if !change.is_remembered
            && let Some((client, config, published)) = self.waiting.take()
        {
            self.running = Some(tokio::spawn(status::run(client, config, published)));
        }
    }

    /// It gives the Lease back, so that another node writes at once; the API server may be away.
    pub(super) async fn finish(self) {
        drop(self.waiting);
        if let Some(running) = self.running {
            let _ = tokio::time::timeout(Duration::from_secs(2), running).await;
        }
    }
}
