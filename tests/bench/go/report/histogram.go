package report

import "time"

const (
	resolution = 10 * time.Microsecond
	buckets    = 6_000_000 // so that a minute fits; what is later is in the last one
)

// Histogram counts latenesses.
type Histogram struct {
	Maximum time.Duration
	counts  []uint32
	total   int
}

// NewHistogram returns an empty one.
func NewHistogram() Histogram { return Histogram{counts: make([]uint32, buckets)} }

// Record counts one; what is early is not late.
func (h *Histogram) Record(lateness time.Duration) {
	lateness = max(lateness, 0)
	h.Maximum = max(h.Maximum, lateness)
	h.counts[min(int(lateness/resolution), buckets-1)]++
	h.total++
}

// Percentile returns the middle of the bucket in which that part of all is reached.
func (h *Histogram) Percentile(part float64) time.Duration {
	seen, wanted := 0, part*float64(h.total)
	for i, n := range h.counts {
		seen += int(n)
		if n > 0 && float64(seen) >= wanted {
			return min(time.Duration(i)*resolution+resolution/2, h.Maximum)
		}
	}
	return 0
}
