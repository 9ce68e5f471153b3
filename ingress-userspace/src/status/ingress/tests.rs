//! Reading Ingresses as the API server sends them, and the patches that go there.

use super::*;

fn ingress(status: &Value, managed_fields: &Value) -> Ingress {
    serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "name": "web", "namespace": "shop", "resourceVersion": "7", "managedFields": managed_fields },
        "status": status,
    }))
    .unwrap()
}

fn managed(manager: &str, operation: &str, subresource: &str, fields: &Value) -> Value {
    json!([{
        "manager": manager, "operation": operation, "subresource": subresource,
        "apiVersion": "networking.k8s.io/v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
    }])
}

#[test]
fn present_statuses() {
    let plain = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] } });
    let addresses = BTreeSet::from(["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
    let nothing = json!([]);
    let cases = [
        (json!({}), Some(BTreeSet::new())),
        (json!({ "loadBalancer": {} }), Some(BTreeSet::new())),
        (plain, Some(addresses)),
        (json!({ "loadBalancer": { "ingress": [{ "hostname": "lb.example.com" }] } }), None),
        (json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "hostname": "x" }] } }), None),
        (json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0" }] } }), None),
        (
            json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ports": [{ "port": 80, "protocol": "TCP" }] }] } }),
            None,
        ),
    ];
    for (status, addresses) in cases {
        let present = present(&ingress(&status, &nothing), "xdp-ingress");
        assert_eq!(present, Present { version: "7".to_owned(), addresses, ours: false }, "{status}");
    }
}

#[test]
fn ours_is_what_we_applied() {
    let fields = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
    let cases = [
        (managed("xdp-ingress", "Apply", "status", &fields), true),
        (managed("xdp-ingress", "Update", "status", &fields), false),
        (managed("xdp-ingress", "Apply", "", &fields), false),
        (managed("nginx-ingress-controller", "Apply", "status", &fields), false),
        (managed("xdp-ingress", "Apply", "status", &json!({ "f:status": {} })), false),
        (json!([]), false),
    ];
    for (managed_fields, ours) in cases {
        assert_eq!(
            present(&ingress(&json!({}), &managed_fields), "xdp-ingress").ours,
            ours,
            "{managed_fields}"
        );
    }
}

#[test]
fn patches() {
    let job = |change| Job {
        object: ObjectRef::new(Kind::Ingress, "shop", "web"),
        version: "7".to_owned(),
        change,
    };
    let set = Change::Set(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
    assert_eq!(
        body(&job(set)),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": { "resourceVersion": "7" },
            "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] } },
        })
    );
    assert_eq!(
        body(&job(Change::Clear)),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": { "resourceVersion": "7" },
        })
    );
}
