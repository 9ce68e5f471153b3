//go:build tools

// Package helm only imports what `cargo xtask setup` builds, so that `go mod tidy` keeps it in go.mod. A module of its
// own: helm's Kubernetes libraries and those of the Kubernetes beside it need not be of one release.
package helm

import _ "helm.sh/helm/v4/cmd/helm"
