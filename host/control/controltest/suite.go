// Package controltest holds implementations of control.Store to its contract
// ([Run]), puts faults between a node and its store ([Link]), and checks what
// concurrent clients saw for linearizability ([CheckHistories]).
package controltest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/host/control"
)

// Harness makes the stores that Run tests.
type Harness struct {
	// Open returns a store with nothing in it. Run closes it.
	Open func(t *testing.T) control.Store
	// Compact forgets what was before rev.
	Compact func(t *testing.T, s control.Store, rev control.Revision)
	// Outage takes the quorum away from s until restore is called. Nil where
	// that cannot be done.
	Outage func(t *testing.T, s control.Store) (restore func())
	// Bubble has each test run in a synctest bubble, on virtual time. The store
	// must do without the network. Without, tests run at the same time.
	Bubble bool
}

// tests are of a store with nothing in it.
var tests = []struct {
	name string
	test func(t *testing.T, h *Harness, s control.Store)
}{
	{"Records", testRecords},
	{"Conditions", testConditions},
	{"Commits", testCommits},
	{"Limits", testLimits},
	{"List", testList},
	{"Pages", testPages},
	{"Compaction", testCompaction},
	{"Watch", testWatch},
	{"WatchResumes", testWatchResumes},
	{"WatchWakes", testWatchWakes},
	{"Leases", testLeases},
	{"LeaseKeptAlive", testLeaseKeptAlive},
	{"LeaseUnbound", testLeaseUnbound},
	{"Contention", testContention},
	{"AgreesWithMemory", testAgrees},
	{"Outage", testOutage},
	{"Hold", testHold},
	{"HoldIsLost", testHoldIsLost},
	{"Tables", testTables},
	{"Actors", testActors},
	{"Closed", testClosed},
}

// Run holds a store to the contract of control.Store, and what stands on any
// store to its own.
func Run(t *testing.T, h *Harness) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			body := func(t *testing.T) {
				s := h.Open(t)
				defer func() {
					if err := s.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				}()
				c.test(t, h, s)
			}
			if h.Bubble {
				synctest.Test(t, body)
			} else {
				t.Parallel()
				body(t)
			}
		})
	}
}

// bg is the context of requests that must not take long.
func bg(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func commit(t *testing.T, s control.Store, txn control.Txn) control.Revision {
	t.Helper()
	rev, err := s.Commit(bg(t), txn)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

func put(t *testing.T, s control.Store, key, value string) control.Revision {
	t.Helper()
	return commit(t, s, control.Txn{Do: []control.Op{control.Put(key, []byte(value))}})
}

func get(t *testing.T, s control.Store, key string) control.Record {
	t.Helper()
	r, err := s.Get(bg(t), key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return r
}

func absent(t *testing.T, s control.Store, key string) {
	t.Helper()
	if r, err := s.Get(bg(t), key); !errors.Is(err, control.ErrNotFound) {
		t.Fatalf("get %q: %+v, %v; want ErrNotFound", key, r, err)
	}
}

func list(t *testing.T, s control.Store, req control.ListRequest) control.Page {
	t.Helper()
	p, err := s.List(bg(t), req)
	if err != nil {
		t.Fatalf("list %+v: %v", req, err)
	}
	return p
}

func watch(t *testing.T, s control.Store, prefix string, from control.Revision) control.Watcher {
	t.Helper()
	w, err := s.Watch(bg(t), prefix, from)
	if err != nil {
		t.Fatalf("watch %q from %d: %v", prefix, from, err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// events waits for n events of w, and for whole commits.
func events(t *testing.T, w control.Watcher, n int) []control.Event {
	t.Helper()
	var out []control.Event
	for len(out) < n {
		b, err := w.Next(bg(t))
		if err != nil {
			t.Fatalf("watch, after %s: %v", show(out), err)
		}
		for i, e := range b.Events {
			if e.Record.Modified > b.Revision || i > 0 && e.Record.Modified < b.Events[i-1].Record.Modified {
				t.Fatalf("batch up to %d is out of order: %s", b.Revision, show(b.Events))
			}
		}
		if len(out) > 0 && len(b.Events) > 0 && b.Events[0].Record.Modified <= out[len(out)-1].Record.Modified {
			t.Fatalf("commit %d came in two batches, or twice: %s and %s", b.Events[0].Record.Modified, show(out), show(b.Events))
		}
		out = append(out, b.Events...)
	}
	return out
}

func keys(records []control.Record) string {
	var out []string
	for _, r := range records {
		out = append(out, r.Key)
	}
	return strings.Join(out, " ")
}

// show writes events as "+key=value@revision" and "-key@revision".
func show(events []control.Event) string {
	var out []string
	for _, e := range events {
		if e.Deleted {
			out = append(out, fmt.Sprintf("-%s@%d", e.Record.Key, e.Record.Modified))
		} else {
			out = append(out, fmt.Sprintf("+%s=%s@%d", e.Record.Key, e.Record.Value, e.Record.Modified))
		}
	}
	return strings.Join(out, " ")
}
