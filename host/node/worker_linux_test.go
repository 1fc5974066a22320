package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// TestMain lets the test binary be a node's processes, and a worker that lies.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case child.WorkerVerb:
			if lie, err := os.ReadFile(lieFile(filepath.Dir(os.Args[2]))); err == nil && string(lie) == "unjailed" {
				unjailedWorker()
			} else if err == nil {
				lyingWorker(string(lie))
			}
			os.Exit(child.RunWorker(os.Args[2:]))
		case child.CompilerVerb:
			os.Exit(child.RunCompiler(os.Args[2:]))
		}
	}
	var err error
	if tenantsCache, err = os.MkdirTemp("", "wray-tenants"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(tenantsCache)
	os.Exit(code)
}

// unjailedWorker is a worker under no jail, to measure what that costs.
func unjailedWorker() {
	conn, err := link.FromFile(os.NewFile(child.LinkFD, "link"), worker.LinkOptions())
	if err == nil {
		worker.Mappings()
		err = worker.Serve(context.Background(), conn, "none")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "unjailed worker:", err)
		os.Exit(9)
	}
	os.Exit(0)
}

// lieFile names the lie of the next worker. It lies beside the tenants' code.
func lieFile(code string) string { return filepath.Join(code, "lie") }

// Classes of a frame, as internal/link has them.
const (
	notice, request, answer, failure = 0, 1, 2, 3
)

// lyingWorker is a worker process that starts as it should and answers a job
// with a lie. It ends only when it is killed, unless the lie is to end.
func lyingWorker(lie string) {
	f := os.NewFile(child.LinkFD, "link")
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "lying worker:", err)
			os.Exit(9)
		}
	}
	var head [16]byte
	read := func() (class byte, id uint64) {
		_, err := io.ReadFull(f, head[:])
		check(err)
		_, err = io.CopyN(io.Discard, f, int64(binary.LittleEndian.Uint32(head[:])))
		check(err)
		return head[6], binary.LittleEndian.Uint64(head[8:])
	}
	frame := func(length int, kind link.Kind, class byte, files byte, id uint64, body []byte) {
		h := binary.LittleEndian.AppendUint32(nil, uint32(length))
		h = binary.LittleEndian.AppendUint16(h, uint16(kind))
		h = append(h, class, files)
		h = binary.LittleEndian.AppendUint64(h, id)
		_, err := f.Write(append(h, body...))
		check(err)
	}
	send := func(kind link.Kind, class byte, id uint64, v any) {
		body, ok := v.([]byte)
		if !ok {
			var err error
			body, err = link.Marshal(v)
			check(err)
		}
		frame(len(body), kind, class, 0, id, body)
	}
	_, id := read()
	if lie == "silent" {
		select {}
	}
	send(worker.KindStart, answer, id, worker.StartedBody{Jail: "none"})
	_, id = read()
	ran := worker.RanBody{ExitCode: 7}
	refused := func(kind link.Kind, v any) {
		send(kind, request, 1, v)
		if class, _ := read(); class != failure {
			check(fmt.Errorf("message %d was answered with class %d", kind, class))
		}
		send(worker.KindRun, answer, id, ran)
	}
	switch lie {
	case "truncated":
		frame(100, worker.KindRun, answer, 0, id, make([]byte, 5))
		f.Close()
	case "header":
		_, err := f.Write(make([]byte, 7))
		check(err)
		f.Close()
	case "closed":
		f.Close()
	case "huge":
		frame(1<<32-1, worker.KindRun, answer, 0, id, nil)
	case "id":
		send(worker.KindRun, answer, id+1000, ran)
	case "kind":
		send(99, notice, 0, ran)
	case "class":
		send(worker.KindRun, 9, id, ran)
	case "files":
		frame(0, worker.KindOutput, notice, 3, 0, nil)
	case "answer":
		send(worker.KindRun, answer, id, []byte{0xff})
	case "answer-empty":
		send(worker.KindRun, answer, id, []byte(nil))
	case "answer-fields":
		send(worker.KindRun, answer, id, map[int]int{1: 0, 2: 0})
	case "failure":
		send(worker.KindRun, failure, id, []byte{0xa0})
	case "output":
		send(worker.KindOutput, notice, 0, []byte{0xff})
	case "stream":
		send(worker.KindOutput, notice, 0, worker.OutputBody{Run: 1, Stream: 9, Data: []byte("x")})
	case "twice":
		send(worker.KindRun, answer, id, ran)
		send(worker.KindRun, answer, id, ran)
	case "other-run":
		send(worker.KindOutput, notice, 0, worker.OutputBody{Run: 999, Stream: worker.Stdout, Data: []byte("x")})
		send(worker.KindRun, answer, id, ran)
	case "fs-run":
		refused(worker.KindFS, worker.FSBody{Run: 999, Op: worker.FSStat, Path: []byte(".")})
	case "fs-dir":
		refused(worker.KindFS, worker.FSBody{Run: 1, Dir: -1, Op: worker.FSStat, Path: []byte(".")})
	case "fs-body":
		refused(worker.KindFS, []byte{0xff})
	case "spill-body":
		refused(worker.KindSpill, []byte{0xff})
	case "spill-batch":
		refused(worker.KindSpill, spill.Request{Op: spill.OpWrite, Batch: 9, Pieces: []spill.Piece{{File: -1, Len: 1}}, Data: []byte("x")})
	case "spill-room":
		refused(worker.KindSpill, spill.Request{Op: spill.OpCreate, N: 1 << 40})
	case "busy":
		send(worker.KindRun, answer, id, ran)
		for {
			_, id = read()
			send(worker.KindRetire, answer, id, worker.RetiredBody{Seen: id})
		}
	case "request":
		refused(99, []byte{0xff})
	case "exit":
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(3)
	case "exit-after":
		send(worker.KindRun, answer, id, ran)
		os.Exit(0)
	}
	for {
		time.Sleep(time.Hour) // not select {}, which the runtime would end
	}
}

