package limit

// nearest is the candidate that a misspelt word most likely means, or "" if none is near.
func nearest(word string, candidates []string) string {
	best, found := 1+max(2, len(word)/3), ""
	for _, c := range candidates {
		if d := distance(word, c); d < best {
			best, found = d, c
		}
	}
	return found
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(above+1, row[j]+1, cost)
			corner = above
		}
	}
	return row[len(b)]
}
