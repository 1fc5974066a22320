package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

func open(t *testing.T, cfg Config) *Jobs {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Node = "here"
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// ended waits for a job's end.
func ended(t *testing.T, j *Jobs, id string) clientwire.JobInfo {
	t.Helper()
	b, err := j.get("mine", id)
	if err != nil {
		t.Fatal(err)
	}
	<-b.done
	info, err := j.Get("mine", id)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// text is all that a job printed.
func text(t *testing.T, j *Jobs, id string) string {
	t.Helper()
	var b bytes.Buffer
	for off := int64(0); ; {
		part, err := j.Logs(t.Context(), "mine", id, off, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range part.Parts {
			b.Write(p.Data)
		}
		if off = part.Next; part.End {
			return b.String()
		}
	}
}

// prints is a job that prints and ends.
func prints(what string, code int, err error) Run {
	return func(_ context.Context, started func(), output func(string, uint8, []byte)) (int, error) {
		started()
		output("", clientwire.Stdout, []byte(what))
		return code, err
	}
}

// waits is a job that runs until it is stopped.
func waits(ctx context.Context, started func(), _ func(string, uint8, []byte)) (int, error) {
	started()
	<-ctx.Done()
	return 0, wray.Errorf(wray.CodeCanceled, "the job was canceled")
}

func nothing() {}

// TestEnds runs jobs that end in each way, and finds them again in another
// process, so to speak.
func TestEnds(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	released := 0
	failure := &wray.Error{Code: wray.CodeTrap, Message: "it trapped", Trace: "main.main", Hint: "mend it"}
	want := map[string]clientwire.JobInfo{}
	for _, c := range []struct {
		run         Run
		state, text string
	}{
		{prints("hello\n", 0, nil), clientwire.JobSucceeded, ""},
		{prints("hello\n", 3, nil), clientwire.JobFailed, "its driver ended with exit code 3"},
		{prints("hello\n", 0, failure), clientwire.JobFailed, failure.Error()},
	} {
		info, err := j.Submit("mine", "prog", []string{"a", "b"}, "", c.run, func() { released++ })
		if err != nil {
			t.Fatal(err)
		}
		if !CheckID(info.ID) || info.Node != "here" || info.State != clientwire.JobPending {
			t.Errorf("submitted: %+v", info)
		}
		if got := text(t, j, info.ID); got != "hello\n" {
			t.Errorf("it printed %q", got)
		}
		info = ended(t, j, info.ID)
		if info.State != c.state || info.Error != c.text || info.Started == 0 || info.Ended == 0 || info.Name != "prog" || len(info.Args) != 2 {
			t.Errorf("ended: %+v, want %s: %s", info, c.state, c.text)
		}
		want[info.ID] = info
	}
	info, err := j.Submit("mine", "prog", nil, "", waits, func() { released++ })
	if err != nil {
		t.Fatal(err)
	}
	if info, err = j.Stop(t.Context(), "mine", info.ID); err != nil || info.State != clientwire.JobStopped {
		t.Errorf("stopped: %+v, %v", info, err)
	}
	if again, err := j.Stop(t.Context(), "mine", info.ID); err != nil || again.Ended != info.Ended {
		t.Errorf("stopped again: %+v, %v", again, err)
	}
	want[info.ID] = info
	last, err := j.Submit("mine", "prog", nil, "", waits, func() { released++ })
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if released != 5 {
		t.Errorf("%d of 5 jobs were released", released)
	}
	if _, err := j.Submit("mine", "late", nil, "", waits, func() { released++ }); !errors.Is(err, wray.ErrCanceled) || released != 6 {
		t.Errorf("submitted after the end: %v, %d released", err, released)
	}
	j = open(t, Config{Dir: dir})
	for id, w := range want {
		if got, err := j.Get("mine", id); err != nil || fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("after: %+v, %v\nbefore: %+v", got, err, w)
		}
		if w.Name == "prog" && w.State != clientwire.JobStopped {
			if got := text(t, j, id); got != "hello\n" {
				t.Errorf("after: it printed %q", got)
			}
		}
	}
	if got, err := j.Get("mine", last.ID); err != nil || got.State != clientwire.JobFailed || got.Error != "its node was stopped, and the job with it" {
		t.Errorf("a job that the node's end ended: %+v, %v", got, err)
	}
	if list := j.List("mine"); len(list) != 5 || list[0].Submitted < list[4].Submitted {
		t.Errorf("listed: %+v", list)
	}
}

// TestKilled has a process end without a word.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	printed := make(chan struct{})
	info, err := j.Submit("mine", "prog", nil, "", func(ctx context.Context, started func(), output func(string, uint8, []byte)) (int, error) {
		started()
		output("", clientwire.Stdout, []byte("before\n"))
		close(printed)
		return waits(ctx, started, output)
	}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	<-printed
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second node opens the directory: %v", err)
	}
	copied := t.TempDir() // what is on disk at this moment
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"made", "forgotten"} { // by a process that was killed on the way
		if err := os.Mkdir(filepath.Join(copied, "job", half), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, Config{Dir: copied})
	got, err := after.Get("mine", info.ID)
	if err != nil || got.State != clientwire.JobFailed || !strings.Contains(got.Error, "the node ended while the job ran") || got.Ended == 0 {
		t.Errorf("a job that a kill ended: %+v, %v", got, err)
	}
	if got := text(t, after, info.ID); got != "before\n" {
		t.Errorf("it printed %q", got)
	}
	if len(after.List("mine")) != 1 {
		t.Errorf("listed: %+v", after.List("mine"))
	}
	if left, _ := os.ReadDir(filepath.Join(copied, "job")); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
}

// TestForget holds that the newest jobs that ended are kept, and no more.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	var gone []string
	var clock atomic.Int64 // seconds; the runs read it too
	j := open(t, Config{Dir: dir, Keep: 3, Now: func() time.Time { return time.Unix(clock.Load(), 0) }, Changed: func(i clientwire.JobInfo, g bool) {
		if g {
			gone = append(gone, i.ID)
		}
	}})
	runs, err := j.Submit("mine", "runs", nil, "", waits, nothing)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 5 {
		clock.Add(1)
		info, err := j.Submit("mine", "prog", nil, "", prints("x\n", 0, nil), nothing)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := j.get("mine", info.ID)
		<-b.done
		ids = append(ids, info.ID)
	}
	j.mu.Lock()
	if !slices.Equal(gone, ids[:2]) {
		t.Errorf("forgotten: %v, of %v", gone, ids)
	}
	j.mu.Unlock()
	if _, err := j.Get("mine", ids[0]); !errors.Is(err, ErrNoJob) || !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a job that is forgotten: %v", err)
	}
	if _, err := j.Get("mine", runs.ID); err != nil {
		t.Errorf("the oldest, which runs: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "job")); len(left) != 4 {
		t.Errorf("there are %v", left)
	}
}

