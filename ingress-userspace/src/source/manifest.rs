//! Manifests to objects: splits a file into documents and parses each on its own, so that a broken one costs only
//! itself. Called by `directory`. Pure: text in, documents out.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{EndpointSlice, Object};
use crate::api::{self, AddressPool, IngressClassParameters};
use crate::model::{Kind, ObjectRef};

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    /// Counted from 1, empty ones included, as people count the `---`.
    pub(super) number: usize,
    /// What was in it: several objects in a `List`, none if it is empty or of a kind that we don't read.
    pub(super) objects: Vec<Object>,
    /// What could not be read in it.
    pub(super) faults: Vec<Fault>,
}

/// Why a document, or an item of a `List`, could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The object, where its head could be read.
    pub(super) object: Option<ObjectRef>,
    /// Line in the file, counted from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: &'static str,
}

/// Parses a YAML or JSON file (JSON is YAML).
pub(super) fn parse(text: &str) -> Vec<Document> {
    // The byte order mark of some editors.
    split(text.strip_prefix('\u{feff}').unwrap_or(text))
        .enumerate()
        .map(|(index, (first_line, body))| {
            let mut document = Document { number: index + 1, objects: Vec::new(), faults: Vec::new() };
            parse_document(body, first_line, &mut document);
            document
        })
        .collect()
}

/// Cuts at the document markers. A line that begins with `---` ends a document wherever it stands, even inside a
/// scalar (YAML 1.2.2, `c-forbidden`), so this needs no parser. Yields the number of the first line, from 1.
fn split(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut starts = vec![(1, 0)];
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(1u64..) {
        if let Some(rest) = line.strip_prefix("---")
            && rest.chars().next().is_none_or(char::is_whitespace)
        {
            // What stands before the first marker is a document only if there is more than comments in it.
            if starts.len() == 1 && is_blank(&text[..offset]) {
                starts.clear();
            }
            starts.push((number, offset));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, start)| *start).chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(move |((line, start), end)| (line, &text[start..end]))
}

/// Nothing but comments, directives and markers.
fn is_blank(body: &str) -> bool {
    body.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
    })
}

/// As much of an object as says what it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeadMetadata,
    #[serde(default)]
    items: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

fn parse_document(body: &str, first_line: u64, document: &mut Document) {
    if is_blank(body) {
        return;
    }
    let line_of =
        |error: &serde_saphyr::Error| first_line + error.location().map_or(1, |at| at.line()).max(1) - 1;
    let head: Head = match read(body) {
        Ok(head) => head,
        Err(error) => {
            document.faults.push(Fault {
                object: None,
                line: line_of(&error),
                message: one_line(&error),
                hint: "correct the YAML or JSON",
            });
            return;
        }
    };
    if head.items.is_some() && head.kind.ends_with("List") {
        match read::<List>(body) {
            Ok(list) => {
                for (index, item) in list.items.into_iter().enumerate() {
                    parse_item(item, index, first_line, document);
                }
            }
            Err(error) => document.faults.push(Fault {
                object: None,
                line: line_of(&error),
                message: one_line(&error),
                hint: "correct the List",
            }),
        }
        return;
    }
    let found = object(&head, Body::Text(body)).map_err(|fault| match fault {
        Refused::Yaml(error) => {
            (line_of(&error), one_line(&error), "correct the field: `kubectl explain` tells its type")
        }
        Refused::Json(error) => {
            (first_line, error.to_string(), "correct the field: `kubectl explain` tells its type")
        }
        Refused::Head(message, hint) => (first_line, message, hint),
    });
    match found {
        Ok(object) => document.objects.extend(object),
        Err((line, message, hint)) => {
            document.faults.push(Fault { object: reference(&head), line, message, hint });
        }
    }
}

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<serde_json::Value>,
}

fn parse_item(item: serde_json::Value, index: usize, line: u64, document: &mut Document) {
    let fault =
        |object, message, hint| Fault { object, line, message: format!("items[{index}]: {message}"), hint };
    let head = match Head::deserialize(&item) {
        Ok(head) => head,
        Err(error) => {
            document.faults.push(fault(None, error.to_string(), "correct the item"));
            return;
        }
    };
    match object(&head, Body::Value(item)) {
        Ok(object) => document.objects.extend(object),
        Err(refused) => {
            let (message, hint) = match refused {
                Refused::Yaml(error) => (one_line(&error), "correct the item"),
                Refused::Json(error) => (error.to_string(), "correct the item"),
                Refused::Head(message, hint) => (message, hint),
            };
            document.faults.push(fault(reference(&head), message, hint));
        }
    }
}

/// A document's text, or an item of a `List`.
enum Body<'a> {
    Text(&'a str),
    Value(serde_json::Value),
}

enum Refused {
    Yaml(serde_saphyr::Error),
    Json(serde_json::Error),
    Head(String, &'static str),
}

impl Body<'_> {
    fn typed<T: DeserializeOwned>(self) -> Result<T, Refused> {
        match self {
            Body::Text(text) => read(text).map_err(Refused::Yaml),
            Body::Value(value) => serde_json::from_value(value).map_err(Refused::Json),
        }
    }
}

