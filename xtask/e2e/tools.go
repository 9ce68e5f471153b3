//go:build tools

// Package e2e only imports what `cargo xtask conformance --kubernetes` builds, so that `go mod tidy` keeps it in go.mod.
// A module of its own: nobody else has to fetch what Kubernetes' tests need. Versions as in ../kubernetes/go.mod.
package e2e

import (
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
