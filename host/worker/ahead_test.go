package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestCallsAhead has hundreds of calls wait for an actor on another node, where
// some wait and the others do not, and looks what becomes of them when they are
// canceled, and when their actor, or its node, is lost.
func TestCallsAhead(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	const all = 300
	canceled := "hang: Canceled on %s, attempt 2, trace false: context canceled"
	for _, test := range []struct {
		how, mode string // of the guest
		late      time.Duration
		do        func(c *aheadCluster) // what happens meanwhile
		want      []string
	}{
		{how: "waits", do: func(c *aheadCluster) {
			c.asked(1 + all)
			c.there(c.b, 1+aheadCalls)
			c.j.wants([]string{c.j.next()}, "busy")
			c.j.goOn()
			for _, line := range []string{
				"canceled: Canceled on b, attempt 0, trace false: the call was canceled", // it was there
				"canceled: Canceled on a, attempt 0, trace false: the call was canceled", // it was not
				"canceled"} {
				c.j.wants([]string{c.j.next()}, line)
			}
			c.there(c.b, 1+aheadCalls)
			c.j.goOn()
		}, want: []string{"adds: 298 gave 1 to 298"}},
		{how: "limit", do: func(c *aheadCluster) {
			c.there(c.b, 1)
			c.j.goOn()
		}, want: []string{"busy", "many: LimitExceeded on a, attempt 0, trace false: actor tally has 5 calls that wait", "adds: 5 gave 1 to 5"}},
		{how: "once", do: func(c *aheadCluster) { // what may not run twice goes alone
			c.asked(1 + all)
			c.there(c.b, 1)
			c.j.goOn()
			c.net.kill(c.b)
			c.join("d")
			c.j.goOn()
		}, want: []string{"busy", "busy again", "hang: ActorDied on b, attempt 1, trace false: the actor ended while this call was under way; " +
			"it starts again without the effects of 0 calls that it had answered", "adds: 300 gave 1 to 300"}},
		{how: "again", mode: "killed", do: func(c *aheadCluster) {
			c.there(c.b, 1+aheadCalls)
			c.j.goOn()
			c.net.kill(c.b)
			c.there(c.join("d"), 1+aheadCalls)
			c.j.goOn()
		}, want: []string{"busy", "busy again", fmt.Sprintf(canceled, "d"), "adds: 300 gave 1 to 300"}},
		{how: "again", mode: "left", do: func(c *aheadCluster) {
			c.there(c.b, 1+aheadCalls)
			c.j.goOn()
			d := c.join("d")
			ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
			defer cancel()
			over, cut := context.WithCancel(ctx)
			cut()
			c.b.w.Leave(ctx, over)
			c.net.kill(c.b)
			c.there(d, 1+aheadCalls)
			c.j.goOn()
		}, want: []string{"busy", "busy again", fmt.Sprintf(canceled, "d"), "adds: 300 gave 1 to 300"}},
		{how: "restart", do: func(c *aheadCluster) {
			c.there(c.b, 1+aheadCalls)
			c.j.goOn()
			awaitThat(c.t, func() error {
				if n := c.a.w.Stats().Tasks.Retried; n != 1 {
					return fmt.Errorf("the actor has started again %d times", n)
				}
				return nil
			})
			c.there(c.b, 1+aheadCalls)
			c.j.goOn()
		}, want: []string{"busy", "busy again", fmt.Sprintf(canceled, "b"), "adds: 300 gave 1 to 300"}},
		{how: "lost", do: func(c *aheadCluster) {
			c.there(c.b, 1+aheadCalls)
			c.net.kill(c.b)
			c.j.goOn()
		}, want: []string{"busy", "hang: 1 failed: ActorDied, attempt 1: the actor ended while this call was under way",
			"adds: 256 failed: ActorDied, attempt 1: the actor ended while this call was under way",
			"adds: 44 failed: ActorDied, attempt 0: the actor tally is gone"}},
		{how: "dies", late: time.Millisecond,
			want: []string{"calls: 300 gave 1 to 300", "calls: 1 failed: ActorDied, attempt 1: the actor ended in this call",
				"calls: 1200 failed: ActorDied, attempt 0: the actor tally is gone"}},
		{how: "dies again", late: time.Millisecond,
			want: []string{"calls: 300 gave 1 to 300",
				"calls: 1 failed: ActorDied, attempt 2: the actor ended in this call; it starts again without the effects of 0 calls that it had answered",
				"calls: 1200 gave 1 to 1200"}},
		{how: "wide", do: func(c *aheadCluster) {
			c.there(c.b, 4+aheadCalls)
			c.j.goOn()
		}, want: []string{"busy", "wide: 300 <nil>"}},
		{how: "large", do: func(c *aheadCluster) {
			for range 2 {
				c.j.wants([]string{c.j.next()}, "busy")
				c.asked(1 + all)
				c.there(c.b, 1+aheadBytes/60_000+1)
				c.j.goOn()
				c.j.wants([]string{c.j.next()}, "large: 60000 <nil>")
			}
		}},
		{how: "callers", want: []string{"callers: [600 600 600] <nil>"}},
	} {
		t.Run(test.how+test.mode, func(t *testing.T) {
			net := newTwin(t, guest.module)
			net.late = test.late
			cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
			c := &aheadCluster{t: t, net: net, a: net.join("a", cfg)}
			cfg.Capacity.CPU = 4 * wray.OneCPU
			join := func(node string, has ...string) *twinEnd {
				cfg.Custom = nil
				for _, name := range has {
					cfg.Custom = append(cfg.Custom, wray.Custom{Name: name, Amount: wray.OneUnit})
				}
				return net.join(node, cfg)
			}
			c.join = func(node string) *twinEnd { return join(node, "moves", "there") }
			c.b = join("b", "b", "moves", "there")
			c.c = join("c", "c")
			awaitPeers(t, c.a, 2)
			c.j = net.job(c.a, nil, "ahead", test.how)
			if test.do != nil {
				test.do(c)
			}
			c.j.wants(c.j.rest(), test.want...)
			net.mu.Lock()
			var left []*twinEnd
			for _, e := range net.ends {
				if !e.dead {
					left = append(left, e)
				}
			}
			net.mu.Unlock()
			for _, e := range left {
				awaitNothing(t, e)
			}
			net.close()
		})
	}
}