// TestFollow reads a log while it is written, and waits no longer than asked.
func TestFollow(t *testing.T) {
	j := open(t, Config{})
	more := make(chan string)
	info, err := j.Submit("mine", "prog", nil, "", func(_ context.Context, started func(), output func(string, uint8, []byte)) (int, error) {
		started()
		for s := range more {
			output("task", clientwire.Stderr, []byte(s))
		}
		return 0, nil
	}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	if part, err := j.Logs(t.Context(), "mine", info.ID, 0, false); err != nil || len(part.Parts) > 0 || part.End {
		t.Errorf("before: %+v, %v", part, err)
	}
	b, err := j.get("mine", info.ID)
	if err != nil {
		t.Fatal(err)
	}
	off := int64(0)
	for i := range 5 {
		read := make(chan clientwire.JobLogs, 1)
		go func() {
			part, err := j.Logs(t.Context(), "mine", info.ID, off, true)
			if err != nil {
				t.Error(err)
			}
			read <- part
		}()
		for waits := false; !waits; runtime.Gosched() {
			b.output.mu.Lock()
			waits = b.output.changed != nil
			b.output.mu.Unlock()
		}
		more <- fmt.Sprint("line ", i, "\n")
		part := <-read
		if len(part.Parts) != 1 || string(part.Parts[0].Data) != fmt.Sprint("line ", i, "\n") || part.Parts[0].Task != "task" || part.Parts[0].Stream != clientwire.Stderr {
			t.Fatalf("part %d: %+v", i, part)
		}
		off = part.Next
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Logs(ctx, "mine", info.ID, off, true); !errors.Is(err, wray.ErrCanceled) {
		t.Errorf("a reader that went: %v", err)
	}
	for _, bad := range []int64{-1, 1, off + 1, 1 << 62} {
		if _, err := j.Logs(t.Context(), "mine", info.ID, bad, true); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("offset %d: %v", bad, err)
		}
	}
	close(more)
	if part, err := j.Logs(t.Context(), "mine", info.ID, off, true); err != nil || !part.End {
		t.Errorf("at the end: %+v, %v", part, err)
	}
}

// TestRefused holds the bounds on what is submitted.
func TestRefused(t *testing.T) {
	j := open(t, Config{})
	released := 0
	release := func() { released++ }
	if _, err := j.Submit("mine", "prog", []string{strings.Repeat("x", MaxArgs+1)}, "", waits, release); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("long arguments: %v", err)
	}
	for range MaxRunning {
		if _, err := j.Submit("mine", "prog", nil, "", waits, nothing); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Submit("mine", "prog", nil, "", waits, release); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("one job too many: %v", err)
	}
	if released != 2 {
		t.Errorf("%d of 2 were released", released)
	}
}

