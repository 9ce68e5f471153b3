//! What the statuses of our custom resources are made of. Written by `status::own`, from what `translate` says.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Whether the object does what it shall, as `kubectl wait --for=condition=Ready` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`.
    pub r#type: String,
    /// `True` or `False`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, and what to do.
    #[serde(default)]
    pub message: String,
    /// When `status` changed last.
    #[schemars(schema_with = "time")]
    pub last_transition_time: String,
}

impl Condition {
    /// The condition `Ready` at the time `now` (seconds since 1970). If it was the same before, it keeps its time.
    pub fn ready(is: bool, reason: &str, message: String, before: &[Self], now: i64) -> Self {
        let status = if is { "True" } else { "False" };
        let before =
            before.iter().find(|condition| condition.r#type == "Ready" && condition.status == status);
        let now = || jiff::Timestamp::from_second(now).unwrap_or_default().to_string();
        Self {
            r#type: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: before.map_or_else(now, |before| before.last_transition_time.clone()),
        }
    }
}

fn time(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "string", "format": "date-time" })
}

/// Items by their type, so that other controllers may have conditions here too.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Condition>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_the_time_at_which_it_became_true() {
        let first = Condition::ready(true, "Allocated", String::new(), &[], 0);
        assert_eq!(first.last_transition_time, "1970-01-01T00:00:00Z");
        let same =
            Condition::ready(true, "Allocated", "other words".into(), std::slice::from_ref(&first), 60);
        assert_eq!(same.last_transition_time, first.last_transition_time);
        let other = Condition::ready(false, "Exhausted", String::new(), &[first], 60);
        assert_eq!((&*other.status, &*other.last_transition_time), ("False", "1970-01-01T00:01:00Z"));
    }
}
