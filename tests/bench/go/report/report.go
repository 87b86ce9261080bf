// Package report is how the load clients tell what they measured.
package report

import (
	"encoding/json"
	"log"
	"os"
	"syscall"
	"time"
)

// Say prints a line of JSON: the phase that was reached, and its figures.
func Say(phase string, values map[string]any) {
	values["phase"] = phase
	if err := json.NewEncoder(os.Stdout).Encode(values); err != nil {
		log.Fatal(err)
	}
}

// Milliseconds returns a duration in them.
func Milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// CPU returns the processor time that this process has used, in seconds.
func CPU() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
