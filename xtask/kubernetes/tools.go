//go:build tools

// Package kubernetes only imports what `cargo xtask setup` builds, so that `go mod tidy` keeps it in go.mod. To move
// to another Kubernetes: change its version in go.mod and that of every `replace` along with it (v1.37.2 goes with
// v0.37.2), then run `go mod tidy`.
package kubernetes

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
