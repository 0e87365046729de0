package strict

import "strings"

// Nearest finds the valid name that a mistyped one most likely meant: at most a third of its letters differ, two at least are allowed.
func Nearest(name string, valid []string) (string, bool) {
	best, bestCost := "", max(2, len(name)/3)+1
	if len(name) > 64 {
		return "", false
	}
	lower := strings.ToLower(name)
	for _, v := range valid {
		cost := distance(lower, strings.ToLower(v))
		if cost < bestCost && cost < len(v) {
			best, bestCost = v, cost
		}
	}
	return best, best != ""
}

// distance is Levenshtein's, in bytes, where two letters that changed places count once: that is how most names are mistyped.
func distance(a, b string) int {
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		older, old, row = old, row, older
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(old[j]+cost, old[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
