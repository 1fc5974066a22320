//go:build !wasip1

package rt

import (
	"os"

	"github.com/wray-project/wray"
)

// placed refuses what is to run elsewhere: the process is a cluster of one, of a
// node that is called as a node on this machine would be.
func placed(s *Spec) error {
	if len(s.Place) == 0 {
		return nil
	}
	p, err := wray.ParsePlacement(string(s.Place))
	if err != nil {
		return &wray.Error{Code: wray.CodeBadArgument, Message: err.Error()}
	}
	name, _ := os.Hostname()
	if why, ok := p.Allows(name, wray.NodeLabels(name, nil)); !ok {
		return &wray.Error{Code: wray.CodeUnschedulable, Task: s.Name, Message: "no node could ever hold it: " + name + ": " + why,
			Hint: "one process (go run) is a cluster of one; wray run has nodes with labels: see wray start --labels"}
	}
	return nil
}
