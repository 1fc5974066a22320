package node

import (
	"fmt"

	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/internal/link"
)

// reservedFiles are the descriptors, of so many that the process may have, which
// tenants do not get: for connections, the control state, jobs and workers that
// start, and messages that are read before it is known what came with them.
func reservedFiles(limit int) int { return max(limit/4, min(1024, limit/2)) }

// newDescriptors returns what all tenants may hold; nil where the system does not
// say how many a process may have.
func newDescriptors(limit int) *fd.Budget {
	if limit <= 0 {
		return nil
	}
	return fd.NewBudget(limit - reservedFiles(limit))
}

// linkOptions are those of the link to a worker, at the node's end.
func (t *tenant) linkOptions() link.Options {
	o := worker.LinkOptions()
	if t.fds != nil {
		o.Descriptors = t.fds
	}
	return o
}

// noFiles closes the files of a message of a kind that takes none.
func noFiles(m link.Message) error {
	m.CloseFiles()
	if len(m.Files) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d files came with a message of kind %d, which takes none", link.ErrProtocol, len(m.Files), m.Kind)
}
