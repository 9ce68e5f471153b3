//go:build tools

// Package h2spec only imports what `cargo xtask setup` builds, so that `go mod tidy` keeps it in go.mod.
package h2spec

import _ "github.com/summerwind/h2spec/cmd/h2spec"
