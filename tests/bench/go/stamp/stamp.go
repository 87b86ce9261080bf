// Package stamp is what each event of the fan-out carries: its number, when it was due and when it
// was published, in nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
//
// It is written at the end of the data, behind a mark that comes nowhere else in a stream, so that
// it is found without reading the event: "xxx…xxx@12 34567890 34567891".
package stamp

import (
	"log"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Mark precedes the numbers.
const Mark = '@'

// Limit is the length that no stamp reaches: three numbers of 19 digits, and what is around them.
const Limit = 64

// padding makes the data about 100 bytes long.
var padding = strings.Repeat("x", 64)

// Stamp is an event's.
type Stamp struct {
	Number    int64
	Due       int64
	Published int64
}

// Append appends an event's data.
func (s Stamp) Append(data []byte) []byte {
	data = append(append(data, padding...), Mark)
	data = append(strconv.AppendInt(data, s.Number, 10), ' ')
	data = append(strconv.AppendInt(data, s.Due, 10), ' ')
	return strconv.AppendInt(data, s.Published, 10)
}

// Parse reads what stands between the mark and the end of the line.
func Parse(line []byte) (Stamp, bool) {
	var numbers [3]int64
	i := 0
	for _, b := range line {
		switch {
		case '0' <= b && b <= '9':
			numbers[i] = numbers[i]*10 + int64(b-'0')
		case b == ' ' && i < 2:
			i++
		case b == '\r': // of the line's end
		default:
			return Stamp{}, false
		}
	}
	return Stamp{numbers[0], numbers[1], numbers[2]}, i == 2
}

var began, beganAt = calibrate()

// Now returns CLOCK_MONOTONIC's time. Go's own clock is the same one and costs no system call, but
// tells only differences.
func Now() int64 { return beganAt + int64(time.Since(began)) }

// calibrate returns one instant on both clocks: the best of a few tries.
func calibrate() (time.Time, int64) {
	const monotonic = 1
	var best time.Time
	var bestAt int64
	least := time.Hour
	for range 20 {
		before := time.Now()
		var at syscall.Timespec
		_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&at)), 0)
		if errno != 0 {
			log.Fatal("clock_gettime: ", errno)
		}
		if took := time.Since(before); took < least {
			least, best, bestAt = took, before, at.Nano()-int64(took/2)
		}
	}
	return best, bestAt
}
