package arch

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/credence-mesh/credence"

// pkg is what `go list -json` says about a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// check names every wrong arrow: the package, the import and the rule.
func check(packages []pkg) []string {
	var wrong []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		row := slices.IndexFunc(rooms, func(r room) bool { return r.path == name })
		if row < 0 {
			wrong = append(wrong, fmt.Sprintf("%s is not in the table of internal/arch/table.go: say what it may import", name))
			continue
		}
		for _, imported := range p.Imports {
			if rule := refuse(rooms[row], imported); rule != "" {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", name, imported, rule))
			}
		}
		for _, imported := range append(p.TestImports, p.XTestImports...) {
			if rule := refuseInTest(name, imported); rule != "" {
				wrong = append(wrong, fmt.Sprintf("a test of %s imports %s: %s", name, imported, rule))
			}
		}
	}
	return wrong
}

// refuse is the rule that an import breaks; empty where it is fine.
func refuse(r room, imported string) string {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		return refuseOurs(r, ours)
	}
	if slices.Contains(pure, r.path) && slices.Contains(sideEffects, imported) {
		return "this room is pure: values in, values out, no I/O"
	}
	if matches([]string{"bench/..."}, r.path) {
		return ""
	}
	for _, g := range guards {
		if strings.HasPrefix(imported, g.library) && !slices.Contains(g.rooms, r.path) {
			return g.why
		}
	}
	return ""
}

func refuseOurs(r room, ours string) string {
	switch {
	case matches(nobody, ours):
		return "nobody imports it"
	case slices.Contains(forTests, ours) && !slices.Contains(forTests, r.path):
		return "only tests may"
	case !matches(r.may, ours):
		return fmt.Sprintf("it may import %s only", list(r.may))
	}
	return ""
}

// refuseInTest: tests may set the scene with any room, as long as the arrows form no way around the rules of cmd and e2e.
func refuseInTest(name, imported string) string {
	ours, ok := strings.CutPrefix(imported, module+"/")
	if ok && ours != name && matches(nobody, ours) {
		return "nobody imports it"
	}
	return ""
}

// matches tells whether a name is in a list where "x/..." stands for x and everything below, and "..." for everything.
func matches(list []string, name string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		prefix, all := strings.CutSuffix(entry, "...")
		return entry == name || all && (strings.HasPrefix(name, prefix) || name+"/" == prefix)
	})
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing of ours"
	}
	return strings.Join(names, ", ")
}
