//! Translation of one state after the other: whatever has come, gone and changed before, the result is that of a translation
//! from nothing, and what a change has nothing to do with is the same memory as before.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use xdp_ingress::model::{Problem, Reason, Scope, Snapshot};
use xdp_ingress::source::{Key, Object, Objects, Store, read_once};
use xdp_ingress::translate::{Settings, Translator, translate};

use super::{NOW, cases};

const DAY: i64 = 24 * 3600;
/// 2126-10-31: when most certificates of the table end.
const END: i64 = 4_949_091_101;

/// Which object, whether the change is taken back, what is done to it.
type Step = (u16, bool, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((any::<u16>(), any::<bool>(), 0..10_u8), 1..40)
}

fn with_secrets() -> Vec<std::path::PathBuf> {
    let has_secret = |folder: &std::path::PathBuf| {
        let input = std::fs::read_to_string(folder.join("input.yaml")).unwrap();
        input.contains("kind: Secret") || folder.ends_with("good-classes-side-by-side")
    };
    cases().into_iter().filter(has_secret).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A translator that has seen the objects come, go and change one by one says the same as one that sees the last
    /// state only.
    #[test]
    fn history_makes_no_difference(
        cases in prop::collection::vec(prop::sample::select(cases()), 1..4),
        steps in steps(),
    ) {
        play(&cases, &steps)?;
    }

    /// The same with many certificates: of names that several Ingresses ask for, renewed, broken, gone and expired.
    #[test]
    fn the_history_of_certificates_makes_no_difference(
        cases in prop::collection::vec(prop::sample::select(with_secrets()), 2..4),
        steps in steps(),
    ) {
        play(&cases, &steps)?;
    }
}

fn play(cases: &[std::path::PathBuf], steps: &[Step]) -> Result<(), TestCaseError> {
    let mut now = NOW;
    let mut translator = Translator::new(Settings { now, ..Settings::default() });
    let mut objects = Objects::default();
    for case in cases {
        // Objects of the case before that have the same names are replaced, the others stay.
        let next = read_once(&[case.join("input.yaml")]).unwrap();
        objects.problems = next.problems.clone();
        for object in all(&next) {
            objects.insert(object);
        }
        check(&mut translator, &objects, now)?;
        for &(which, back, what) in steps {
            let before = objects.clone();
            change(&mut objects, usize::from(which), what);
            if what == 9 {
                now = if now == NOW { END - 13 * DAY } else { END + DAY };
            }
            check(&mut translator, &objects, now)?;
            if back {
                objects = before;
            }
        }
        check(&mut translator, &objects, now)?;
    }
    Ok(())
}

fn check(translator: &mut Translator, objects: &Objects, now: i64) -> Result<(), TestCaseError> {
    let (snapshot, problems) = translator.translate(objects, now);
    let expected = translate(objects, &Settings { now, ..Settings::default() });
    // A status says since when it is so.
    let without_times = |snapshot: &Snapshot| match now {
        NOW => snapshot.clone(),
        _ => Snapshot { own_statuses: Vec::new().into(), ..snapshot.clone() },
    };
    prop_assert_eq!(without_times(&snapshot), without_times(&expected.0));
    prop_assert_eq!(&*problems, &expected.1);
    Ok(())
}

/// One object less, or changed after another one's image.
fn change(objects: &mut Objects, which: usize, what: u8) {
    fn pick<T>(store: &Store<T>, which: usize) -> Option<Key> {
        store.iter().nth(which % store.len().max(1)).map(|(key, _)| key.clone())
    }
    match what {
        0 => drop(pick(&objects.endpoint_slices, which).and_then(|key| objects.endpoint_slices.remove(&key))),
        1 => drop(pick(&objects.ingresses, which).and_then(|key| objects.ingresses.remove(&key))),
        2 => drop(pick(&objects.services, which).and_then(|key| objects.services.remove(&key))),
        3 => drop(pick(&objects.secrets, which).and_then(|key| objects.secrets.remove(&key))),
        // Another key pair, or one that cannot be used.
        4 => {
            let keys = [pick(&objects.secrets, which), pick(&objects.secrets, which / 7 + 1)];
            let [Some(one), Some(other)] = keys else { return };
            let data = objects.secrets.find(&other).unwrap().data.clone();
            let changed = Secret { data, ..Secret::clone(objects.secrets.find(&one).unwrap()) };
            objects.insert(Object::Secret(Arc::new(changed)));
        }
        5..=8 => {
            let keys = [pick(&objects.ingresses, which), pick(&objects.ingresses, which / 7 + 1)];
            let [Some(one), Some(other)] = keys else { return };
            let other = Ingress::clone(objects.ingresses.find(&other).unwrap());
            let mut changed = Ingress::clone(objects.ingresses.find(&one).unwrap());
            let spec = changed.spec.get_or_insert_default();
            match what {
                5 => spec.rules = other.spec.and_then(|spec| spec.rules),
                6 => spec.tls = other.spec.and_then(|spec| spec.tls),
                // Any Secret for the names of its rules, for one of all, or for those that the certificate has.
                7 => {
                    let rules = spec.rules.iter().flatten().filter_map(|rule| rule.host.clone());
                    let hosts = match which % 3 {
                        0 => Some(rules.collect()),
                        1 => Some(vec!["secure.example.com".to_owned(), "*.example.org".to_owned()]),
                        _ => None,
                    };
                    let secret_name = pick(&objects.secrets, which / 3).map(|key| key.name.to_string());
                    spec.tls.get_or_insert_default().push(IngressTLS { hosts, secret_name });
                }
                _ if which.is_multiple_of(2) => {
                    spec.ingress_class_name = other.spec.and_then(|spec| spec.ingress_class_name);
                }
                _ => {
                    let time = jiff::Timestamp::from_second(i64::try_from(which).unwrap() % 3).unwrap();
                    changed.metadata.creation_timestamp = Some(Time(time));
                }
            }
            objects.insert(Object::Ingress(Arc::new(changed)));
        }
        _ => {}
    }
}