/// The kinds that we read: their API version and whether they live in a namespace.
fn known(kind: &str) -> Option<(Kind, &'static str, bool)> {
    Some(match kind {
        "Ingress" => (Kind::Ingress, "networking.k8s.io/v1", true),
        "IngressClass" => (Kind::IngressClass, "networking.k8s.io/v1", false),
        "Service" => (Kind::Service, "v1", true),
        "EndpointSlice" => (Kind::EndpointSlice, "discovery.k8s.io/v1", true),
        "Secret" => (Kind::Secret, "v1", true),
        "ConfigMap" => (Kind::ConfigMap, "v1", true),
        "Namespace" => (Kind::Namespace, "v1", false),
        "Node" => (Kind::Node, "v1", false),
        "AddressPool" => (Kind::AddressPool, api::API_VERSION, false),
        "IngressClassParameters" => (Kind::IngressClassParameters, api::API_VERSION, false),
        _ => return None,
    })
}

fn reference(head: &Head) -> Option<ObjectRef> {
    let (kind, _, namespaced) = known(&head.kind)?;
    let name = head.metadata.name.as_deref().filter(|name| !name.is_empty())?;
    let namespace = if namespaced { head.metadata.namespace.as_deref().unwrap_or("default") } else { "" };
    Some(ObjectRef::new(kind, namespace, name))
}

/// The typed object; `None`: of a kind that we don't read.
fn object(head: &Head, body: Body<'_>) -> Result<Option<Object>, Refused> {
    if head.kind.is_empty() || head.api_version.is_empty() {
        let field = if head.kind.is_empty() { "kind" } else { "apiVersion" };
        return Err(Refused::Head(
            format!("{field} is missing"),
            "every manifest needs `apiVersion` and `kind`",
        ));
    }
    let Some((kind, api_version, namespaced)) = known(&head.kind) else {
        tracing::debug!(kind = head.kind, name = head.metadata.name, "not a kind that we read");
        return Ok(None);
    };
    if head.api_version != api_version {
        // Another group may have a kind of the same name (Knative's Service, say): none of our business. A version of
        // our group that we don't know is.
        let group =
            |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        let retired = kind == Kind::Ingress && group(&head.api_version) == "extensions";
        if group(&head.api_version) != group(api_version) && !retired {
            tracing::debug!(kind = head.kind, api_version = head.api_version, "not a kind that we read");
            return Ok(None);
        }
        return Err(Refused::Head(
            format!("apiVersion {} of {kind} is not one that we read", head.api_version),
            match kind {
                Kind::Ingress | Kind::IngressClass => "use networking.k8s.io/v1",
                Kind::EndpointSlice => "use discovery.k8s.io/v1",
                Kind::AddressPool | Kind::IngressClassParameters => "use xdp-ingress.io/v1alpha1",
                _ => "use v1",
            },
        ));
    }
    if reference(head).is_none() {
        return Err(Refused::Head("metadata.name is missing".into(), "give the object a name"));
    }
    macro_rules! typed {
        ($variant:ident) => {{
            let mut object: $variant = body.typed()?;
            place(&mut object.metadata, namespaced);
            Object::$variant(Arc::new(object))
        }};
    }
    Ok(Some(match kind {
        Kind::Ingress => typed!(Ingress),
        Kind::IngressClass => typed!(IngressClass),
        Kind::Service => typed!(Service),
        Kind::EndpointSlice => typed!(EndpointSlice),
        Kind::ConfigMap => typed!(ConfigMap),
        Kind::Namespace => typed!(Namespace),
        Kind::Node => typed!(Node),
        Kind::AddressPool => typed!(AddressPool),
        Kind::IngressClassParameters => typed!(IngressClassParameters),
        Kind::Secret => {
            let mut secret: Secret = body.typed()?;
            place(&mut secret.metadata, namespaced);
            // As the API server does it on writing.
            for (key, value) in secret.string_data.take().into_iter().flatten() {
                let value = ByteString(value.into_bytes());
                secret.data.get_or_insert_default().insert(key, value);
            }
            Object::Secret(Arc::new(secret))
        }
        Kind::File => return Ok(None),
    }))
}

/// As the API server does it on writing: objects without a namespace are in `default`, cluster-wide ones in none.
fn place(metadata: &mut ObjectMeta, namespaced: bool) {
    if !namespaced {
        metadata.namespace = None;
    } else if metadata.namespace.as_ref().is_none_or(String::is_empty) {
        metadata.namespace = Some("default".into());
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    // `no_schema`: `ssl-redirect: true` without quotes is refused, as kubectl and the API server do.
    let options = serde_saphyr::options! { with_snippet: false, no_schema: true };
    serde_saphyr::from_str_with_options(text, options)
}

/// The message without line breaks, and without the position, which counts from the document's own beginning.
fn one_line(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match message.rsplit_once(" at line ") {
        Some((before, _)) => before.to_owned(),
        None => message,
    }
}

#[cfg(test)]
mod tests;
