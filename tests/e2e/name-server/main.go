// The name server of the node: CoreDNS with only the plugins that its Corefile names.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	// The order of the plugins, which CoreDNS generates for all that it has.
	dnsserver.Directives = []string{"bind", "errors", "kubernetes"}
	coremain.Run()
}
