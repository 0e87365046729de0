// Package arch holds who may import whom, as data, and the tests that hold the code to it. To loosen a rule, write an ADR and then the row.
package arch

// room is a package of ours and what its code, tests aside, may import of ours. A name that ends in /... stands for everything below too.
type room struct {
	path string
	may  []string
}

// The rooms, in the order in which values flow. What is not listed here fails the test: a new package is a decision.
var rooms = []room{
	// What users write. policy itself imports nothing of ours; what lies below it imports policy and identity at most, and the strict
	// decoding that the kinds share.
	{"policy", nil},
	{"policy/strict", below},
	{"policy/kinds", append(below, "policy/strict", "policy/authz")}, // docs/adr/2026-11-23-refused-where-it-is-read.md
	{"policy/source/file", append(below, "policy/kinds", "policy/strict")},
	{"policy/peer", below},
	{"policy/jwt", below},
	{"policy/jwt/jwks", append(below, "policy/jwt")},
	{"policy/authz", below},
	{"policy/limit", append(below, "policy/strict")},
	{"policy/opa", below},
	{"policy/body", below},
	{"policy/lint", append(below, "policy/strict", "policy/peer", "policy/jwt", "policy/authz", "policy/limit", "policy/opa")},
	{"policy/explain", append(below, "xds/resource")}, // it reads what is generated: docs/adr/2026-11-23-explain-reads-generated-configuration.md
	{"policy/cases", append(below, "policy/strict", "policy/explain")},
	{"policy/compare", append(below, "policy/authz", "policy/explain")},

	// Who a workload is. Private keys live here and nowhere else; identity/sds speaks Envoy's secrets, so it packs resources.
	{"identity", nil},
	{"identity/state", nil},
	{"identity/ca", []string{"identity", "identity/state"}},
	{"identity/mint", []string{"identity", "identity/ca", "identity/state"}},
	{"identity/attest", []string{"identity", "identity/attest/attestv1", "identity/ca", "identity/state"}},
	{"identity/attest/attestv1", nil},
	{"identity/sds", append(below, "identity/ca", "xds/resource")},

	// From policies to what Envoy gets. Pure until the server. xds/ir shares the vocabulary of the policies that it carries:
	// docs/adr/2026-11-23-one-vocabulary.md.
	{"xds/resource", nil},
	{"xds/ir", vocabulary},
	{"xds/compile", append(vocabulary, "policy", "xds/ir")},
	{"xds/filter", append(vocabulary, "policy", "xds/ir", "xds/resource")},
	// The Builder in xds/translate is the whole way from a Set to packed resources, so it knows every step of it.
	{"xds/translate", append(vocabulary, "policy", "policy/limit", "xds/ir", "xds/compile", "xds/filter", "xds/patch", "xds/resource")},
	{"xds/patch", append(below, "xds/filter", "xds/ir", "xds/resource")},
	{"xds/asks", []string{"policy/opa", "xds/filter", "xds/resource"}}, // docs/adr/2026-11-23-only-who-is-made-to-ask-is-answered.md
	{"snapshot", []string{"policy/...", "identity", "xds/ir", "xds/compile", "xds/filter", "xds/translate", "xds/patch", "xds/resource"}},
	{"xds/server", []string{"identity", "policy", "snapshot", "xds/resource"}},

	// The edges.
	{"console", []string{"identity", "policy", "snapshot"}},
	{"proxy", []string{"identity", "identity/attest", "identity/state", "internal/envoy", "xds/resource"}},
	{"cmd/credence", everything},

	// What the project itself needs.
	{"internal/arch", nil},
	{"internal/settings", []string{"policy", "policy/strict"}},
	{"internal/validate", []string{"policy/...", "identity", "internal/settings", "snapshot", "xds/ir", "xds/compile", "xds/filter", "xds/translate", "xds/patch", "xds/resource"}},
	{"internal/offline", []string{"policy/...", "identity", "internal/settings", "xds/compile", "xds/translate", "xds/resource"}},
	{"internal/logs", nil},
	{"internal/envoy", nil},
	{"internal/envoytest", []string{"internal/echo", "internal/envoy", "internal/issuer", "internal/load"}},
	{"internal/policytest", []string{"policy", "policy/kinds"}},
	{"internal/echo", nil},
	{"internal/issuer", nil},
	{"internal/load", nil},
	{"internal/mesh", nil},
	{"examples/demo", []string{"internal/echo", "internal/issuer", "internal/load", "internal/mesh"}},
	{"e2e", everything},
	{"bench", everything},
	{"bench/xds", everything},
}

var (
	below      = []string{"policy", "identity"}
	vocabulary = []string{"identity", "policy/peer", "policy/jwt", "policy/authz"}
	everything = []string{"..."}
)

// nobody lists what no other package may import, tests included.
var nobody = []string{"cmd/...", "e2e", "bench/...", "internal/arch"}

// forTests lists what only tests, and each other, may import: it needs a testing.T or stands in for the product.
var forTests = []string{"internal/envoytest", "internal/policytest"}

// guarded is a library that only some rooms may know; tests aside, and bench, which stands beside the product and compares it with others.
type guarded struct {
	library string // the start of an import path
	rooms   []string
	why     string
}

var guards = []guarded{
	{
		"github.com/envoyproxy/go-control-plane",
		[]string{
			"xds/resource", "xds/filter", "xds/translate", "xds/patch", "xds/asks", "xds/server", "snapshot", "policy/limit", "policy/opa", "policy/explain",
			"identity/sds", "proxy", "internal/envoytest", "e2e",
		},
		"Envoy's protos stay where configuration is made and where its protocols are spoken; everything before speaks our own words (xds/ir)",
	},
	{"github.com/fsnotify/fsnotify", []string{"policy/source/file"}, "there is one way to watch files"},
	{"k8s.io/client-go", []string{"policy/source/kube"}, "there is one way to watch Kubernetes, and everything else works without it"},
	{"github.com/open-policy-agent/opa", []string{"policy/opa", "policy/kinds", "policy/lint"}, "rego is evaluated in one place and parsed where it is read"},
	{"istio.io/", apis, "the types of other projects end in xds/compile; what follows would break with every release of theirs"},
	{"k8s.io/", apis, "the types of other projects end in xds/compile; what follows would break with every release of theirs"},
	{"sigs.k8s.io/gateway-api", apis, "the types of other projects end in xds/compile; what follows would break with every release of theirs"},
	{"github.com/spf13/cobra", []string{"cmd/credence"}, "flags are read in cmd alone"},
	{"go.uber.org/zap", []string{"cmd/credence", "internal/logs", "proxy", "snapshot", "xds/server", "policy/source/file"}, "libraries return errors; only the edges log"},
}

// apis are the rooms that know the resource types of Istio, Kubernetes and the Gateway API.
var apis = []string{
	"policy", "policy/kinds", "policy/peer", "policy/jwt", "policy/authz", "policy/limit", "policy/lint", "policy/compare", "policy/source/file", "identity/sds", "xds/compile",
	"xds/patch", "internal/policytest",
}

// pure lists the rooms that compute values from values: they do no I/O, so that they can be tested by tables and run twice with one result.
var pure = []string{"policy", "policy/peer", "policy/jwt", "policy/authz", "xds/ir", "xds/compile", "xds/filter", "xds/translate", "xds/patch", "xds/resource"}

// sideEffects are the standard packages by which I/O is done.
var sideEffects = []string{"os", "os/exec", "net/http", "io/fs", "io/ioutil", "math/rand", "math/rand/v2"}