fn all(objects: &Objects) -> Vec<Object> {
    let mut all = Vec::new();
    all.extend(objects.ingresses.iter().map(|(_, object)| Object::Ingress(object.clone())));
    all.extend(objects.ingress_classes.iter().map(|(_, object)| Object::IngressClass(object.clone())));
    all.extend(objects.services.iter().map(|(_, object)| Object::Service(object.clone())));
    all.extend(objects.endpoint_slices.iter().map(|(_, object)| Object::EndpointSlice(object.clone())));
    all.extend(objects.secrets.iter().map(|(_, object)| Object::Secret(object.clone())));
    all.extend(objects.nodes.iter().map(|(_, object)| Object::Node(object.clone())));
    all.extend(objects.address_pools.iter().map(|(_, object)| Object::AddressPool(object.clone())));
    let parameters = objects.class_parameters.iter();
    all.extend(parameters.map(|(_, object)| Object::IngressClassParameters(object.clone())));
    all
}

/// The objects of a case of the table, and a translator that has seen them.
fn seen(case: &str) -> (Objects, Translator, Arc<Snapshot>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate").join(case);
    let objects = read_once(&[folder.join("input.yaml")]).unwrap();
    let mut translator = Translator::new(Settings { now: NOW, ..Settings::default() });
    let (snapshot, _) = translator.translate(&objects, NOW);
    (objects, translator, snapshot)
}

/// An Ingress of this class, from a host to a Service that does not exist.
fn ingress(class: &str, host: &str) -> Ingress {
    let backend = serde_json::json!({ "service": { "name": "no", "port": { "number": 80 } } });
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "another", "namespace": "default" },
        "spec": {
            "ingressClassName": class,
            "rules": [{
                "host": host,
                "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] },
            }],
        },
    }))
    .unwrap()
}

/// A TLS Secret with a new certificate for these names.
fn secret(name: &str, hosts: &[&str]) -> Object {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let data = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())];
    let data = data.map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes())));
    let mut secret = Secret {
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.into_iter().collect()),
        ..Secret::default()
    };
    secret.metadata.name = Some(name.into());
    secret.metadata.namespace = Some("default".into());
    Object::Secret(Arc::new(secret))
}

fn certificate_of<'s>(snapshot: &'s Snapshot, secret: &str) -> &'s Arc<xdp_ingress::model::Certificate> {
    snapshot.certificates.iter().find(|certificate| certificate.source.name == secret).unwrap()
}

/// A change of an Ingress or a Service leaves all hosts the same memory that have nothing to do with it.
#[test]
fn an_ingress_alone_changes_its_hosts_only() {
    let (mut objects, mut translator, before) = seen("good-tls");
    let another = ingress("xdp", "another.example.net");
    objects.insert(Object::Ingress(Arc::new(another.clone())));
    let (with, problems) = translator.translate(&objects, NOW);
    assert_eq!(translator.scope(), Scope::Routes);
    assert_eq!(with.routes.hosts.len(), before.routes.hosts.len() + 1);
    assert!(before.routes.hosts.iter().all(|(host, routes)| with.routes.hosts[host].is(routes)));
    assert!(with.certificates.is(&before.certificates) && with.clusters.is(&before.clusters));
    assert!(problems.iter().any(|problem| problem.object.name == "another"), "{problems:?}");
    objects.ingresses.remove(&Key::of(&another.metadata));
    let (after, _) = translator.translate(&objects, NOW);
    assert_eq!(after, before);
}

