package member

import (
	"context"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
)

// alone starts a head whose control state is in memory, and returns what has
// others join it. All end with the test, or with ctx.
func alone(t *testing.T) (ctx context.Context, s control.Store, head *Member, join func(name string) *Member) {
	t.Helper()
	memory := control.NewMemory(control.MemoryOptions{})
	t.Cleanup(func() { memory.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	start := func(c Config) *Member {
		t.Helper()
		c.Dir, c.Listen, c.Probe, c.Offer = t.TempDir(), "127.0.0.1:0", 200*time.Millisecond, directory.Node{Version: "test"}
		m, err := Start(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	head = start(Config{Name: "head", OpenControl: func(context.Context, string, control.Port) (control.Store, error) { return memory, nil }})
	return ctx, memory, head, func(name string) *Member {
		t.Helper()
		tok, err := head.NewToken(ctx, auth.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return start(Config{Name: name, Join: head.Self().Addr, Token: tok.Reveal()})
	}
}
