package suite

import (
	"encoding/json"
	"flag"
	"os"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// row is what is told about a finished test.
type row struct {
	Name    string  `json:"name"`
	State   string  `json:"state"`
	Seconds float64 `json:"seconds"`
	Message string  `json:"message,omitempty"`
	Place   string  `json:"place,omitempty"`
}

var rowsFile string

func rowFlags() {
	flag.StringVar(&rowsFile, "rows", "", "append a line of JSON for each finished test to this file")
}

// tellRows writes a row at once, by the process that ran the test: an interrupted run loses none. To be called after the
// framework has read its flags: it previews all tests then, and what reports on tests before would report on the preview only.
func tellRows() {
	ginkgo.ReportAfterEach(func(report ginkgo.SpecReport) {
		// Tests that the focus leaves out are "skipped" without a word.
		left := report.State.Is(types.SpecStateSkipped|types.SpecStatePending) && report.Failure.Message == ""
		if rowsFile == "" || left {
			return
		}
		if err := appendRow(rowsFile, rowOf(report)); err != nil {
			ginkgo.AbortSuite("could not write a row: " + err.Error())
		}
	})
}

func rowOf(report ginkgo.SpecReport) row {
	r := row{
		Name: report.FullText(), State: report.State.String(), Seconds: report.RunTime.Seconds(), Message: report.Failure.Message,
	}
	if r.State == "panicked" {
		r.Message += " " + report.Failure.ForwardedPanic
	}
	// What a test says that was ended by its cap.
	if more := report.Failure.AdditionalFailure; more != nil {
		r.Message += ": " + more.Failure.Message
	}
	if report.Failed() {
		r.Place = report.Failure.Location.String()
	}
	return r
}

// appendRow writes one line by one write: processes that append to the same file do not mix their lines.
func appendRow(path string, r row) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		return err
	}
	return file.Close()
}
