package rpc

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/control"
)

// BenchmarkRevoked is how long what is done with a token goes on after that was
// revoked at a head: on a node that reaches the control state through one, over the
// loopback interface.
func BenchmarkRevoked(b *testing.B) {
	ctx := context.Background()
	m := control.NewMemory(control.MemoryOptions{})
	b.Cleanup(func() { m.Close() })
	w := newWorld(b, Options{Control: open(m)})
	store := NewControl(client(b, w.member("a"), "head", w.addr()))
	b.Cleanup(func() { store.Close() })
	check := access.NewChecker(store, access.CheckerOptions{})
	b.Cleanup(func() { check.Close() })
	p := &access.People{Store: m}
	if err := p.AddUser(ctx, access.Home, "ann", access.Developer, false, ""); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		s, _, err := p.NewToken(ctx, access.Home, "ann", access.TokenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		var who access.Principal
		for who.Token == "" {
			who, _ = check.Verify(s.Reveal())
		}
		held, release := check.Hold(ctx, who)
		b.StartTimer()
		begun := time.Now()
		if _, err := p.RevokeToken(ctx, access.Home, s.ID()); err != nil {
			b.Fatal(err)
		}
		<-held.Done()
		took = append(took, time.Since(begun))
		release()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "median-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
	b.ReportMetric(float64(took[len(took)-1])/1e3, "most-µs")
}
