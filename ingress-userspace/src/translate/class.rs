//! IngressClasses: which are ours, and which Ingresses belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::annotation::NGINX;
use super::options::{Options, RouteOptions};
use super::order::by_age;
use super::problems::Problems;
use super::{CONTROLLER, Settings};
use crate::api::GROUP;
use crate::model::{Downstream, ObjectRef, Reason};
use crate::source::{Objects, Stored as _};

/// `kubectl` and the API server know a default class by this annotation.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How a class was named before `spec.ingressClassName`.
pub(super) const LEGACY: &str = "kubernetes.io/ingress.class";

/// An Ingress that we serve.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) ingress: Arc<Ingress>,
    pub(super) reference: ObjectRef,
    /// The class whose VIPs it gets; `None`: there is none.
    pub(super) class: Option<Arc<str>>,
    /// What its class says of all its routes.
    pub(super) options: RouteOptions,
}

/// The classes of the cluster, seen from us.
#[derive(Debug)]
pub(super) struct Classes {
    /// With our controller, the oldest first.
    pub(super) ours: Vec<Arc<IngressClass>>,
    ours_by_name: BTreeSet<Arc<str>>,
    all_by_name: BTreeSet<Arc<str>>,
    /// Ours, if it is the one that classless Ingresses get.
    default: Option<Arc<str>>,
    own: Arc<str>,
    also: BTreeSet<String>,
    watch_without_class: bool,
    /// By class: what its parameters say of its Ingresses, if they say anything.
    options: BTreeMap<Arc<str>, Options>,
}

/// Whose an Ingress is.
enum Belongs {
    Ours(Option<Arc<str>>),
    /// By the name that the operator gave us, though the class does not exist.
    OursByName,
    Others,
    /// It names a class that does not exist.
    Nobody(String),
}

fn name_of(class: &IngressClass) -> &str {
    class.metadata.name.as_deref().unwrap_or_default()
}