// TestDamaged damages records: the others are there, and what is damaged is set
// aside, which a warning says.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	var ids []string
	for range 4 {
		i, err := j.Submit("mine", "prog", nil, "", prints("hello\n", 0, nil), func() {})
		if err != nil {
			t.Fatal(err)
		}
		ended(t, j, i.ID)
		ids = append(ids, i.ID)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	at := func(id string) string { return filepath.Join(dir, "job", id, recordFile) }
	other, err := os.ReadFile(at(ids[3]))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range [][]byte{nil, other[:len(other)/2], other} { // lost, half of it, and of another job
		if err := os.WriteFile(at(ids[i]), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taken := filepath.Join(dir, "damaged", ids[0]) // of a time before
	if err := os.MkdirAll(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	j = open(t, Config{Dir: dir, Warn: slog.New(slog.NewTextHandler(&said, nil))})
	if list := j.List("mine"); len(list) != 1 || list[0].ID != ids[3] || text(t, j, ids[3]) != "hello\n" {
		t.Errorf("with three of four damaged it lists %+v", list)
	}
	for i, to := range []string{taken + ".2", filepath.Join(dir, "damaged", ids[1]), filepath.Join(dir, "damaged", ids[2])} {
		if !strings.Contains(said.String(), to) {
			t.Errorf("it does not say that it put job %d to %s: %s", i, to, &said)
		}
		if _, err := os.Stat(filepath.Join(to, newLog)); err != nil {
			t.Errorf("what job %d printed: %v", i, err)
		}
	}
}

// TestSynced holds that what Submit has returned, and how a job ended, outlasts a
// power cut: names are on disk as well as what they name.
func TestSynced(t *testing.T) {
	real := syncDir
	defer func() { syncDir = real }()
	synced := make(chan string, 100)
	syncDir = func(dir string) error { synced <- dir; return real(dir) }
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	await := func(what, want string) {
		t.Helper()
		select {
		case got := <-synced:
			if got != want {
				t.Errorf("%s: %s is synced, want %s", what, got, want)
			}
		default:
			t.Errorf("%s: %s is not synced", what, want)
		}
	}
	begin := make(chan struct{})
	i, err := j.Submit("mine", "prog", nil, "", func(context.Context, func(), func(string, uint8, []byte)) (int, error) { <-begin; return 0, nil }, func() {})
	if err != nil {
		t.Fatal(err)
	}
	await("the record", filepath.Join(dir, "job", i.ID))
	await("the job", filepath.Join(dir, "job"))
	close(begin)
	ended(t, j, i.ID)
	await("its end", filepath.Join(dir, "job", i.ID))
	syncDir = func(string) error { return errors.New("the disk is gone") }
	if _, err := j.Submit("mine", "prog", nil, "", waits, func() {}); !errors.Is(err, wray.ErrStoreFull) {
		t.Errorf("a job that is not on disk: %v", err)
	}
}

// A tenant's jobs are to another as those that are not there: they are not listed,
// told of, stopped or read, and each tenant keeps its own that have ended.
func TestTenants(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(Config{Dir: dir, Tenant: "old", Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, tenant := range []string{"a", "b", "b", "b", "b"} {
		i, err := j.Submit(tenant, "prog", nil, "", prints("secret of "+tenant+"\n", 0, nil), func() {})
		if err != nil {
			t.Fatal(err)
		}
		if i, err = j.Stop(t.Context(), tenant, i.ID); err != nil { // waits for its end
			t.Fatal(err)
		}
		ids[tenant] = i.ID
	}
	if n := len(j.List("b")); n != 2 || len(j.List("a")) != 1 || len(j.List("c")) != 0 {
		t.Errorf("a has %v, b has %v, c has %v", j.List("a"), j.List("b"), j.List("c"))
	}
	absent := NoJob(ids["a"]).Error()
	for what, f := range map[string]func() error{
		"get":  func() error { _, err := j.Get("b", ids["a"]); return err },
		"stop": func() error { _, err := j.Stop(t.Context(), "b", ids["a"]); return err },
		"logs": func() error { _, err := j.Logs(t.Context(), "b", ids["a"], 0, false); return err },
	} {
		if err := f(); !errors.Is(err, ErrNoJob) || err.Error() != absent {
			t.Errorf("%s of another tenant's job: %v", what, err)
		}
	}
	if i, err := j.Get("", ids["a"]); err != nil || i.Tenant != "a" {
		t.Errorf("for the node itself: %+v, %v", i, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := Open(Config{Dir: dir, Tenant: "old", Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if list := after.List("a"); len(list) != 1 || list[0].ID != ids["a"] {
		t.Errorf("a has %v in the next process", list)
	}
}

// TestWhoseTrace holds that what a process of wray said in the end is told from
// a guest's stack.
func TestWhoseTrace(t *testing.T) {
	for of, e := range map[string]*wray.Error{
		"":         {Code: wray.CodeDependencyFailed, Cause: &wray.Error{Code: wray.CodePanic, Trace: "goroutine 1"}},
		"worker":   {Code: wray.CodeDependencyFailed, Cause: &wray.Error{Code: wray.CodeWorkerDied, Trace: "goroutine 1"}},
		"compiler": {Code: wray.CodeInvalidModule, Trace: "goroutine 1"},
	} {
		var i clientwire.JobInfo
		describe(&i, e)
		if i.Trace != "goroutine 1" || i.TraceOf != of {
			t.Errorf("%v: trace %q of %q", e, i.Trace, i.TraceOf)
		}
	}
}

// TestForgotten: jobs that are forgotten are not there at once, those that run are
// stopped, and nothing of them is on disk when that is done.
func TestForgotten(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	gone, after := map[string]bool{}, 0
	j, err := Open(Config{Dir: dir, Changed: func(i clientwire.JobInfo, g bool) {
		mu.Lock()
		defer mu.Unlock()
		if gone[i.ID] {
			after++
		}
		gone[i.ID] = g
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var ids []string
	for _, tenant := range []string{"a", "b"} {
		i, err := j.Submit(tenant, "prog", nil, "", waits, func() {})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, i.ID)
	}
	finish := j.Forget(func(i *clientwire.JobInfo) bool { return i.Tenant == "a" })
	if _, err := j.Get("", ids[0]); !errors.Is(err, ErrNoJob) || len(j.List("a")) != 0 {
		t.Errorf("a job that is forgotten: %v, %v", err, j.List("a"))
	}
	finish()
	if _, err := os.Stat(filepath.Join(dir, "job", ids[0])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("on disk: %v", err)
	}
	if i, err := j.Get("b", ids[1]); err != nil || i.State == clientwire.JobStopped {
		t.Errorf("the other tenant's: %+v, %v", i, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !gone[ids[0]] || gone[ids[1]] || after != 0 {
		t.Errorf("gone are %v, and %d were told of after that", gone, after)
	}
}

// TestPlaces: a tenant has its places and no more, whatever is free; what others
// have takes none of the few that each is sure of; and the error says which bound
// it was.
func TestPlaces(t *testing.T) {
	j := open(t, Config{})
	j.most = places{tenant: 8, total: 32, reserved: 2}
	submit := func(tenant string) error {
		_, err := j.Submit(tenant, "prog", nil, "", waits, nothing)
		return err
	}
	fill := func(tenant string, n int) {
		t.Helper()
		for i := range n {
			if err := submit(tenant); err != nil {
				t.Fatalf("job %d of tenant %s: %v", i+1, tenant, err)
			}
		}
	}
	refused := func(tenant, name string, value int64) {
		t.Helper()
		var e *wray.Error
		if err := submit(tenant); !errors.As(err, &e) || e.Limit == nil || e.Limit.Name != name || e.Limit.Value != value {
			t.Errorf("one more of tenant %s: %v, want the limit %q", tenant, err, name)
		}
	}
	for i := range 4 {
		fill(fmt.Sprint("greedy", i), 8)
		refused(fmt.Sprint("greedy", i), "jobs of a tenant on a node", 8)
	}
	fill("small", 2)
	refused("small", "jobs of a node, of all tenants", 32)
	fill("another", 1)
	// What has ended takes no place.
	if _, err := j.Stop(t.Context(), "small", j.List("small")[0].ID); err != nil {
		t.Fatal(err)
	}
	fill("small", 1)
	refused("small", "jobs of a node, of all tenants", 32)
	for _, i := range j.List("greedy0")[:4] { // the last of which is below the total
		if _, err := j.Stop(t.Context(), "greedy0", i.ID); err != nil {
			t.Fatal(err)
		}
	}
	fill("small", 1)
}

// TestSlowDisk: while a job waits for the disk, whoever asks for jobs is answered,
// and told of nothing that is not there yet; a tenant's jobs are forgotten,
// without waiting, those too that are being made.
func TestSlowDisk(t *testing.T) {
	real := syncDir
	t.Cleanup(func() { syncDir = real }) // when all have ended
	dir := t.TempDir()
	told := make(chan clientwire.JobInfo, 100)
	j := open(t, Config{Dir: dir, Changed: func(i clientwire.JobInfo, _ bool) { told <- i }})
	held, goOn := make(chan string), make(chan struct{})
	slow := func(dir string) error { held <- dir; <-goOn; return real(dir) }
	start, end := make(chan struct{}), make(chan struct{})
	i, err := j.Submit("a", "prog", nil, "", func(_ context.Context, started func(), _ func(string, uint8, []byte)) (int, error) {
		<-start
		started()
		<-end
		return 0, nil
	}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	<-told
	state := func(want string) {
		t.Helper()
		got, err := j.Get("a", i.ID)
		if err != nil || got.State != want || len(j.List("a")) != 1 || len(told) != 0 {
			t.Errorf("while the disk is slow: %+v, %v, %d are told; want %s", got, err, len(told), want)
		}
	}
	syncDir = slow // before whoever reads it goes on
	close(start)
	<-held
	state(clientwire.JobPending)
	goOn <- struct{}{}
	if got := <-told; got.State != clientwire.JobRunning {
		t.Errorf("told of %s", got.State)
	}
	close(end)
	<-held
	state(clientwire.JobRunning)
	goOn <- struct{}{}
	if got := <-told; got.State != clientwire.JobSucceeded {
		t.Errorf("told of %s", got.State)
	}
	failed := make(chan error)
	go func() {
		_, err := j.Submit("a", "prog", nil, "", waits, nothing)
		failed <- err
	}()
	<-held
	finish := j.Forget(func(i *clientwire.JobInfo) bool { return i.Tenant == "a" })
	if len(j.All()) != 0 {
		t.Errorf("after all was forgotten there are %+v", j.All())
	}
	goOn <- struct{}{}
	<-held
	goOn <- struct{}{}
	if err := <-failed; !errors.Is(err, wray.ErrDenied) {
		t.Errorf("a job of a tenant that was removed meanwhile: %v", err)
	}
	finish()
	if left, err := os.ReadDir(filepath.Join(dir, "job")); err != nil || len(left) != 0 {
		t.Errorf("on disk are %v, %v", left, err)
	}
}