// aheadCluster is where an actor lives on b.
type aheadCluster struct {
	t       *testing.T
	net     *twin
	a, b, c *twinEnd
	j       *clusterJob
	join    func(node string) *twinEnd // one that has room for the actor
}

// there waits until so many calls are at e, beside the actor.
func (c *aheadCluster) there(e *twinEnd, n int) {
	c.t.Helper()
	awaitThat(c.t, func() error {
		if have := e.hosted(); have != n+1 {
			return fmt.Errorf("%d calls at %s, not %d", have-1, e.node, n)
		}
		return nil
	})
}

// asked waits until so many calls have been made that have not ended.
func (c *aheadCluster) asked(n int) {
	c.t.Helper()
	awaitThat(c.t, func() error {
		c.a.w.calls.mu.Lock()
		defer c.a.w.calls.mu.Unlock()
		if have := len(c.a.w.calls.m); have != n {
			return fmt.Errorf("%d calls, not %d", have, n)
		}
		return nil
	})
}

// hosted counts what peers have lent to a worker, actors and their calls.
func (e *twinEnd) hosted() int { return e.w.peers.lentTo() }

// awaitThat waits until there is nothing wrong.
func awaitThat(t testing.TB, wrong func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	defer cancel()
	for {
		err := wrong()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

// BenchmarkFarCalls is a call of an actor on another node, of many that one
// caller makes at once; with a latency that is played on each way, or none.
func BenchmarkFarCalls(b *testing.B) {
	guest := compileGuest(b, "cluster")
	for _, late := range []time.Duration{0, time.Millisecond} {
		b.Run(fmt.Sprint("late=", late), func(b *testing.B) {
			net := newTwin(b, guest.module)
			net.late = late
			cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
			a := net.join("a", cfg)
			cfg.Custom = []wray.Custom{{Name: "there", Amount: wray.OneUnit}}
			net.join("b", cfg)
			awaitPeers(b, a, 1)
			j := net.job(a, nil, "ahead", "calls", fmt.Sprint(b.N))
			if line := j.next(); line != "ready" {
				b.Fatal(line)
			}
			b.ResetTimer()
			j.wants(j.rest(), fmt.Sprintf("calls: %d gave 1 to %d", b.N, b.N))
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			net.close()
		})
	}
}
