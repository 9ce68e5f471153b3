//! How long changes took until they were live, by how much had to be translated: kept by the daemon, shown by `status`
//! and `/metrics`. Plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::l7::stats::{Buckets, bucket_of};
use crate::model::Scope;

/// All changes since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Changes {
    /// Of scope `Everything`.
    #[serde(default)]
    pub everything: ChangeTimes,
    /// Of scope `Routes`.
    #[serde(default)]
    pub routes: ChangeTimes,
    /// Of scope `Endpoints`.
    #[serde(default)]
    pub endpoints: ChangeTimes,
}

/// The changes of one scope.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChangeTimes {
    /// By time, one for each of `l7::stats::LATENCY_BOUNDS` (not cumulative) and one for the rest.
    pub times: Buckets<u64>,
    /// The sum of the times, in seconds.
    pub seconds: f64,
}

impl Changes {
    /// Counts one that took so long, from when the source heard of it until it was live.
    pub fn add(&mut self, scope: Scope, took: Duration) {
        let of = match scope {
            Scope::Everything => &mut self.everything,
            Scope::Routes => &mut self.routes,
            Scope::Endpoints => &mut self.endpoints,
        };
        of.times[bucket_of(took)] += 1;
        of.seconds += took.as_secs_f64();
    }

    /// All, each with its name.
    pub fn by_scope(&self) -> [(&'static str, &ChangeTimes); 3] {
        [("everything", &self.everything), ("routes", &self.routes), ("endpoints", &self.endpoints)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_scope_and_time() {
        let mut changes = Changes::default();
        changes.add(Scope::Endpoints, Duration::from_millis(1));
        changes.add(Scope::Endpoints, Duration::from_millis(7));
        changes.add(Scope::Everything, Duration::from_mins(1));
        assert_eq!(changes.endpoints.times[..3], [1, 0, 1]);
        assert_eq!(changes.everything.times.last(), Some(&1));
        assert!((changes.endpoints.seconds - 0.008).abs() < 1e-9);
    }
}
