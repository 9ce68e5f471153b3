//! What is known of each file, and which version of each object is in use: where a document is broken, the last good
//! one. Called by `directory`. Reads the files that have changed.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::manifest::{self, Document, Fault};
use super::super::{Object, Objects};
use super::scan::{Found, Signature};
use crate::model::{Kind, ObjectRef, Problem, Reason};

/// Larger files are refused: nobody writes such manifests, and they are held in memory.
const MAX_SIZE: u64 = 64 << 20;

/// All files by path; where two have the same object, the first keeps it.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<PathBuf, File>);

#[derive(Debug, Default)]
struct File {
    signature: Option<Signature>,
    /// In the order of the file, with those that are kept from an older version at the end.
    objects: Vec<Object>,
    problems: Vec<Problem>,
}

impl Files {
    /// Reads what has changed since the last time; whether anything has.
    pub(super) fn update(&mut self, found: &Found) -> bool {
        let before = self.0.len();
        // What is under a directory that cannot be listed now is not gone.
        let hidden = |path: &Path| {
            found.files.iter().any(|(other, seen)| seen.is_err() && path != other && path.starts_with(other))
        };
        self.0.retain(|path, _| found.files.contains_key(path) || hidden(path));
        let mut changed = self.0.len() != before;
        for (path, seen) in &found.files {
            let file = self.0.entry(path.clone()).or_default();
            let read = match seen {
                Err(error) => Err(error.clone()),
                Ok(signature) if file.signature == Some(*signature) && !signature.racy => continue,
                Ok(signature) => {
                    file.signature = Some(*signature);
                    read(path)
                }
            };
            changed |= match read {
                Ok(text) => file.take(path, manifest::parse(&text)),
                Err(error) => file.unreadable(path, &error),
            };
        }
        changed
    }

    /// The objects in use.
    pub(super) fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        let mut problems = Vec::new();
        let mut owners: BTreeMap<ObjectRef, &Path> = BTreeMap::new();
        for (path, file) in &self.0 {
            problems.extend(file.problems.iter().cloned());
            for object in &file.objects {
                let reference = object.reference();
                if let Some(owner) = owners.get(&reference) {
                    problems.push(Problem {
                        message: format!("also defined in {}, whose version is used", owner.display()),
                        hint: "keep one of the two".into(),
                        object: reference,
                        field: path.display().to_string(),
                        reason: Reason::Conflict,
                    });
                } else {
                    owners.insert(reference, path);
                    objects.insert(object.clone());
                }
            }
        }
        objects.problems = Arc::new(problems);
        objects
    }
}

impl File {
    /// Takes the file's new content; whether it differs.
    fn take(&mut self, path: &Path, documents: Vec<Document>) -> bool {
        let mut objects = Vec::new();
        let mut faults: Vec<(usize, Fault)> = Vec::new();
        for document in documents {
            objects.extend(document.objects);
            faults.extend(document.faults.into_iter().map(|fault| (document.number, fault)));
        }
        let mut present: HashSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        // A document whose head cannot be read could be any of the objects that are missing now: keep them all until
        // the file is in order.
        let any = faults.iter().any(|(_, fault)| fault.object.is_none());
        let broken: HashSet<&ObjectRef> =
            faults.iter().filter_map(|(_, fault)| fault.object.as_ref()).collect();
        let mut kept = HashSet::new();
        for old in &self.objects {
            let reference = old.reference();
            if (any || broken.contains(&reference)) && present.insert(reference.clone()) {
                kept.insert(reference);
                objects.push(old.clone());
            }
        }
        let problems = faults.iter().map(|(number, fault)| problem(path, *number, fault, &kept)).collect();
        self.exchange(objects, problems)
    }

    /// Keeps the content; whether that it cannot be read is news.
    fn unreadable(&mut self, path: &Path, error: &str) -> bool {
        self.signature = None;
        let problem = Problem {
            object: file(path),
            field: "file".into(),
            reason: Reason::Malformed,
            message: match self.objects.len() {
                0 => format!("cannot be read: {error}"),
                count => format!("cannot be read: {error}; its {count} objects stay as they were"),
            },
            hint: "make it a readable file of UTF-8 text".into(),
        };
        let objects = std::mem::take(&mut self.objects);
        self.exchange(objects, vec![problem])
    }

    fn exchange(&mut self, objects: Vec<Object>, problems: Vec<Problem>) -> bool {
        let same = self.problems == problems
            && self.objects.len() == objects.len()
            && self.objects.iter().zip(&objects).all(|(old, new)| old == new);
        if !same {
            self.objects = objects;
            self.problems = problems;
        }
        !same
    }
}

fn problem(path: &Path, number: usize, fault: &Fault, kept: &HashSet<ObjectRef>) -> Problem {
    let consequence = match &fault.object {
        Some(object) if kept.contains(object) => "; its last good version stays in use",
        Some(_) => "; it is left out",
        None if kept.is_empty() => "; the document is left out",
        None => "; what the file had before stays in use",
    };
    let place = format!("document {number}, line {}", fault.line);
    // Whose head could be read has a name; the place goes with it all the same, since it is what must be edited.
    let (object, field) = match &fault.object {
        Some(object) => (object.clone(), format!("{} {place}", path.display())),
        None => (file(path), place),
    };
    Problem {
        object,
        field,
        reason: Reason::Malformed,
        message: format!("{}{consequence}", fault.message),
        hint: fault.hint.to_owned(),
    }
}

fn file(path: &Path) -> ObjectRef {
    ObjectRef::new(Kind::File, "", path.display().to_string())
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SIZE {
        return Err(format!("{size} bytes are more than {MAX_SIZE}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
