package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/testenv"
	"github.com/wray-project/wray/tests/hostile"
)

// newTenants is a node that has tenants besides its own.
func newTenants(t testing.TB, all map[string]control.Tenant) *node.Node {
	t.Helper()
	n, err := node.New(node.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Name: "test", Tenants: all})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestBar11Tenants has a guest ask about a million handles that nobody gave it, and
// its tenant about what there is, while another tenant's job holds objects.
func TestBar11Tenants(t *testing.T) {
	testenv.NeedBars(t)
	n := newTenants(t, map[string]control.Tenant{"holder": {}, "forger": {}})
	holder := caseNamed(t, "call-put-tiny") // keeps what it puts
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan error, 1)
	go func() {
		_, err := n.Run(ctx, node.Job{Name: holder.Name, Tenant: "holder", Modules: []node.Module{{Name: holder.Name, Wasm: holder.Wasm()}}, Limits: worker.Limits{Memory: 512 << 20}})
		held <- err
	}()
	awaitObjects(t, n, "holder", 10_000)
	c := caseNamed(t, "known-handles")
	code, err := n.Run(t.Context(), node.Job{Name: c.Name, Tenant: "forger", Modules: []node.Module{{Name: c.Name, Wasm: c.Wasm()}}})
	accepted := 0
	if code == hostile.Escaped {
		accepted = 1
	}
	testenv.Bar(t, 11, accepted, "of 1,000,000 handles forged by another tenant accepted", err == nil && code == 0)
	seen := int64(0)
	m, err := n.Objects(t.Context(), "forger", clientwire.MemoryBody{Most: 100})
	if err != nil {
		t.Error(err)
	}
	seen += m.Count + int64(len(m.Jobs))
	for _, what := range []string{holder.Name, "1"} { // by its name and by its number
		if _, err := n.Explain(t.Context(), "forger", clientwire.ExplainBody{What: what}); err == nil {
			seen++
		}
	}
	testenv.Bar(t, 11, seen, "objects and jobs of 10,000 and 1 of another tenant seen in listings, or by name or number", seen == 0)
	select {
	case err := <-held:
		t.Errorf("the other tenant's job has ended: %v", err)
	default:
	}
	cancel()
	<-held
}

// TestBar15Bomb has a task of one tenant submit two of itself, for ever, and
// another tenant's jobs run beside it.
func TestBar15Bomb(t *testing.T) {
	testenv.NeedBars(t)
	const tasks, flood = 16, time.Minute // without a quota it has more
	n := newTenants(t, map[string]control.Tenant{"bomb": {Quota: wray.Quota{Tasks: tasks}}})
	file := filepath.Join(t.TempDir(), "bomb.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-o", file, "./testdata/bomb")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bomb := func(timeout time.Duration) error {
		_, err := n.Run(t.Context(), node.Job{Name: "bomb", Tenant: "bomb", Modules: []node.Module{{Name: "bomb", Wasm: wasm}}, Limits: worker.Limits{Timeout: timeout}})
		return err
	}
	if err := bomb(time.Second); !errors.Is(err, wray.ErrTimeout) { // what is measured is no compiling
		t.Fatalf("the bomb ended with %v", err)
	}
	requireAlive(t, n)
	victim := func(until func() bool) (took []time.Duration) {
		for !until() {
			begun := time.Now()
			requireAlive(t, n)
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		return took
	}
	begun := time.Now()
	quiet := victim(func() bool { return time.Since(begun) > 10*time.Second })
	ended := make(chan error, 1)
	go func() { ended <- bomb(flood) }()
	most, bombed := 0, error(nil)
	beside := victim(func() bool {
		s, err := n.Stats(t.Context(), "bomb")
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, int(s.Waiting+s.Running))
		select {
		case bombed = <-ended:
			return true
		default:
			return false
		}
	})
	if !errors.Is(bombed, wray.ErrTimeout) {
		t.Errorf("the bomb ended with %v", bombed)
	}
	testenv.Bar(t, 15, most, fmt.Sprintf("live tasks of a fork bomb, seen %d times, of a quota of %d", len(beside), tasks), most > tasks/2 && most <= tasks)
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
	times := float64(p99(beside)) / float64(p99(quiet))
	testenv.Bar(t, 15, fmt.Sprintf("%.1f", times), fmt.Sprintf("times its quiet p99 (%v of %d jobs) is another tenant's beside a fork bomb (%v of %d), at most 2; medians %v and %v",
		p99(quiet).Round(time.Millisecond/10), len(quiet), p99(beside).Round(time.Millisecond/10), len(beside), quiet[len(quiet)/2].Round(time.Millisecond/10), beside[len(beside)/2].Round(time.Millisecond/10)), times <= 2)
}
