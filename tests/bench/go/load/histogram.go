package main

import "time"

const (
	resolution = 10 * time.Microsecond
	buckets    = 6_000_000 // so that a minute fits; what is later is in the last one
)

// histogram counts latenesses.
type histogram struct {
	counts  []uint32
	total   int
	maximum time.Duration
}

func newHistogram() histogram { return histogram{counts: make([]uint32, buckets)} }

// record counts one; what is early is not late.
func (h *histogram) record(lateness time.Duration) {
	lateness = max(lateness, 0)
	h.maximum = max(h.maximum, lateness)
	h.counts[min(int(lateness/resolution), buckets-1)]++
	h.total++
}

// percentile returns the middle of the bucket in which that part of all is reached.
func (h *histogram) percentile(part float64) time.Duration {
	seen, wanted := 0, part*float64(h.total)
	for i, n := range h.counts {
		seen += int(n)
		if n > 0 && float64(seen) >= wanted {
			return min(time.Duration(i)*resolution+resolution/2, h.maximum)
		}
	}
	return 0
}
