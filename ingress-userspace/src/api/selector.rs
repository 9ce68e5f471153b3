//! Kubernetes' label selectors in our own resources: their schema, which the API server checks.

use schemars::{Schema, SchemaGenerator};

/// A list of `LabelSelector`s, of which one has to match. With limits, so that the cost of the rule has one too.
pub(super) fn selectors(_: &mut SchemaGenerator) -> Schema {
    let text = schemars::json_schema!({ "type": "string", "maxLength": 63 });
    let key = schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 317 });
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "properties": {
                "matchLabels": {
                    "description": "Labels with exactly these values.",
                    "type": "object",
                    "maxProperties": 32,
                    "additionalProperties": text,
                },
                "matchExpressions": {
                    "description": "All of these have to hold as well.",
                    "type": "array",
                    "maxItems": 16,
                    "items": {
                        "type": "object",
                        "required": ["key", "operator"],
                        "properties": {
                            "key": key,
                            "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                            "values": { "type": "array", "maxItems": 64, "items": text },
                        },
                        "x-kubernetes-validations": [{
                            "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                            "message": "In and NotIn need values; Exists and DoesNotExist have none",
                        }],
                    },
                },
            },
        },
    })
}
