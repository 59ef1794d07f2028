package suite

import (
	"context"
	"flag"
	"reflect"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
)

// capDefault is the longest that a test may take.
const capDefault = 5 * time.Minute

// waitsByDesign names the tests that wait about as long as the cap when all is well, by the text of their It.
var waitsByDesign = map[string]time.Duration{
	// Until etcd is compacted, which kube-apiserver does every five minutes.
	"should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent": 11 * time.Minute,
	// Watches five minutes long that a suspended CronJob starts nothing.
	"should not schedule jobs when suspended": 7 * time.Minute,
	// Waits five minutes long that a pod is not scheduled.
	"validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP": 8 * time.Minute,
	// Waits until 499 updates have gone to the node and back.
	"issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34]": 7 * time.Minute,
}

var capOfTest time.Duration

func capFlags() {
	flag.DurationVar(&capOfTest, "cap", capDefault, "the longest that a test may take")
}

// capTests gives each It a SpecTimeout. Ginkgo then cancels the test's context, waits a short time for it and goes on
// with the cleanup and the next test. An It without a context cannot be cancelled and gets none.
func capTests() {
	ginkgo.AddTreeConstructionNodeArgsTransformer(
		func(node types.NodeType, _ ginkgo.Offset, text string, args []any) (string, []any, []error) {
			if node.Is(types.NodeTypeIt) && cancellable(args) {
				args = append(args, ginkgo.SpecTimeout(capFor(text, args)))
			}
			return text, args, nil
		})
}

// capFor finds a test's cap; its text may stand among the arguments.
func capFor(text string, args []any) time.Duration {
	texts := []string{text}
	for _, arg := range args {
		if s, ok := arg.(string); ok {
			texts = append(texts, s)
		}
	}
	for _, s := range texts {
		if longer, ok := waitsByDesign[s]; ok && longer > capOfTest {
			return longer
		}
	}
	return capOfTest
}

// cancellable: the body takes a context, and nothing else sets a timeout.
func cancellable(args []any) bool {
	taken := false
	for _, arg := range args {
		switch arg.(type) {
		case ginkgo.SpecTimeout, ginkgo.NodeTimeout:
			return false
		}
		if arg == nil {
			continue
		}
		of := reflect.TypeOf(arg)
		if of.Kind() == reflect.Func && of.NumIn() == 1 && of.In(0).Implements(reflect.TypeFor[context.Context]()) {
			taken = true
		}
	}
	return taken
}
