//! `cargo xtask bench control`: how long a change takes from the objects to the router, with 10,000 Ingresses, 5,000
//! Services and 100,000 endpoints, and how much memory they take. Prints rows as JSON on stdout, `{name, ours, reference,
//! unit, target}`, where the reference is the limit that we set ourselves; xtask makes the table.

#![expect(clippy::print_stdout, reason = "the result")]

#[path = "../../tests/http1/anybody.rs"]
mod anybody;
mod live;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xdp_ingress::l7::{Config, L7};
use xdp_ingress::source::{EndpointSlice, Key, Object, Objects};
use xdp_ingress::translate::{Settings, Translator};

const INGRESSES: usize = 10_000;
const SERVICES: usize = 5_000;
const ENDPOINTS_OF_EACH: usize = 20;
const CHANGES: usize = 1_000;

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let mut objects = objects()?;
    let mut translator = Translator::new(Settings::default());

    let started = Instant::now();
    let (snapshot, problems) = translator.translate(&objects, 0);
    anyhow::ensure!(problems.is_empty(), "{:?}", problems.first());
    let config = Config { workers: 1, ..Config::default() };
    let l7 = L7::start(config, &snapshot)?;
    let rebuild = started.elapsed().as_secs_f64() * 1e3;

    // As the source does it: what was published last is still held when the next change comes.
    let mut published = objects.clone();
    let mut endpoint = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let service = change * 7 % SERVICES;
        let slice = slice(service, ENDPOINTS_OF_EACH - 1 - change % 5)?;
        let started = Instant::now();
        objects.insert(Object::EndpointSlice(slice));
        let (snapshot, _) = translator.translate(&objects, 0);
        l7.publish(&snapshot);
        endpoint.push(started.elapsed().as_secs_f64() * 1e3);
        published = objects.clone();
    }
    let (mut route, mut service, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let path = if change % 2 == 0 { "/moved" } else { "/api" };
        let changes = [
            (&mut route, Object::Ingress(ingress(change * 13 % INGRESSES, path)?)),
            (&mut service, Object::Service(self::service(change * 7 % SERVICES, change)?)),
            (&mut new, Object::Ingress(ingress(INGRESSES + change, "/api")?)),
        ];
        for (times, object) in changes {
            let started = Instant::now();
            objects.insert(object);
            let (snapshot, _) = translator.translate(&objects, 0);
            l7.publish(&snapshot);
            times.push(started.elapsed().as_secs_f64() * 1e3);
            published = objects.clone();
        }
    }
    let mut rows = vec![
        row("everything, from nothing", rebuild, 1000.0, "ms"),
        row("one endpoint changed, p99", percentile(&mut endpoint, 99), 10.0, "ms"),
        row("one endpoint changed, p50", percentile(&mut endpoint, 50), 10.0, "ms"),
        row("one Ingress changed, p99", percentile(&mut route, 99), 10.0, "ms"),
        row("one Ingress more, p99", percentile(&mut new, 99), 10.0, "ms"),
        row("one Service changed, p99", percentile(&mut service, 99), 10.0, "ms"),
        row("memory, objects and router", memory()?, 300.0, "MiB"),
    ];
    drop((l7, translator, snapshot, published));
    rows.extend(live::rows(objects)?);
    println!("{}", Value::from(rows));
    Ok(())
}

/// `limit`: what we set ourselves.
fn row(name: &str, ours: f64, limit: f64, unit: &str) -> Value {
    json!({ "name": name, "ours": ours, "reference": limit, "unit": unit, "target": 1.0 })
}

fn percentile(of: &mut [f64], percent: usize) -> f64 {
    of.sort_by(f64::total_cmp);
    of[(of.len() * percent / 100).min(of.len() - 1)]
}

/// What the kernel counts for this process.
fn memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn objects() -> Result<Objects> {
    let mut objects = Objects::default();
    let class: IngressClass = typed(json!({
        "metadata": { "name": "xdp" },
        "spec": { "controller": "xdp-ingress.io/controller" },
    }))?;
    objects.insert(Object::IngressClass(Arc::new(class)));
    for index in 0..SERVICES {
        objects.insert(Object::Service(service(index, 0)?));
        objects.insert(Object::EndpointSlice(slice(index, ENDPOINTS_OF_EACH)?));
    }
    let mut ingresses = BTreeMap::new();
    for index in 0..INGRESSES {
        let ingress = ingress(index, "/api")?;
        ingresses.insert(Key::of(&ingress.metadata), ingress);
    }
    objects.ingresses.replace(ingresses);
    Ok(objects)
}

/// `change`: how often it has been changed.
fn service(index: usize, change: usize) -> Result<Arc<Service>> {
    Ok(Arc::new(typed(json!({
        "metadata": { "name": format!("service-{index}"), "namespace": namespace(index) },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 + change, "protocol": "TCP" }] },
    }))?))
}

fn host(index: usize) -> String {
    format!("host-{index}.example.com")
}

fn namespace(index: usize) -> String {
    format!("team-{}", index % 100)
}

fn ingress(index: usize, path: &str) -> Result<Arc<Ingress>> {
    let backend =
        json!({ "service": { "name": format!("service-{}", index % SERVICES), "port": { "number": 80 } } });
    Ok(Arc::new(typed(json!({
        "metadata": { "name": format!("ingress-{index}"), "namespace": namespace(index) },
        "spec": {
            "ingressClassName": "xdp",
            "rules": [{
                "host": host(index),
                "http": { "paths": [
                    { "path": "/", "pathType": "Prefix", "backend": backend },
                    { "path": path, "pathType": "Prefix", "backend": backend },
                ] },
            }],
        },
    }))?))
}

fn slice(service: usize, endpoints: usize) -> Result<Arc<EndpointSlice>> {
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|index| {
            let number = service * ENDPOINTS_OF_EACH + index;
            json!({
                "addresses": [format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": format!("node-{}", number % 50),
            })
        })
        .collect();
    Ok(Arc::new(typed(json!({
        "metadata": {
            "name": format!("service-{service}-a"),
            "namespace": namespace(service),
            "labels": { "kubernetes.io/service-name": format!("service-{service}") },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    }))?))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}
