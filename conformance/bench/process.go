package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is the server, seen from outside.
type Process int

// cpu is what all threads of the process, ended ones too, have used so far: its CPU clock, exact to the nanosecond, where
// /proc/PID/stat counts in ticks of 10 ms. The identifier is that of clock_getcpuclockid(3).
func (p Process) cpu() (time.Duration, error) {
	const ofWholeProcess = 2
	var now unix.Timespec
	if err := unix.ClockGettime(^int32(p)<<3|ofWholeProcess, &now); err != nil {
		return 0, fmt.Errorf("the CPU clock of process %d: %w", p, err)
	}
	return time.Duration(now.Nano()), nil
}

// cost runs f and returns the CPU that the process used meanwhile.
func (p Process) cost(f func() error) (time.Duration, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return after - before, err
}

// residentMiB is the resident memory.
func (p Process) residentMiB() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		return 0, fmt.Errorf("the server has ended: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "VmRSS:"); is {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", p)
}