impl Classes {
    pub(super) fn new(objects: &Objects, settings: &Settings, problems: &mut Problems) -> Self {
        let all = by_age(&objects.ingress_classes);
        let is_ours = |class: &IngressClass| {
            class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER)
        };
        let ours: Vec<_> = all.iter().filter(|class| is_ours(class)).map(|class| Arc::clone(class)).collect();
        // As the API server's DefaultIngressClass admission does it: the newest default wins, then the first by name.
        let mut defaults: Vec<_> = all.iter().filter(|class| is_default(class)).collect();
        defaults.sort_by(|a, b| {
            let time = |class: &IngressClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            time(b).cmp(&time(a)).then_with(|| name_of(a).cmp(name_of(b)))
        });
        let winner = defaults.first();
        for class in defaults.iter().skip(1).filter(|class| is_ours(class)) {
            let winner = winner.map(|class| name_of(class)).unwrap_or_default();
            problems.add(
                &class.reference(),
                format!("metadata.annotations[{IS_DEFAULT}]"),
                Reason::Conflict,
                format!("IngressClass {winner} is the default too; it is newer, so it gets the Ingresses without a class"),
                "keep one default class",
            );
        }
        Self {
            default: winner.filter(|class| is_ours(class)).map(|class| name_of(class).into()),
            ours_by_name: ours.iter().map(|class| name_of(class).into()).collect(),
            all_by_name: all.iter().map(|class| name_of(class).into()).collect(),
            options: ours.iter().filter_map(|class| options(objects, class, problems)).collect(),
            ours,
            own: settings.ingress_class.as_str().into(),
            also: settings.also_class.iter().cloned().collect(),
            watch_without_class: settings.watch_without_class,
        }
    }

    /// Our Ingresses, the oldest first.
    pub(super) fn owned(&self, objects: &Objects, problems: &mut Problems) -> Vec<Owned> {
        by_age(&objects.ingresses).into_iter().filter_map(|ingress| self.own(ingress, problems)).collect()
    }

    /// An Ingress, if it is ours.
    pub(super) fn own(&self, ingress: &Arc<Ingress>, problems: &mut Problems) -> Option<Owned> {
        let reference = ingress.reference();
        match self.belongs(ingress) {
            Belongs::Ours(class) => {
                let said = class.as_ref().and_then(|class| self.options.get(class));
                let (ingress, options) = match said {
                    Some(said) => (with(ingress, &said.annotations), said.route),
                    None => (Arc::clone(ingress), RouteOptions::default()),
                };
                Some(Owned { ingress, reference, class, options })
            }
            Belongs::OursByName => {
                problems.add(
                    &reference,
                    class_field(ingress),
                    Reason::NotFound,
                    format!(
                        "IngressClass {} does not exist; served because --ingress-class names it",
                        self.own
                    ),
                    format!("create IngressClass {} with spec.controller {CONTROLLER}", self.own),
                );
                let (ingress, options) = (Arc::clone(ingress), RouteOptions::default());
                Some(Owned { ingress, reference, class: None, options })
            }
            Belongs::Others => None,
            Belongs::Nobody(class) => {
                problems.add(
                    &reference,
                    class_field(ingress),
                    Reason::NotFound,
                    format!("IngressClass {class} does not exist, so nobody serves this Ingress"),
                    match self.ours.first() {
                        Some(ours) => format!("create it, or name one that exists: {}", name_of(ours)),
                        None => format!("create it, with spec.controller {CONTROLLER} if we shall serve it"),
                    },
                );
                None
            }
        }
    }

    fn belongs(&self, ingress: &Ingress) -> Belongs {
        let by_field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        if let Some(name) = by_field {
            return self.named(name).unwrap_or_else(|| {
                if self.all_by_name.contains(name) {
                    Belongs::Others
                } else {
                    Belongs::Nobody(name.to_owned())
                }
            });
        }
        if let Some(name) = legacy_class(ingress) {
            // Controllers that predate IngressClass need no object behind this annotation: not ours is somebody's.
            return self.named(name).unwrap_or(Belongs::Others);
        }
        if let Some(default) = &self.default {
            return Belongs::Ours(Some(Arc::clone(default)));
        }
        if self.watch_without_class {
            return Belongs::Ours(self.ours_by_name.get(&self.own).cloned());
        }
        Belongs::Others
    }

    /// How clients of a class's addresses are understood; `None`: as everywhere.
    pub(super) fn downstream(&self, class: &str) -> Option<Arc<Downstream>> {
        self.options.get(class)?.downstream.clone()
    }

    /// Whether the class of this name is ours, or served by us as well.
    fn named(&self, name: &str) -> Option<Belongs> {
        if let Some(class) = self.ours_by_name.get(name) {
            return Some(Belongs::Ours(Some(Arc::clone(class))));
        }
        if self.also.contains(name) {
            return Some(Belongs::Ours(self.ours_by_name.get(&self.own).cloned()));
        }
        // A class of our name but with somebody else's controller is theirs.
        (*name == *self.own && !self.all_by_name.contains(name)).then_some(Belongs::OursByName)
    }
}

/// The class's name, and what its parameters say of its Ingresses.
fn options(objects: &Objects, class: &IngressClass, problems: &mut Problems) -> Option<(Arc<str>, Options)> {
    let named = class.spec.as_ref()?.parameters.as_ref()?;
    let parameters = objects.class_parameters.get("", &named.name)?;
    if named.api_group.as_deref() != Some(GROUP) || named.kind != "IngressClassParameters" {
        return None;
    }
    let mut options = Options::read(&parameters.reference(), &parameters.spec.options, objects, problems);
    // Annotations of the class are nearer to its Ingresses than options.
    options.annotations.extend(parameters.spec.annotations.clone());
    Some((name_of(class).into(), options))
}

/// The Ingress with these annotations where it has none of that name.
fn with(ingress: &Arc<Ingress>, defaults: &BTreeMap<String, String>) -> Arc<Ingress> {
    if defaults.is_empty() {
        return Arc::clone(ingress);
    }
    let mut ingress = Ingress::clone(ingress);
    let annotations = ingress.metadata.annotations.get_or_insert_default();
    for (name, value) in defaults {
        // Others say whose an Ingress is, and where.
        if name.starts_with(NGINX) {
            annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    Arc::new(ingress)
}

fn is_default(class: &IngressClass) -> bool {
    class
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(IS_DEFAULT))
        .is_some_and(|value| value == "true")
}

fn legacy_class(ingress: &Ingress) -> Option<&str> {
    ingress.metadata.annotations.as_ref()?.get(LEGACY).map(String::as_str).filter(|name| !name.is_empty())
}

fn class_field(ingress: &Ingress) -> String {
    if ingress.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some()) {
        "spec.ingressClassName".into()
    } else {
        format!("metadata.annotations[{LEGACY}]")
    }
}
