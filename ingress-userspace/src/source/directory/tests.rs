//! The directory source on real directories: what it reads, what it keeps, and how soon it sees a change.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use super::*;
use crate::model::Kind;

/// Longer than any change takes, shorter than the rescan: what comes in time came by a notification.
const SOON: Duration = Duration::from_secs(5);

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn ports(objects: &Objects) -> Vec<String> {
    let port = |service: &k8s_openapi::api::core::v1::Service| {
        service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port
    };
    objects.services.iter().map(|(key, service)| format!("{}:{}", key.name, port(service))).collect()
}

/// Waits until the source says this; how long that took.
async fn until(receiver: &mut Receiver, wanted: &[&str]) -> Duration {
    let start = Instant::now();
    let seen =
        tokio::time::timeout(SOON, receiver.wait_for(|objects| ports(objects.as_ref().unwrap()) == wanted));
    let in_time = seen.await.is_ok();
    assert!(in_time, "wanted {wanted:?}, have {:?}", ports(receiver.borrow().as_ref().unwrap()));
    start.elapsed()
}

#[tokio::test]
async fn changes_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), service("a", 1)).unwrap();
    fs::write(file("ignored.txt"), service("x", 1)).unwrap();
    fs::write(file(".hidden.yaml"), service("x", 1)).unwrap();
    let mut receiver = start(folder.path().to_path_buf()).await.unwrap();
    assert_eq!(ports(receiver.borrow().as_ref().unwrap()), ["a:1"]);

    fs::write(file("a.yaml"), service("a", 2)).unwrap();
    until(&mut receiver, &["a:2"]).await;
    // An atomic replacement, and its speed: no waiting for a writer to finish.
    fs::write(file(".a.new"), service("a", 3)).unwrap();
    fs::rename(file(".a.new"), file("a.yaml")).unwrap();
    let took = until(&mut receiver, &["a:3"]).await;
    assert!(took < Duration::from_millis(500), "{took:?}");

    fs::create_dir_all(file("deep/er")).unwrap();
    fs::write(file("deep/er/b.json"), r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": [{"port": 1}]}}"#).unwrap();
    until(&mut receiver, &["a:3", "b:1"]).await;
    fs::remove_dir_all(file("deep")).unwrap();
    until(&mut receiver, &["a:3"]).await;
    // A directory that was made anew under its old name is watched too.
    fs::create_dir(file("deep")).unwrap();
    fs::write(file("deep/c.yml"), service("c", 1)).unwrap();
    until(&mut receiver, &["a:3", "c:1"]).await;
    fs::write(file("deep/c.yml"), service("c", 2)).unwrap();
    until(&mut receiver, &["a:3", "c:2"]).await;
    fs::remove_file(file("a.yaml")).unwrap();
    until(&mut receiver, &["c:2"]).await;
}

/// How the kubelet updates a ConfigMap volume: `a.yaml -> ..data/a.yaml`, `..data -> ..stamp`, and `..data` is exchanged.
#[tokio::test]
async fn a_swapped_symlink_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let version = |stamp: &str, port: u16| {
        fs::create_dir(path(stamp)).unwrap();
        fs::write(path(stamp).join("a.yaml"), service("a", port)).unwrap();
        symlink(stamp, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
    };
    version("..1", 1);
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let mut receiver = start(folder.path().to_path_buf()).await.unwrap();
    assert_eq!(ports(receiver.borrow().as_ref().unwrap()), ["a:1"]);
    for port in 2..5 {
        version(&format!("..{port}"), port);
        until(&mut receiver, &[&format!("a:{port}")]).await;
        fs::remove_dir_all(path(&format!("..{}", port - 1))).unwrap();
    }
}

#[tokio::test]
async fn a_single_file_and_a_symlink_to_elsewhere_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, service("a", 1)).unwrap();
    let link = folder.path().join("any-name");
    symlink(&target, &link).unwrap();
    let mut receiver = start(link.clone()).await.unwrap();
    fs::write(&target, service("a", 2)).unwrap();
    until(&mut receiver, &["a:2"]).await;
    fs::remove_file(&link).unwrap();
    fs::write(&link, service("a", 3)).unwrap();
    until(&mut receiver, &["a:3"]).await;
}

#[tokio::test]
async fn the_last_good_version_stays_while_a_document_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let write = |text: &str| {
        fs::write(folder.path().join(".new"), text).unwrap();
        fs::rename(folder.path().join(".new"), &file).unwrap();
    };
    write(&[service("a", 1), service("b", 1), service("c", 1)].join("---\n"));
    let mut receiver = start(folder.path().to_path_buf()).await.unwrap();

    // Its name can be read: only that one is kept, `c` is gone on purpose.
    write(&[service("a", 2), service("b", 2).replace("[{port: 2}]", "2")].join("---\n"));
    until(&mut receiver, &["a:2", "b:1"]).await;
    let problems = receiver.borrow().as_ref().unwrap().problems.clone();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].object.kind, problems[0].object.name.as_str()), (Kind::Service, "b"));
    assert!(problems[0].field.ends_with("a.yaml document 2, line 9"), "{problems:?}");
    assert!(problems[0].message.contains("last good version stays in use"), "{problems:?}");

    // Its name cannot be read: it could be any of those that are missing.
    write(&[service("a", 3), "kind: [\n".to_owned()].join("---\n"));
    until(&mut receiver, &["a:3", "b:1"]).await;
    let problems = receiver.borrow().as_ref().unwrap().problems.clone();
    assert_eq!(problems[0].object.kind, Kind::File, "{problems:?}");

    // Not text at all.
    fs::write(folder.path().join(".new"), [0xff, 0xfe, 0]).unwrap();
    fs::rename(folder.path().join(".new"), &file).unwrap();
    let first = problems;
    receiver.wait_for(|objects| objects.as_ref().unwrap().problems != first).await.unwrap();
    until(&mut receiver, &["a:3", "b:1"]).await;

    // In order again: what is missing now is gone.
    write(&service("a", 4));
    until(&mut receiver, &["a:4"]).await;
    assert_eq!(receiver.borrow().as_ref().unwrap().problems.len(), 0);
}

#[test]
fn an_object_in_two_files_is_the_first_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1.yaml"), service("a", 1)).unwrap();
    fs::write(folder.path().join("2.yaml"), service("a", 2)).unwrap();
    let objects = read_once(&[folder.path().to_path_buf()]).unwrap();
    assert_eq!(ports(&objects), ["a:1"]);
    assert_eq!(objects.problems.len(), 1);
    assert!(objects.problems[0].field.ends_with("2.yaml"), "{:?}", objects.problems);
}

#[test]
fn a_path_that_does_not_exist_is_an_error() {
    let error = read_once(&["does/not/exist".into()]).unwrap_err();
    assert!(format!("{error:#}").contains("does/not/exist"));
}

#[test]
fn a_symlink_to_above_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), service("a", 1)).unwrap();
    symlink(folder.path(), folder.path().join("loop")).unwrap();
    let objects = read_once(&[folder.path().to_path_buf()]).unwrap();
    assert_eq!(ports(&objects), ["a:1"]);
}

/// Without a change nothing is published: each publication costs a translation.
#[tokio::test]
async fn nothing_new_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a", 1)).unwrap();
    let mut receiver = start(folder.path().to_path_buf()).await.unwrap();
    receiver.mark_unchanged();
    fs::write(&file, service("a", 1)).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), receiver.changed()).await.is_err());
}