/// A renewal is the certificate's own matter: routes and all other certificates are the same memory.
#[test]
fn a_renewed_certificate_changes_nothing_else() {
    let (mut objects, mut translator, before) = seen("good-tls");
    objects.insert(secret("good", &["secure.example.com", "*.example.org"]));
    let (after, problems) = translator.translate(&objects, NOW);
    assert_eq!((translator.scope(), problems.as_slice()), (Scope::Routes, &[] as &[Problem]));
    assert!(after.routes.is(&before.routes) && after.clusters.is(&before.clusters));
    assert!(Arc::ptr_eq(certificate_of(&after, "other"), certificate_of(&before, "other")));
    let (old, new) = (certificate_of(&before, "good"), certificate_of(&after, "good"));
    assert!(old.hosts == new.hosts && old.chain != new.chain);
}

/// An Ingress with a certificate comes and goes, and so does its Secret: only its hosts are built.
#[test]
fn an_ingress_with_tls_changes_its_hosts_only() {
    let (mut objects, mut translator, before) = seen("good-tls");
    let mut another = ingress("xdp", "another.example.net");
    let hosts = Some(vec!["another.example.net".to_owned()]);
    another.spec.as_mut().unwrap().tls = Some(vec![IngressTLS { hosts, secret_name: Some("late".into()) }]);
    objects.insert(Object::Ingress(Arc::new(another.clone())));
    let (without, problems) = translator.translate(&objects, NOW);
    assert!(problems.iter().any(|problem| problem.reason == Reason::NotFound), "{problems:?}");
    assert!(without.certificates.is(&before.certificates));
    objects.insert(secret("late", &["another.example.net"]));
    let (with, _) = translator.translate(&objects, NOW);
    assert_eq!(translator.scope(), Scope::Routes);
    assert_eq!(with.certificates.len(), before.certificates.len() + 1);
    assert!(before.routes.hosts.iter().all(|(host, routes)| with.routes.hosts[host].is(routes)));
    // Plain HTTP is redirected now.
    assert_ne!(with.routes, without.routes);
    objects.ingresses.remove(&Key::of(&another.metadata));
    let (after, _) = translator.translate(&objects, NOW);
    assert_eq!((translator.scope(), after), (Scope::Routes, before));
}

/// Where classes have VIPs apart, a change is made in the tables that have its hosts, and those that are one stay one.
#[test]
fn classes_side_by_side_change_in_place() {
    let (mut objects, mut translator, before) = seen("good-classes-side-by-side");
    assert!(before.vip_routes.len() > 1);
    let classes: Vec<String> = objects.ingress_classes.iter().map(|(key, _)| key.name.to_string()).collect();
    for class in classes {
        objects.insert(Object::Ingress(Arc::new(ingress(&class, "another.example.net"))));
        let (after, problems) = translator.translate(&objects, NOW);
        let expected = translate(&objects, &Settings { now: NOW, ..Settings::default() });
        assert_eq!((&*after, &*problems, translator.scope()), (&expected.0, &expected.1, Scope::Routes));
    }
}

/// A change of endpoints leaves all the rest the same memory: nothing is built again.
#[test]
fn endpoints_alone_change_nothing_else() {
    let (mut objects, mut translator, before) = seen("good-tls");
    let key = objects.endpoint_slices.iter().next().unwrap().0.clone();
    objects.endpoint_slices.remove(&key);
    let (after, _) = translator.translate(&objects, NOW);
    assert_eq!(translator.scope(), Scope::Endpoints);
    assert!(after.routes.is(&before.routes) && after.certificates.is(&before.certificates));
    assert!(after.ingresses.is(&before.ingresses) && after.vip_routes.is(&before.vip_routes));
    assert_ne!(after.clusters, before.clusters);
    let (later, _) = translator.translate(&objects, NOW + 1);
    assert!(later.routes.is(&before.routes));
}

/// A certificate is spoken of two weeks before its end and after it, without any change of the objects.
#[test]
fn the_end_of_a_certificate_is_said_before_it_comes() {
    let (objects, _, snapshot) = seen("good-tls");
    let mut translator = Translator::new(Settings::default());
    let first = snapshot.certificates.iter().min_by_key(|certificate| certificate.not_after).unwrap();
    for (now, expected) in [
        (first.not_after - 15 * DAY, None),
        (first.not_after - 13 * DAY, Some((Reason::Expiring, "expires at"))),
        (first.not_after + 1, Some((Reason::InvalidValue, "expired at"))),
    ] {
        let (_, problems) = translator.translate(&objects, now);
        let said = problems.iter().find(|problem| problem.object == first.source);
        let said = said.map(|problem| (problem.reason, &problem.message[..10]));
        assert_eq!(said, expected, "at {now}");
    }
}
