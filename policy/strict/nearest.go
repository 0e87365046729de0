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

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
