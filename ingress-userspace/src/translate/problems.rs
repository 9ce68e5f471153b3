//! Collects problems while the rest goes on. Used by every file of `translate`.

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
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
