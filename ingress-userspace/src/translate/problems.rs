//! Collects problems while the rest goes on. Used by every file of `translate`.

use std::cmp::Ordering;

use crate::model::{ObjectRef, Problem, Reason};

#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub(super) fn add(
        &mut self,
        object: &ObjectRef,
        field: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Problem {
            object: object.clone(),
            field: field.into(),
            reason,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// By object and field, each once.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.0.sort_by(|a, b| {
            a.object.cmp(&b.object).then_with(|| by_index(&a.field, &b.field)).then_with(|| a.cmp(b))
        });
        self.0.dedup();
        self.0
    }
}

/// Orders fields as a person counts: `paths[2]` before `paths[10]`.
fn by_index(a: &str, b: &str) -> Ordering {
    let part = |text: &str| (text.parse::<u64>().ok(), text.to_owned());
    a.split(['[', ']']).map(part).cmp(b.split(['[', ']']).map(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_numbers() {
        let mut fields =
            ["spec.rules[10].host", "spec.rules[2].http.paths[11]", "spec.rules[2].http.paths[3]", "spec"];
        fields.sort_by(|a, b| by_index(a, b));
        assert_eq!(
            fields,
            ["spec", "spec.rules[2].http.paths[3]", "spec.rules[2].http.paths[11]", "spec.rules[10].host"]
        );
    }
}
