package worker

import (
	"regexp"
	"slices"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
)

// TestActorsAway has actors live on other nodes: calls from everywhere, errors,
// limits, deaths.
func TestActorsAway(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	net := newTwin(t, guest.module)
	cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
	a := net.join("a", cfg)
	cfg.Capacity.CPU = 4 * wray.OneCPU
	has := func(names ...string) []wray.Custom {
		list := []wray.Custom{{Name: "there", Amount: 100 * wray.OneUnit}}
		for _, n := range names {
			list = append(list, wray.Custom{Name: n, Amount: wray.OneUnit})
		}
		return list
	}
	cfg.Custom = has("b", "moves")
	b := net.join("b", cfg)
	cfg.Custom = has("c")
	c := net.join("c", cfg)
	awaitPeers(t, a, 2)
	j := net.job(a, nil, "actors")
	var got []string
	for line := j.next(); line != "kill b"; line = j.next() {
		got = append(got, line)
	}
	if n := b.w.Stats().Tasks.Submitted; n < 5 {
		t.Errorf("node b was lent %d tasks", n)
	}

	// The same on one node, but for where it is.
	cfg.Custom = has("b", "c", "moves")
	alone := newTwin(t, guest.module)
	only := alone.join("a", cfg)
	k := alone.job(only, nil, "actors")
	var want []string
	for line := k.next(); line != "kill b"; line = k.next() {
		want = append(want, line)
	}
	// A call is canceled before it begins, or in it.
	where := regexp.MustCompile(" on [abc],|^(canceled: Canceled) on .*")
	for i, line := range got {
		if i < len(want) && where.ReplaceAllString(line, "$1") == where.ReplaceAllString(want[i], "$1") {
			want[i] = line
		}
	}
	j.wants(got, want...)
	for _, line := range []string{"errs: UserError on c, attempt 1, trace false: as it should",
		"late: ActorDied on b, attempt 1, trace false: the actor ended in this call"} {
		if !slices.Contains(got, line) {
			t.Errorf("not said: %s", line)
		}
	}
	k.goOn()
	alone.kill(only)

	cfg.Custom = has("moves")
	d := net.join("d", cfg)
	awaitPeers(t, a, 3)
	net.kill(b)
	j.goOn()
	j.wants(j.rest(),
		"under way: ActorDied on b, attempt 1, trace false: the actor ended while this call was under way",
		"later: ActorDied on b, attempt 0, trace false: the actor tally is gone",
		"moved: 2 <nil>")
	for _, e := range []*twinEnd{a, c, d} {
		awaitNothing(t, e)
	}
	net.close()
}

// TestKeyedFromAfar has a call of a durable actor that has a key be made once,
// from whichever node it is made again.
func TestKeyedFromAfar(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	net := newTwin(t, guest.module)
	states, err := statelog.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
	cfg.State = ownDir{states}
	a := net.join("a", cfg)
	cfg.State, cfg.Custom = nil, []wray.Custom{{Name: "there", Amount: 100 * wray.OneUnit}}
	b := net.join("b", cfg)
	awaitPeers(t, a, 1)
	j := net.job(a, nil, "keyed")
	j.wants(j.rest(), "there: 101 <nil>", "there again: 101 <nil>", "here again: 101 <nil>", "here: 111 <nil>", "then there: 111 <nil>",
		`another: UserError on b, attempt 1, trace false: task notes.note (attempt 1 on a): BadArgument: the key "b" was that of a call of another method, or with other arguments`,
		"new: 1111 <nil>")
	for _, e := range []*twinEnd{a, b} {
		awaitNothing(t, e)
	}
	net.close()
}
