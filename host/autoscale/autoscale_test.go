package autoscale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/autoscale/plan"
)

// twin is a provider in memory.
type twin struct {
	mu    sync.Mutex
	names []string
	fails error
	next  int
	said  []string
}

func (p *twin) List(context.Context) (list []plan.Instance, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.names {
		list = append(list, plan.Instance{Name: n})
	}
	return list, p.fails
}

func (p *twin) Start(_ context.Context, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, fmt.Sprintf("start %d", n))
	if p.fails != nil {
		return p.fails
	}
	for range n {
		p.names = append(p.names, fmt.Sprintf("n-%d", p.next))
		p.next++
	}
	return nil
}

func (p *twin) Stop(_ context.Context, names []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, fmt.Sprintf("stop %v", names))
	p.names = slices.DeleteFunc(p.names, func(n string) bool { return slices.Contains(names, n) })
	return nil
}

func (p *twin) Close(bool) error { return nil }

// TestRun runs a driver over a provider and nodes in memory: it scales up and
// down, does nothing while the provider is blind, and nothing when it leads no
// more.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &twin{}
		var mu sync.Mutex
		waiting, leads := 0, true
		var drained []string
		var states []plan.State
		told := 0
		foreign := true
		group := plan.Group{Name: "g", Max: 3, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1}, Idle: 10 * time.Second, Patience: time.Minute, Starting: 3}
		joined := map[string]time.Duration{}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			Run(ctx, Options{Groups: []plan.Group{group}, Providers: map[string]Provider{"g": p},
				See: func(_ context.Context, now time.Duration) (nodes []plan.Node, demand []plan.Demand) {
					mu.Lock()
					defer mu.Unlock()
					list := slices.Clone(p.names)
					if foreign {
						list = append(list, "x")
					}
					for _, n := range list {
						if _, ok := joined[n]; !ok {
							joined[n] = now
						}
						nodes = append(nodes, plan.Node{Name: n, Group: "g", Capacity: group.Capacity, Free: group.Capacity, IdleSince: joined[n]})
					}
					return nodes, []plan.Demand{{Resources: wray.Resources{CPU: wray.OneCPU}, Count: waiting}}
				},
				Drain: func(_ context.Context, name string) error {
					mu.Lock()
					defer mu.Unlock()
					drained, foreign = append(drained, name), false
					return nil
				},
				Lead: func() bool { mu.Lock(); defer mu.Unlock(); return leads },
				Tell: func(s []plan.State) { mu.Lock(); defer mu.Unlock(); states, told = s, told+1 }})
		})
		step := func(d time.Duration, change func()) {
			mu.Lock()
			p.mu.Lock()
			change()
			p.mu.Unlock()
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
		}
		want := func(what ...string) {
			t.Helper()
			p.mu.Lock()
			defer p.mu.Unlock()
			if !slices.Equal(p.said, what) {
				t.Errorf("it did %q, want %q", p.said, what)
			}
			p.said = nil
		}
		step(5*time.Second, func() { waiting = 2 })
		want("start 1") // beside x
		step(20*time.Second, func() { waiting, p.fails = 0, errors.New("away") })
		want()
		step(time.Second, func() { p.fails = nil })
		want("stop [n-0]")
		if !slices.Equal(drained, []string{"x"}) {
			t.Errorf("drained: %v", drained)
		}
		step(20*time.Second, func() { leads, waiting, told = false, 3, 0 })
		want()
		// Perhaps nobody leads: what is promised is promised on.
		if told < 19 || len(states) != 1 || states[0].Name != "g" {
			t.Errorf("while it may lead yet, it says %d times %+v", told, states)
		}
		step(5*time.Second, func() { leads = true })
		want("start 3")
		if len(states) != 1 || states[0].Wanted != 3 {
			t.Errorf("it says %+v", states)
		}
		cancel()
		wg.Wait()
	})
}