// command is a plain command whose _start is the given code.
func command(code string) []byte {
	section := func(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }
	return []byte("\x00asm\x01\x00\x00\x00" + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") +
		section(5, "\x01\x00\x01") + section(7, "\x02\x06memory\x02\x00\x06_start\x00\x00") +
		section(10, "\x01"+string([]byte{byte(len(code) + 2), 0})+code+"\x0b"))
}

var (
	nothing = command("")
	forever = command("\x03\x40\x0c\x00\x0b") // loop br 0 end
)

// home is a cache directory that the nodes of a test share.
type home string

func (h home) node(t testing.TB) *Node {
	t.Helper()
	n, err := New(Config{Name: "test", CacheDir: string(h)})
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

// lie makes the workers that start from now on lie, or not for "".
func (h home) lie(t testing.TB, lie string) {
	t.Helper()
	file := lieFile(filepath.Join(string(h), "code"))
	err := os.Remove(file)
	if lie != "" {
		err = os.WriteFile(file, []byte(lie), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func job(wasm []byte) Job {
	return Job{Name: "j", Modules: []Module{{Name: "m", Wasm: wasm}}}
}

// testRun runs a job that must end by itself.
func (n *Node) testRun(t testing.TB, j Job) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code, err := n.Run(ctx, j)
	if ctx.Err() != nil {
		t.Fatal("the job did not end by itself")
	}
	return code, err
}

func (n *Node) current() *workerProcess {
	w, _ := n.worker("")
	return w
}

func (n *Node) own() *tenant {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tenants[n.cfg.Tenant]
}

// TestLyingWorker runs jobs on workers that send what no worker sends. The job
// ends with a typed error, or as if nothing was, the process is gone, and the
// next job runs.
func TestLyingWorker(t *testing.T) {
	h := home(t.TempDir())
	if code, err := h.node(t).testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("without a lie: %d, %v", code, err)
	}
	const fine = wray.CodeOK
	const died = wray.CodeWorkerDied
	for _, tc := range []struct {
		lie  string
		want wray.Code
		says string
	}{
		{"truncated", died, ""}, {"header", died, ""}, {"closed", died, ""}, {"huge", died, "bytes"}, {"id", died, "reply to call"},
		{"kind", died, "unknown message 99"}, {"class", died, ""}, {"files", died, ""}, {"answer", died, "body"},
		{"answer-empty", died, "body"}, {"answer-fields", died, "body"}, {"failure", died, "code"}, {"output", died, "body"},
		{"stream", died, "stream 9"}, {"exit", died, "exit status 3"},
		{"twice", fine, ""}, {"other-run", fine, ""}, {"fs-run", fine, ""}, {"fs-dir", fine, ""}, {"fs-body", fine, ""}, {"spill-body", fine, ""},
		{"spill-batch", fine, ""}, {"spill-room", fine, ""},
		{"request", fine, ""}, {"exit-after", fine, ""},
	} {
		t.Run(tc.lie, func(t *testing.T) {
			n := h.node(t)
			h.lie(t, tc.lie)
			var printed strings.Builder
			j := job(nothing)
			j.Dirs = []Dir{{Host: t.TempDir(), Guest: "/"}}
			j.Output = func(_ string, _ worker.Stream, p []byte) { printed.Write(p) }
			code, err := n.testRun(t, j)
			lied := n.current()
			h.lie(t, "")
			var e *wray.Error
			switch {
			case tc.want == fine && (err != nil || code != 7):
				t.Fatalf("%d, %v", code, err)
			case tc.want != fine && (!errors.As(err, &e) || e.Code != tc.want || !strings.Contains(e.Message, tc.says)):
				t.Fatalf("%d, %v; want %v: … %s", code, err, tc.want, tc.says)
			case tc.want != fine && lied != nil:
				t.Error("the worker is kept")
			case tc.lie == "exit" && e.Trace != "last words":
				t.Errorf("its last words are %q", e.Trace)
			}
			if printed.Len() > 0 {
				t.Errorf("printed %q", printed.String())
			}
			want := 7
			switch tc.lie {
			case "twice", "exit-after":
				if lied != nil { // else the node has noticed already
					<-lied.conn.Done() // it ends after its answer
				}
				want = 0
			case "other-run", "fs-run", "fs-dir", "fs-body", "spill-body", "spill-batch", "spill-room", "request":
				return // it is an honest worker so far, and reads no more
			default:
				want = 0
			}
			if code, err := n.testRun(t, job(nothing)); code != want || err != nil {
				t.Errorf("the job after it: %d, %v", code, err)
			}
			if w := n.current(); w == nil || w == lied {
				t.Error("the job after it did not get a worker of its own")
			}
		})
	}
}

// TestWorkerKilled kills the worker under a job, twice. Each time the job says
// so and the next one runs.
func TestWorkerKilled(t *testing.T) {
	n := home(t.TempDir()).node(t)
	for range 2 {
		if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
			t.Fatalf("%d, %v", code, err)
		}
		w := n.current()
		w.added = func() { w.proc.Kill() }
		_, err := n.testRun(t, job(forever))
		if !errors.Is(err, wray.ErrWorkerDied) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("got %v", err)
		}
	}
}

