package node

import (
	"context"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// playWorker has a node take a function for its worker.
func playWorker(t *testing.T, answer func(link.Kind) (any, error)) *Node {
	t.Helper()
	parent, file, err := link.Pair(link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	child, err := link.FromFile(file, link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		_ = child.Serve(ctx, func(_ context.Context, m link.Message) (link.Message, error) {
			m.CloseFiles()
			out, err := answer(m.Kind)
			if err != nil {
				return link.Message{}, err
			}
			b, err := link.Marshal(out)
			return link.Message{Body: b}, err
		})
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		_ = parent.Serve(ctx, func(context.Context, link.Message) (link.Message, error) { return link.Message{}, link.ErrProtocol })
	}()
	t.Cleanup(func() {
		cancel()
		parent.Close()
		child.Close()
		<-done
		<-done
	})
	n := &Node{cfg: Config{Name: "here", Tenant: "local", Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 30}}, tenants: map[string]*tenant{}}
	n.tenants["local"] = &tenant{n: n, name: "local", worker: &workerProcess{conn: parent}}
	return n
}

// TestStatusInParts: what a worker does not tell keeps nothing else from being
// told, and is said.
func TestStatusInParts(t *testing.T) {
	ctx := context.Background()
	refuses := &wray.Error{Code: wray.CodeBadArgument, Message: "it does not say"}
	waits := worker.ExplainedBody{Explained: clientwire.Explained{Tasks: []clientwire.Wait{{Name: "t", State: clientwire.WaitQueued, Count: 2,
		Nodes: []clientwire.NodeVerdict{{Node: "here"}, {Node: "there"}}}}}}
	for name, c := range map[string]struct {
		fails   link.Kind
		partial string
	}{
		"all is told":        {},
		"not what waits":     {worker.KindExplain, "what waits: "},
		"not how many tasks": {worker.KindStats, "the tasks of this node: "},
	} {
		t.Run(name, func(t *testing.T) {
			n := playWorker(t, func(kind link.Kind) (any, error) {
				switch {
				case kind == c.fails:
					return nil, refuses
				case kind == worker.KindExplain:
					return waits, nil
				}
				return worker.StatsBody{Running: 7}, nil
			})
			s, err := n.Status(ctx, "")
			if err != nil || s.Node != "here" {
				t.Fatalf("status: %+v, %v", s, err)
			}
			if told := s.Tasks.Running == 7; told != (c.fails != worker.KindStats) {
				t.Errorf("%d tasks run", s.Tasks.Running)
			}
			if told := s.Waits != nil && len(s.Waits.Tasks) == 1 && s.Waits.Tasks[0].Nodes[0].Node == "here"; told != (c.fails != worker.KindExplain) {
				t.Errorf("what waits: %+v", s.Waits)
			}
			if c.partial == "" && len(s.Partial) > 0 || c.partial != "" && (len(s.Partial) != 1 || !strings.HasPrefix(s.Partial[0], c.partial)) {
				t.Errorf("what could not be had: %q, want %q", s.Partial, c.partial)
			}
		})
	}
}

// TestExplainWithoutWorker: a node that has run nothing has all it has free, and
// knows nothing by name.
func TestExplainWithoutWorker(t *testing.T) {
	n := &Node{tenants: map[string]*tenant{}, cfg: Config{Name: "here", Tenant: "local", Capacity: wray.Resources{CPU: 2 * wray.OneCPU, Memory: 1 << 30}, Custom: []wray.Custom{{Name: "gpu", Amount: wray.OneUnit}}}}
	x, err := n.Explain(context.Background(), "", clientwire.ExplainBody{})
	if err != nil || x.Node != "here" || len(x.Resources) != 3 || x.Resources[0].Free != 2 || x.Resources[2].Free != 1 {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := n.Explain(context.Background(), "", clientwire.ExplainBody{What: "x"}); err == nil || err.(*wray.Error).Hint == "" {
		t.Errorf("of what is not there: %v", err)
	}
}
