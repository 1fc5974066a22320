package node

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/autoscale"
	"github.com/wray-project/wray/host/autoscale/plan"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/member"
)

// slow is a provider whose nodes go when they are let.
type slow struct {
	closing func()        // with drain, first
	let     chan struct{} // closed by Close without drain
	once    sync.Once
}

func (p *slow) List(context.Context) ([]plan.Instance, error) { return nil, nil }
func (p *slow) Start(context.Context, int) error              { return nil }
func (p *slow) Stop(context.Context, []string) error          { return nil }

func (p *slow) Close(drain bool) error {
	if !drain {
		p.once.Do(func() { close(p.let) })
		return nil
	}
	p.closing()
	<-p.let
	return nil
}

// TestDrainOfAHead holds that a head says that it drains while its nodes go, not
// when they have gone, and that it has gone when they have.
func TestDrainOfAHead(t *testing.T) {
	dir := t.TempDir()
	n, err := New(Config{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store := control.NewMemory(control.MemoryOptions{})
	if err := n.Join(ctx, member.Config{Name: "head", Dir: filepath.Join(dir, "head"), Listen: "127.0.0.1:0",
		OpenControl: func(context.Context, string, control.Port) (control.Store, error) { return store, nil }}); err != nil {
		t.Fatal(err)
	}
	m := n.Member()
	said := make(chan bool, 1)
	p := &slow{let: make(chan struct{})}
	p.closing = func() {
		defer p.Close(false)
		for ctx.Err() == nil {
			if e, ok := m.Nodes().Node("head"); ok && e.Node.Draining {
				said <- true
				return
			}
			time.Sleep(time.Millisecond)
		}
		said <- false
	}
	g := plan.Group{Name: "g", Max: 1, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1}, Idle: time.Minute, Patience: time.Minute, Starting: 1}
	if err := n.Autoscale(AutoscaleConfig{Groups: []plan.Group{g}, Providers: map[string]autoscale.Provider{"g": p}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Drain(time.Second); err != nil {
		t.Error(err)
	}
	select {
	case ok := <-said:
		if !ok {
			t.Error("the head does not say that it drains while its nodes do")
		}
	default:
		t.Error("the head has gone, and its nodes have not")
	}
}

// TestCloseProvider holds that nodes that drain have no longer than their head.
func TestCloseProvider(t *testing.T) {
	p := &slow{let: make(chan struct{}), closing: func() {}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := closeProvider(ctx, p, true); err != nil {
		t.Error(err)
	}
}
