package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// docs joins documents into a file.
func docs(parts ...string) string { return strings.Join(parts, "---\n") }

// strict is mutual TLS everywhere.
const strict = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// port is what a workload serves; its name tells its protocol, as Istio has it.
type port struct {
	name, protocol string
	number         int
	app            string // host:port where the application listens, on loopback
}

func httpPort(number int, app string) port {
	return port{name: fmt.Sprintf("http-%d", number), protocol: "HTTP", number: number, app: app}
}

func tcpPort(number int, app string) port {
	return port{name: fmt.Sprintf("tcp-%d", number), protocol: "TCP", number: number, app: app}
}

// workload is a WorkloadEntry shop/name of service account and label app of the same name, with a Sidecar that says where its application listens.
// egress is the port on 127.0.0.1 where its proxy takes requests for others.
func workload(name, addr string, egress int, ports ...port) string {
	var all, ingress strings.Builder
	for i, p := range ports {
		if i > 0 {
			all.WriteString(", ")
		}
		fmt.Fprintf(&all, "%s: %d", p.name, p.number)
		fmt.Fprintf(&ingress, "  - port: {number: %d, protocol: %s, name: %s}\n    defaultEndpoint: %s\n", p.number, p.protocol, p.name, p.app)
	}
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %[1]s
  namespace: shop
  annotations: {credence.dev/egress-port: "%[2]d"}
spec:
  address: %[3]s
  ports: {%[4]s}
  labels: {app: %[1]s}
  serviceAccount: %[1]s
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: %[1]s, namespace: shop}
spec:
  workloadSelector: {labels: {app: %[1]s}}
  ingress:
%[5]s`, name, egress, addr, all.String(), ingress.String())
}

// service is a Service shop/name before the workloads with the label app of that name.
func service(name string, ports ...port) string {
	var all strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&all, "  - {name: %s, port: %d, targetPort: %d}\n", p.name, p.number, p.number)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %[1]s, namespace: shop}\nspec:\n  selector: {app: %[1]s}\n  ports:\n%[2]s", name, all.String())
}

// outside is a Service namespace/name on port 80 whose endpoint has no sidecar.
func outside(namespace, name, endpoint string) string {
	ip, port, _ := strings.Cut(endpoint, ":")
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: %[2]s, namespace: %[1]s}
subsets:
- addresses: [{ip: %[3]s}]
  ports: [{name: http, port: %[4]s}]
`, namespace, name, ip, port)
}

// backends starts echo back ends and gives the Services shop/name before them.
func backends(t *testing.T, names ...string) string {
	t.Helper()
	var out []string
	for _, name := range names {
		out = append(out, outside("shop", name, envoytest.Backend(t, name)))
	}
	return docs(out...)
}

// gateway is a Gateway shop/edge; listeners are in YAML's flow style.
func gateway(addr string, listeners ...string) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, labels: {app: edge}}
spec:
  gatewayClassName: credence
  addresses: [{type: IPAddress, value: %s}]
  listeners:
  - %s
`, addr, strings.Join(listeners, "\n  - "))
}

// route is an HTTPRoute shop/name of the Gateway; more is further YAML of its spec.
func route(name, section, more string) string {
	parent := "{name: edge}"
	if section != "" {
		parent = "{name: edge, sectionName: " + section + "}"
	}
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s, namespace: shop}\nspec:\n  parentRefs: [%s]\n%s", name, parent, more)
}

// authorization is an AuthorizationPolicy shop/name for the workloads with a label app; rules are in YAML's flow style.
func authorization(name, app, action, rules string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: shop}\nspec:\n  selector: {matchLabels: {app: %s}}\n  action: %s\n  rules: %s\n",
		name, app, action, rules)
}

// denyPaths closes paths of a workload.
func denyPaths(name, app string, paths ...string) string {
	return authorization(name, app, "DENY", `[{to: [{operation: {paths: ["`+strings.Join(paths, `", "`)+`"]}}]}]`)
}

// tlsSecret is a kubernetes.io/tls Secret.
func tlsSecret(namespace, name string, p envoytest.Pair) string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
		name, namespace, b64(p.Cert), b64(p.Key))
}