// TestSilentWorker holds that a worker which does not answer its first message
// holds up nobody but those that need one, and no job longer than it wants.
func TestSilentWorker(t *testing.T) {
	h := home(t.TempDir())
	n := h.node(t)
	h.lie(t, "silent")
	ctx, cancel := context.WithCancel(t.Context())
	first, cancelFirst := context.WithCancel(ctx)
	ended := make(chan error, 2)
	wait := func(ctx context.Context) {
		_, err := n.own().startWorker(ctx)
		ended <- err
	}
	var starting *start
	go wait(first)
	for ; starting == nil; time.Sleep(time.Millisecond) { // there is no event to wait for
		t := n.own()
		n.mu.Lock()
		starting = t.starting
		n.mu.Unlock()
	}
	cancelFirst()
	if err := <-ended; !errors.Is(err, wray.ErrCanceled) {
		t.Errorf("a canceled job ended with %v", err)
	}
	for range 2 {
		go wait(ctx)
	}
	select {
	case <-starting.done:
		t.Errorf("the worker's start ended with the job that began it, and others wait for it: %v", starting.err)
	case <-time.After(100 * time.Millisecond): // it never comes: what is wrong shows in less
	}
	if s, err := n.Stats(ctx, ""); err != nil || s != (worker.StatsBody{}) {
		t.Errorf("stats meanwhile: %+v, %v", s, err)
	}
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, wray.ErrCanceled) {
			t.Errorf("a canceled job ended with %v", err)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestWorkerCgroup holds that a worker is in a control group with a limit of
// memory, where the machine lends groups, and that nothing is left of it.
func TestWorkerCgroup(t *testing.T) {
	if _, _, err := jail.CgroupSupport(); err != nil {
		t.Skipf("SKIP: this machine lends no cgroup: %v", err)
	}
	h := home(t.TempDir())
	n := h.node(t)
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	w := n.current()
	if w.group == nil {
		t.Fatal("the worker is in no group")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", w.proc.Pid()))
	name := fmt.Sprintf("/wray-%d-worker-", os.Getpid())
	if err != nil || !strings.Contains(string(b), name) {
		t.Errorf("the worker's groups are\n%s%v", b, err)
	}
	dirs := strings.Fields(w.group.String())[2:]
	limit := ""
	for _, dir := range dirs {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // of version 2, and 1
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				limit = strings.TrimSpace(string(b))
			}
		}
	}
	want := n.own().cgroupLimits().Memory / int64(os.Getpagesize()) * int64(os.Getpagesize())
	if machine := worker.DefaultMemory(); limit != fmt.Sprint(want) || want <= 0 || want > machine {
		t.Errorf("the group's limit of memory is %q, want %d, of the machine's %d\n%v", limit, want, machine, dirs)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// TestClose closes a node that runs a job, from several goroutines and again.
func TestClose(t *testing.T) {
	n := home(t.TempDir()).node(t)
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	w := n.current()
	ended, added := make(chan error, 1), make(chan bool)
	w.added = func() { close(added) }
	go func() {
		_, err := n.Run(context.Background(), job(forever))
		ended <- err
	}()
	<-added
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	var e *wray.Error
	if err := <-ended; !errors.As(err, &e) {
		t.Errorf("the job ended with %v", err)
	}
	select {
	case <-w.proc.Done():
	default:
		t.Error("Close left its worker")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.testRun(t, job(nothing)); err == nil {
		t.Error("a closed node ran a job")
	}
	idle := home(t.TempDir()).node(t) // whose worker never started
	for range 2 {
		if err := idle.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestMissingCodeIsMadeAnew takes a module's compiled code away while the
// worker runs. The next job has it again, made by a compiler process: the
// worker is the same and may not write it.
func TestMissingCodeIsMadeAnew(t *testing.T) {
	n := home(t.TempDir()).node(t)
	run := func() string {
		if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
			t.Fatalf("%d, %v", code, err)
		}
		e, err := n.cache.Get(t.Context(), n.cfg.Tenant, nothing)
		if err != nil {
			t.Fatal(err)
		}
		return e.NativePath
	}
	native := run()
	w := n.current()
	if err := os.Remove(native); err != nil {
		t.Fatal(err)
	}
	if again := run(); again != native {
		t.Errorf("the code was %s and is %s", native, again)
	}
	if _, err := os.Stat(native); err != nil {
		t.Error(err)
	}
	if n.current() != w {
		t.Error("another worker runs")
	}
}

// TestMachineOfWorker holds that a worker, which may ask the kernel nothing of
// that, knows how much memory the machine has.
func TestMachineOfWorker(t *testing.T) {
	n := home(t.TempDir()).node(t)
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	m, err := n.Objects(t.Context(), "", clientwire.MemoryBody{})
	if want := worker.DefaultStore(worker.DefaultMemory()); err != nil || m.Capacity != want {
		t.Errorf("the object store has %d bytes, want %d; %v", m.Capacity, want, err)
	}
}
