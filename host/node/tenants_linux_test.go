package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/testenv"
)

var tenantsProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "tenants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "tenants.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-o", out, "./tests/e2e/testdata/tenants")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the program: %w\n%s", err, b)
	}
	return os.ReadFile(out)
})

// program is a job of a tenant that runs the program of the tests.
func program(t testing.TB, tenant string, args ...string) Job {
	t.Helper()
	testenv.Inputs(t)
	wasm, err := tenantsProgram()
	if err != nil {
		t.Fatal(err)
	}
	j := job(wasm)
	j.Name, j.Tenant, j.Args = "tenants", tenant, args
	return j
}

// does runs it to its end and returns what it prints.
func (n *Node) does(t testing.TB, tenant string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	j := program(t, tenant, args...)
	said := ""
	j.Output = func(_ string, _ worker.Stream, p []byte) { said += string(p) }
	if code, err := n.Run(ctx, j); code != 0 || err != nil {
		t.Fatalf("%v of tenant %s: %d, %v\n%s", args, tenant, code, err, said)
	}
	return said
}

// tenantsCache is the cache of all these tests. Each tenant compiles the program
// for itself, which takes longer than all else here: so that only two do, a and the
// node's own, which is a tenant as any other.
var tenantsCache string

func newTenants(t testing.TB, all map[string]control.Tenant) *Node {
	t.Helper()
	n, err := New(Config{Name: "test", CacheDir: tenantsCache, State: filepath.Join(t.TempDir(), "state"), Tenants: all})
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

// TestTwoTenants: what one tenant has on a node another can neither see nor name,
// and a tenant that is not there is as one that may not be used.
func TestTwoTenants(t *testing.T) {
	n := newTenants(t, map[string]control.Tenant{"a": {Created: 1}, "b": {Created: 1}, "off": {Disabled: true}})
	if err := n.TakeJobs(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	// Durable actors of one name are two.
	for _, c := range []struct{ tenant, want string }{{"a", "1\n2\n"}, {"", "1\n2\n"}, {"a", "3\n4\n"}} {
		if said := n.does(t, c.tenant, "count", "2"); said != c.want {
			t.Errorf("tenant %q counts %q, want %q", c.tenant, said, c.want)
		}
	}
	// So are the processes, and what they may open.
	a, err := n.worker("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.worker("")
	if err != nil {
		t.Fatal(err)
	}
	if a == nil || b == nil || a == b || a.proc.Pid() == b.proc.Pid() || a.state.dir == b.state.dir || a.spill == b.spill {
		t.Errorf("the workers of a and of the node's own tenant are %+v and %+v", a, b)
	}
	// A job of a is known to a alone.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	info, err := n.SubmitJob(program(t, "a", "wait", "0"), "", func() {})
	if err != nil {
		t.Fatal(err)
	}
	absent := jobs.NoJob(info.ID).Error()
	for _, other := range []string{"b", ""} {
		for what, f := range map[string]func() error{
			"status": func() error { _, err := n.Job(ctx, other, info.ID); return err },
			"stop":   func() error { _, err := n.StopJob(ctx, other, info.ID); return err },
			"logs":   func() error { _, err := n.JobLogs(ctx, other, info.ID, 0, false); return err },
		} {
			if err := f(); !errors.Is(err, jobs.ErrNoJob) || err.Error() != absent {
				t.Errorf("%s by tenant %q of a job of a: %v", what, other, err)
			}
		}
		if list, err := n.Jobs(ctx, other); err != nil || len(list.Jobs) != 0 {
			t.Errorf("tenant %q is shown %+v, %v", other, list, err)
		}
		if s, err := n.Status(ctx, other); err != nil || len(s.Jobs) != 0 {
			t.Errorf("the status for tenant %q has %+v, %v", other, s.Jobs, err)
		}
		if m, err := n.Objects(ctx, other, clientwire.MemoryBody{}); err != nil || len(m.Jobs) != 0 {
			t.Errorf("the memory of tenant %q has the jobs %+v, %v", other, m.Jobs, err)
		}
		// As to what is not there, by its ID and by its name.
		for _, what := range []string{info.ID, "tenants"} {
			_, err := n.Explain(ctx, other, clientwire.ExplainBody{What: what})
			_, none := n.Explain(ctx, other, clientwire.ExplainBody{What: strings.Repeat("x", len(what))})
			if err == nil || none == nil || strings.ReplaceAll(err.Error(), what, "") != strings.ReplaceAll(none.Error(), strings.Repeat("x", len(what)), "") {
				t.Errorf("explain %s by tenant %q: %v, of what is not there: %v", what, other, err, none)
			}
		}
	}
	if list, err := n.Jobs(ctx, "a"); err != nil || len(list.Jobs) != 1 || list.Jobs[0].Tenant != "a" {
		t.Errorf("a is shown %+v, %v", list, err)
	}
	if _, err := n.StopJob(ctx, "a", info.ID); err != nil {
		t.Error(err)
	}
	// Tenants that are not there.
	var e *wray.Error
	for _, name := range []string{"c", "../a", "cluster", strings.Repeat("a", 64)} {
		if _, err := n.Run(ctx, program(t, name, "wait", "0")); !errors.As(err, &e) {
			t.Errorf("a job of tenant %q: %v", name, err)
		}
		if _, err := n.Stats(ctx, name); !errors.As(err, &e) {
			t.Errorf("the tasks of tenant %q: %v", name, err)
		}
	}
	if _, err := n.Run(ctx, program(t, "off", "wait", "0")); !errors.As(err, &e) || e.Code != wray.CodeDenied || !strings.Contains(e.Message, "disabled") {
		t.Errorf("a job of a tenant that is disabled: %v", err)
	}
}

// TestRemovedTenant: a tenant that is removed and made again has nothing of the
// first: neither durable actors nor jobs.
func TestRemovedTenant(t *testing.T) {
	n := newTenants(t, map[string]control.Tenant{"a": {Created: 1}})
	if err := n.TakeJobs(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	if said := n.does(t, "a", "count", "2"); said != "1\n2\n" {
		t.Error(said)
	}
	info, err := n.SubmitJob(program(t, "a", "wait", "0"), "", func() {})
	if err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(tenantsCache, "code", "a@1")
	if _, err := os.Stat(code); err != nil {
		t.Fatalf("where is its code: %v", err)
	}
	n.setRecords(nil)
	if _, err := n.Job(t.Context(), "a", info.ID); err == nil {
		t.Error("a tenant that was removed is told of its job")
	}
	n.ends.Wait()
	if _, err := os.Stat(code); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its compiled code is left: %v", err)
	}
	n.setRecords(map[string]control.Tenant{"a": {Created: 2}})
	if list, err := n.Jobs(t.Context(), "a"); err != nil || len(list.Jobs) != 0 {
		t.Errorf("its jobs are %+v, %v", list, err)
	}
	if said := n.does(t, "a", "count", "1"); said != "1\n" {
		t.Errorf("it counts %q", said)
	}
}

// TestQuotas: what passes a tenant's quota is refused, with an error that names
// the quota, its value and who can raise it; what is within it goes on, and other
// tenants are not bounded by it.
func TestQuotas(t *testing.T) {
	q := wray.Quota{Objects: 300, Actors: 3, Tasks: 40, Depth: 3, LogRate: 64 << 10, SubmitRate: 200, SpillBytes: 1 << 20, Sandboxes: 8, CPU: int64(wray.OneCPU)}
	n := newTenants(t, map[string]control.Tenant{"a": {Quota: q}})
	for _, c := range []struct {
		what, how string
		flag      string
		value     int64
	}{
		{"tasks", "60", "tasks", 40}, {"actors", "5", "actors", 3}, {"objects", "1000", "objects", 300}, {"down", "5", "depth", 3},
	} {
		t.Run(c.what, func(t *testing.T) {
			said := n.does(t, "a", c.what, c.how)
			for _, want := range []string{"LimitExceeded", "tenant a", fmt.Sprintf("quota %s is %d", c.flag, c.value), "an operator", "wray quota set a --" + c.flag} {
				if !strings.Contains(said, want) {
					t.Errorf("it says nothing of %q: %q", want, said)
				}
			}
			if said := n.does(t, "", c.what, c.how); strings.Contains(said, "LimitExceeded") {
				t.Errorf("for a tenant without a quota: %q", said)
			}
		})
	}
	// Rates slow down, and lose nothing.
	n.setRecords(map[string]control.Tenant{"a": {Quota: wray.Quota{SubmitRate: 200, LogRate: 64 << 10}}})
	begun := time.Now()
	if said := n.does(t, "a", "submit", "300"); said != "300 are there\n" {
		t.Errorf("at a rate of submissions: %q", said)
	}
	if took := time.Since(begun); took < time.Second/2 {
		t.Errorf("300 tasks were submitted in %v, at 200 a second", took)
	}
	begun = time.Now()
	if said := n.does(t, "a", "print", "131072"); len(said) != 131072 {
		t.Errorf("at a rate of printing %d bytes came", len(said))
	}
	if took := time.Since(begun); took < 500*time.Millisecond {
		t.Errorf("128 KiB were printed in %v, at 64 a second", took)
	}
}

// TestNewQuota: a tenant's quota that is changed holds for the next job.
func TestNewQuota(t *testing.T) {
	n := newTenants(t, map[string]control.Tenant{"a": {}})
	if said := n.does(t, "a", "actors", "5"); said != "5 are there\n" {
		t.Error(said)
	}
	n.setRecords(map[string]control.Tenant{"a": {Quota: wray.Quota{Actors: 2}}})
	if said := n.does(t, "a", "actors", "5"); !strings.HasPrefix(said, "2 are there\n") {
		t.Error(said)
	}
}

// TestReplaced: a worker that dies is replaced without a job that asks for it, on
// a node that lives on, and the tenant's next job finds it; that of another tenant
// is not touched.
func TestReplaced(t *testing.T) {
	n := newTenants(t, map[string]control.Tenant{"a": {}})
	if err := n.TakeJobs(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	n.does(t, "a", "count", "2")
	n.does(t, "", "count", "1")
	a, _ := n.worker("a")
	b, _ := n.worker("")
	a.proc.Kill()
	for {
		if w, _ := n.worker("a"); w != nil && w != a {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("no worker takes its place")
		case <-time.After(time.Millisecond): // there is no event to wait for
		}
	}
	if said := n.does(t, "a", "count", "1"); said != "3\n" {
		t.Errorf("the durable actor counts %q", said)
	}
	if w, _ := n.worker(""); w != b {
		t.Error("another tenant's worker was replaced")
	}
	list, err := n.Tenants(t.Context(), clientwire.TenantsBody{Name: "a"})
	if err != nil || len(list.Tenants) != 1 || list.Tenants[0].Restarts != 1 || len(list.Tenants[0].Quarantine) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// BenchmarkReplaced measures how long a tenant is without a worker when that was
// killed.
func BenchmarkReplaced(b *testing.B) {
	n := newTenants(b, map[string]control.Tenant{"a": {}})
	if err := n.TakeJobs(b.TempDir(), 0); err != nil {
		b.Fatal(err)
	}
	n.does(b, "a", "count", "1")
	t, err := n.tenant("a")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		w := t.current()
		w.began = time.Time{} // it has not died young
		b.StartTimer()
		w.proc.Kill()
		for {
			if next := t.current(); next != nil && next != w {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}
