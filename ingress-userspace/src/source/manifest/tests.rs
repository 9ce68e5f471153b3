//! How files fall into documents, and what each kind of document becomes.

use std::fmt::Write as _;

use super::*;

fn documents(text: &str) -> Vec<(usize, u64)> {
    split(text).enumerate().map(|(index, (line, _))| (index + 1, line)).collect()
}

fn objects(text: &str) -> Vec<String> {
    parse(text)
        .iter()
        .flat_map(|document| &document.objects)
        .map(|object| object.reference().to_string())
        .collect()
}

fn faults(text: &str) -> Vec<(usize, u64, String)> {
    let documents = parse(text);
    let all =
        documents.iter().flat_map(|document| document.faults.iter().map(|fault| (document.number, fault)));
    all.map(|(number, fault)| (number, fault.line, fault.message.clone())).collect()
}

#[test]
fn documents_are_cut_at_their_markers() {
    assert_eq!(documents("a: 1\n---\nb: 2\n"), [(1, 1), (2, 2)]);
    assert_eq!(documents("---\na: 1\n---\nb: 2\n"), [(1, 1), (2, 3)]);
    assert_eq!(documents("# comment\n\n---\na: 1\n--- # b\nb: 2\n"), [(1, 3), (2, 5)]);
    assert_eq!(documents("a: 1\r\n---\r\nb: 2\r\n"), [(1, 1), (2, 2)]);
    // Neither of them is a marker.
    assert_eq!(documents("a: |\n  ---\n  b\n----\n"), [(1, 1)]);
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

#[test]
fn empty_documents_are_nothing() {
    for text in
        ["", "\n", "---\n", "# only a comment\n", "---\n---\n# x\n---\n", "\u{feff}", "%YAML 1.2\n---\n...\n"]
    {
        assert_eq!((objects(text), faults(text)), (vec![], vec![]), "{text:?}");
    }
    assert_eq!(objects(&format!("\u{feff}---\n---\n{SERVICE}---\n")), ["Service default/web"]);
}

#[test]
fn json_is_read_too() {
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}}"#;
    assert_eq!(objects(json), ["Service shop/web"]);
    let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{json}]}}"#);
    assert_eq!(objects(&list), ["Service shop/web"]);
    // What `kubectl get -o yaml` of one kind gives.
    let list = list.replace("\"List\"", "\"ServiceList\"");
    assert_eq!(objects(&list), ["Service shop/web"]);
}

#[test]
fn a_broken_document_costs_only_itself() {
    let text = format!("{SERVICE}---\nkind: [\n---\n{}", SERVICE.replace("web", "two"));
    assert_eq!(objects(&text), ["Service default/web", "Service default/two"]);
    let faults = faults(&text);
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].0, faults[0].1), (2, 5), "{faults:?}");
}

#[test]
fn lines_count_from_the_beginning_of_the_file() {
    let text = "# a\n# b\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports: 80\n";
    let faults = faults(text);
    assert_eq!((faults[0].0, faults[0].1), (1, 9), "{faults:?}");
    assert!(!faults[0].2.contains("line"), "{faults:?}");
}

#[test]
fn other_kinds_are_passed_over() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {anything: [1]}\n";
    assert_eq!((objects(text), faults(text)), (vec![], vec![]));
}

#[test]
fn a_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        writeln!(text, "a{level}: &a{level} [{}]", below.trim_end_matches(", ")).unwrap();
    }
    let text = format!("{SERVICE}{text}");
    let before = std::time::Instant::now();
    assert_eq!(faults(&text).len(), 1);
    assert!(before.elapsed() < std::time::Duration::from_mins(1));
    let deep = format!("{SERVICE}x: {}", "[".repeat(100_000));
    assert_eq!(faults(&deep).len(), 1);
}

#[test]
fn cluster_wide_kinds_have_no_namespace() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: a, namespace: b}\n";
    assert_eq!(objects(text), ["Node a"]);
}

#[test]
fn string_data_of_a_secret_is_data() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==}\nstringData: {b: bee}\n";
    let documents = parse(text);
    let [Object::Secret(secret)] = &documents[0].objects[..] else { panic!("{documents:?}") };
    let data = secret.data.as_ref().unwrap();
    assert_eq!((&data["a"].0[..], &data["b"].0[..]), (&b"a"[..], &b"bee"[..]));
}

/// What YAML 1.1 took for booleans and numbers: kubectl refuses them where text is wanted, so we must not take them.
#[test]
fn text_that_looks_like_something_else_must_be_quoted() {
    for (value, good) in [
        ("\"true\"", true),
        ("true", false),
        ("308", false),
        ("\"308\"", true),
        ("plain", true),
        ("1.5", false),
    ] {
        let text =
            format!("{SERVICE}  \n").replace("name: web", &format!("name: web, annotations: {{a: {value}}}"));
        assert_eq!(faults(&text).is_empty(), good, "{value}: {:?}", faults(&text));
    }
}
