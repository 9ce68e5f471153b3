// The DNS of the cluster in which Kubernetes' own tests run, as they ask for Services by name: CoreDNS with the plugins of
// its usual Corefile and none of the cloud providers'. A module of its own: its Kubernetes libraries and those of the
// Kubernetes beside it need not be of one release.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	dnsserver.Directives = []string{"errors", "ready", "cache", "kubernetes"}
	coremain.Run()
}