// TestAct holds that what is drained and stopped is so although nothing can be
// started.
func TestAct(t *testing.T) {
	p := &twin{fails: errors.New("no more of those")}
	var drained []string
	d := &driver{Options: Options{Lead: func() bool { return true }, Log: slog.New(slog.DiscardHandler),
		Drain: func(_ context.Context, name string) error {
			drained = append(drained, name)
			return errors.New("not heard")
		}}}
	err := d.act(t.Context(), p, []plan.Action{{Kind: plan.Start, Count: 2}, {Kind: plan.Drain, Name: "x"}, {Kind: plan.Drain, Name: "y"}, {Kind: plan.Stop, Name: "z"}})
	if !slices.Equal(p.said, []string{"start 2", "stop [z]"}) || !slices.Equal(drained, []string{"x", "y"}) {
		t.Errorf("it did %q, and drained %v", p.said, drained)
	}
	if err == nil || !strings.Contains(err.Error(), "no more of those") || !strings.Contains(err.Error(), "drain y: not heard") {
		t.Errorf("it says %v", err)
	}
}

// TestRead reads files, and says what is wrong with them.
func TestRead(t *testing.T) {
	c, err := Read(strings.NewReader(`
groups:
  - {name: big, provider: local, max: 4, cpus: 2.5, labels: {disk: ssd}, resources: {gpu: "0.5"}, idle: 1s, flags: [--object-store-memory, 1GiB]}
  - {name: pods, provider: kubernetes, min: 1, max: 9, cpus: 8, memory: 16Gi, join: 10m, settle: 5s, starting: 2, kubernetes: {namespace: n, statefulset: s}}
`))
	if err != nil {
		t.Fatal(err)
	}
	big, err := c.Groups[0].Plan(77)
	if err != nil {
		t.Fatal(err)
	}
	if big.Capacity != (wray.Resources{CPU: 25_000, Memory: 77}) || big.Idle != time.Second || big.Patience != 5*time.Minute || big.Ordered ||
		!slices.Contains(big.Labels, wray.Label{Key: "wray/group", Value: "big"}) || !slices.Contains(big.Labels, wray.Label{Key: "disk", Value: "ssd"}) ||
		!slices.Equal(big.Custom, []wray.Custom{{Name: "gpu", Amount: 5000}}) {
		t.Errorf("big is %+v", big)
	}
	pods, err := c.Groups[1].Plan(77)
	if err != nil || pods.Capacity.Memory != 16<<30 || !pods.Ordered || pods.Starting != 2 || pods.Settle != 5*time.Second || pods.Idle != 5*time.Minute {
		t.Errorf("pods are %+v, %v", pods, err)
	}
	const good = "name: a, provider: local, max: 1, cpus: 1"
	for text, says := range map[string]string{
		"": "0 groups",
		"groups: [{" + good + "}, {" + good + "}]":                                 "one of the name",
		"groups: [{" + good + ", colour: red}]":                                    "colour",
		"groups: [{name: A, provider: local, max: 1, cpus: 1}]":                    "lower case",
		"groups: [{name: a, provider: cloud, max: 1, cpus: 1}]":                    "local or kubernetes",
		"groups: [{name: a, provider: local, cpus: 1}]":                            "max: 0",
		"groups: [{name: a, provider: local, max: 1}]":                             "how many cores",
		"groups: [{" + good + ", min: 2}]":                                         "min: 2",
		"groups: [{" + good + ", idle: 0s}]":                                       "want 1s at least",
		"groups: [{" + good + ", idle: soon}]":                                     "is not a time",
		"groups: [{" + good + ", idle: -1s}]":                                      "is not a time",
		"groups: [{" + good + ", memory: 1GiB}]":                                   "that of this machine",
		"groups: [{" + good + ", labels: {wray/os: plan9}}]":                       "the node's own",
		"groups: [{" + good + ", labels: {a: 'b c'}}]":                             "letters",
		"groups: [{" + good + ", resources: {gpu: many}}]":                         "decimal",
		"groups: [{" + good + ", flags: [--name=x]}]":                              "set for each node",
		"groups: [{" + good + ", kubernetes: {deployment: d}}]":                    "the provider is local",
		"groups: [{name: a, provider: kubernetes, max: 1, cpus: 1}]":               "name a statefulset",
		"groups: [{name: a, provider: kubernetes, max: 1, cpus: 1, memory: lots}]": "number of bytes",
		"groups: [{name: a, provider: kubernetes, max: 1, cpus: 1, kubernetes: {deployment: d}}, {name: b, provider: kubernetes, max: 1, cpus: 1, kubernetes: {deployment: d}}]": "that of group",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}
