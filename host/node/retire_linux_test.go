package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// newIdle is a node that gives idle workers up soon.
func newIdle(t testing.TB, idle time.Duration, all map[string]control.Tenant) *Node {
	t.Helper()
	n, err := New(Config{Name: "test", CacheDir: tenantsCache, State: t.TempDir(), Tenants: all, WorkerIdle: idle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.TakeJobs(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitGone waits until a worker's process is gone, and its tenant has no other.
func awaitGone(t testing.TB, n *Node, tenant string, w *workerProcess) {
	t.Helper()
	select {
	case <-w.proc.Done():
	case <-time.After(time.Minute):
		t.Fatal("the worker stays")
	}
	x, err := n.tenant(tenant)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	r := x.retiring
	n.mu.Unlock()
	if r != nil {
		<-r
	}
}

// TestIdleGivenUp: a worker that does nothing for a while is ended, as no death,
// and the next job has another: it finds the durable actors, and what the first
// one has done is told.
func TestIdleGivenUp(t *testing.T) {
	n := newIdle(t, 40*time.Millisecond, map[string]control.Tenant{"a": {}, "b": {}})
	if said := n.does(t, "a", "count", "2"); said != "1\n2\n" {
		t.Error(said)
	}
	n.does(t, "a", "tasks", "5")
	before, err := n.Stats(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	w, _ := n.worker("a")
	if w == nil {
		t.Fatal("its worker went with its job")
	}
	awaitGone(t, n, "a", w)
	if now, _ := n.worker("a"); now != nil {
		t.Error("another worker took its place, that nobody needs")
	}
	if after, err := n.Stats(t.Context(), "a"); err != nil || after.Finished != before.Finished || before.Finished == 0 {
		t.Errorf("its tasks are %+v and were %+v, %v", after, before, err)
	}
	if said := n.does(t, "a", "count", "1"); said != "3\n" {
		t.Errorf("the durable actor counts %q", said)
	}
	x, _ := n.tenant("a")
	if x.restarts.Load() != 0 || len(x.suspects.list()) != 0 {
		t.Errorf("it counts as dead: %d", x.restarts.Load())
	}
}

// TestBusyStays: a worker is not given up while a job runs, nor one that says that
// it has something to do, whatever the node knows; and a worker that answers
// nothing is not one that has nothing to do.
func TestBusyStays(t *testing.T) {
	n := newIdle(t, time.Millisecond, map[string]control.Tenant{"a": {}})
	ctx, cancel := context.WithCancel(t.Context())
	j := program(t, "a", "wait", "0")
	x, err := n.tenant("a")
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	j.Compiled = func() { // the worker is there, and has not heard of the job
		x.requota()
		x.ending.Wait()
		close(begun)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := n.Run(ctx, j)
		ended <- err
	}()
	<-begun
	var w *workerProcess
	for w == nil {
		w = x.current()
		time.Sleep(time.Millisecond) // there is no event to wait for
	}
	for range 20 {
		w.look <- struct{}{}
	}
	x.requota()
	select {
	case <-w.proc.Done():
		t.Fatal("its worker was ended under a job")
	case err := <-ended:
		t.Fatal(err)
	default:
	}
	cancel()
	var e *wray.Error
	if err := <-ended; !errors.As(err, &e) || e.Code != wray.CodeCanceled {
		t.Error(err)
	}
	// The new quota waited for that.
	awaitGone(t, n, "a", w)
}

// TestLentTasksStay: what others have lent to a worker goes on where its tenant
// gets another quota: only the worker knows of it.
func TestLentTasksStay(t *testing.T) {
	h := home(t.TempDir())
	n := h.node(t)
	h.lie(t, "busy") // answers a job, and says that it has something to do
	if code, err := n.testRun(t, job(nothing)); code != 7 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	h.lie(t, "")
	w := n.current()
	n.setRecords(map[string]control.Tenant{"local": {Quota: wray.Quota{Tasks: 7}}})
	n.own().ending.Wait() // it was asked
	if n.current() != w {
		t.Fatal("a worker with lent tasks was ended by a change of quota")
	}
	select {
	case <-w.proc.Done():
		t.Fatal("its process was")
	default:
	}
	x := n.own()
	n.mu.Lock()
	stale := x.stale
	n.mu.Unlock()
	if !stale {
		t.Error("the quota is forgotten")
	}
}

// TestJobWhileAsked: a job that comes while a worker is asked whether it goes waits
// for the answer, and runs in the one that stays, or in another.
func TestJobWhileAsked(t *testing.T) {
	n := newIdle(t, -1, map[string]control.Tenant{"a": {}})
	n.does(t, "a", "count", "1")
	for i := range 5 {
		x, _ := n.tenant("a")
		asked := make(chan struct{})
		go func() { x.requota(); close(asked) }()
		if said := n.does(t, "a", "count", "1"); strings.TrimSpace(said) != string(rune('2'+i)) {
			t.Fatalf("after %d changes it counts %q", i+1, said)
		}
		<-asked
	}
}

// TestSilentWhenAsked: one that was stopped does not keep jobs waiting for good.
func TestSilentWhenAsked(t *testing.T) {
	n := newIdle(t, -1, map[string]control.Tenant{"a": {}})
	n.does(t, "a", "count", "1")
	x, _ := n.tenant("a")
	w := x.current()
	if err := syscall.Kill(w.proc.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := x.beginRetire(w)
	if done == nil {
		t.Fatal("it is not asked")
	}
	go x.retire(w, done)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := x.startWorker(ctx); err == nil {
		t.Error("a job was given to a worker that may be going")
	}
	if err := syscall.Kill(w.proc.Pid(), syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if said := n.does(t, "a", "count", "1"); said != "2\n" {
		t.Error(said)
	}
}

// TestExpelled: a tenant that may be on a node no more has its worker there ended
// with its last job, and begins none; and has one again when it may.
func TestExpelled(t *testing.T) {
	n := newIdle(t, -1, map[string]control.Tenant{"a": {}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j := program(t, "a", "wait", "0")
	begun := make(chan struct{})
	j.Compiled = func() { close(begun) }
	ended := make(chan error, 1)
	go func() {
		_, err := n.Run(ctx, j)
		ended <- err
	}()
	<-begun
	x, _ := n.tenant("a")
	var w *workerProcess
	for w == nil {
		w = x.current()
		time.Sleep(time.Millisecond) // there is no event to wait for
	}
	n.setRecords(map[string]control.Tenant{"a": {Nodes: []string{"wray/os=plan9"}}})
	var e *wray.Error
	if _, err := n.Run(ctx, program(t, "a", "count", "1")); !errors.As(err, &e) || e.Code != wray.CodeDenied || !strings.Contains(e.Message, "wray/os=plan9") {
		t.Errorf("a job on a node that is not the tenant's: %v", err)
	}
	list, err := n.Tenants(ctx, clientwire.TenantsBody{Name: "a"})
	if err != nil || len(list.Tenants) != 1 || !strings.Contains(list.Tenants[0].Barred, "wray/os=plan9") {
		t.Errorf("%+v, %v", list, err)
	}
	select {
	case <-w.proc.Done():
		t.Fatal("its worker was ended under a job")
	default:
	}
	cancel()
	<-ended
	awaitGone(t, n, "a", w)
	n.setRecords(map[string]control.Tenant{"a": {Nodes: []string{"wray/os=linux"}, Exclusive: true}})
	if said := n.does(t, "a", "count", "1"); said != "1\n" {
		t.Error(said)
	}
	if _, err := n.Run(t.Context(), program(t, "", "count", "1")); !errors.As(err, &e) || e.Code != wray.CodeDenied {
		t.Errorf("a job of another on a node that is the tenant's alone: %v", err)
	}
}

// TestUnanswered: a worker that was asked to go and did not say whether it does may
// have left its peers: it is replaced when it can be. What starts in its place has
// nothing of that, and stays.
func TestUnanswered(t *testing.T) {
	h := home(t.TempDir())
	n := h.node(t)
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	x, w := n.own(), n.current()
	conn, end, err := link.Pair(worker.LinkOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	conn.Close() // it is asked in vain
	silent := &workerProcess{conn: conn}
	n.mu.Lock()
	x.worker = silent
	n.mu.Unlock()
	done := x.beginRetire(silent)
	if done == nil {
		t.Fatal("it is not asked")
	}
	x.retire(silent, done)
	n.mu.Lock()
	if x.worker != silent || !x.stale {
		t.Errorf("it is kept as one that is in order; gone: %v", x.worker != silent)
	}
	x.worker = nil // as when it has died
	n.mu.Unlock()
	w.end()
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	x.ending.Wait()
	if n.current() == nil {
		t.Error("a worker that has just started is ended because of the one before")
	}
}
