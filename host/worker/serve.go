package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Serve is a worker process: it runs the jobs that the node at the other end
// of conn asks for, until the link ends. jail says what the process has put
// itself under, for the node to report.
func Serve(ctx context.Context, conn *link.Conn, jail string) error {
	debug.SetGCPercent(growth(0))
	s := &server{conn: conn, jail: jail, loans: loans{ends: map[uint64]func(){}}}
	err := conn.Serve(ctx, s.handle)
	s.loans.close()
	s.mu.Lock()
	w := s.w
	s.mu.Unlock()
	if w != nil {
		err = errors.Join(err, w.Close(context.WithoutCancel(ctx)))
	}
	return err
}

type server struct {
	conn *link.Conn
	jail string

	peering *nodePeering // of w; nil where it has no peers

	loans loans
	freed atomic.Uint64 // deeds of the worker when memory was given back last

	mu sync.Mutex
	w  *Worker // guarded by mu; set by the first KindStart

	peersMu sync.Mutex
	parts   map[uint64][]byte // guarded by peersMu; of peers' messages that are not complete
}

func (s *server) handle(ctx context.Context, m link.Message) (link.Message, error) {
	switch m.Kind {
	case KindStart:
		return s.start(m)
	case KindRun:
		return s.run(ctx, m)
	case KindStats:
		return s.stats()
	case KindMemory:
		return s.memory(m)
	case KindExplain:
		return s.explain(m)
	case KindDemand:
		return s.demand(m)
	case KindPeerUnlend:
		return link.Message{}, s.peerUnlend(m)
	case KindPeerEvents, KindPeerRead, KindPeerLend, KindLeave, KindRetire:
		w, err := s.started()
		switch {
		case err != nil:
			m.CloseFiles()
			return link.Message{}, err
		case m.Kind == KindPeerEvents:
			return s.peerEvents(w, m)
		case m.Kind == KindLeave:
			return s.leave(ctx, w, m)
		case m.Kind == KindRetire:
			return s.retire(ctx, w, m)
		case m.Kind == KindPeerLend:
			return s.peerLend(ctx, w, m)
		}
		return s.peerRead(ctx, w, m)
	}
	m.CloseFiles()
	return link.Message{}, fmt.Errorf("unknown message %d", m.Kind)
}

func (s *server) start(m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b StartBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		return link.Message{}, errors.New("started twice")
	}
	// The worker outlives the call.
	var state StateDir
	if b.State {
		state = remoteState{s.conn}
	}
	var peering Peering
	if b.Peers {
		s.peering = &nodePeering{conn: s.conn, queues: map[scheduler.PeerID]*sendQueue{}}
		peering = s.peering
	}
	var err error
	s.w, err = New(context.Background(), Config{
		Disk: s.disk(b), State: state, Peering: peering, Tenant: b.Tenant, Quota: b.Quota,
		Node: b.Node, CacheDir: b.CacheDir, StoreBytes: b.StoreBytes, Slots: b.Slots, Residents: b.Residents, Sandboxes: b.Sandboxes,
		Capacity: wray.Resources{CPU: wray.CPU(b.CPU), Memory: b.Memory}, Custom: customOf(b.Custom), Labels: labelsOf(b.Labels),
	})
	if err != nil {
		return link.Message{}, err
	}
	if s.peering != nil {
		s.peering.drained = s.w.PeerHasRoom
	}
	return reply(StartedBody{Jail: s.jail, Peer: uint64(s.w.PeerID())})
}

// disk is what takes the store's objects: the node keeps them.
func (s *server) disk(b StartBody) objectstore.Disk {
	if !b.Spills {
		return nil
	}
	return spill.NewDisk(func(r spill.Request, files []*os.File) (spill.Reply, []*os.File, error) {
		body, err := link.Marshal(r)
		if err != nil {
			return spill.Reply{}, nil, err
		}
		m, err := s.conn.Call(context.Background(), link.Message{Kind: KindSpill, Body: body, Files: files})
		if err != nil {
			return spill.Reply{}, nil, err
		}
		var reply spill.Reply
		if err := link.Unmarshal(m.Body, &reply); err != nil {
			m.CloseFiles()
			return spill.Reply{}, nil, err
		}
		return reply, m.Files, nil
	})
}

// remoteState is the directory of durable actors, which the node has.
type remoteState struct{ conn *link.Conn }

func (r remoteState) call(op StateOp, name string) (link.Message, error) {
	body, err := link.Marshal(StateBody{Op: op, Name: name})
	if err != nil {
		return link.Message{}, err
	}
	return r.conn.Call(context.Background(), link.Message{Kind: KindState, Body: body})
}

func (r remoteState) Open(name string) (files [2]*os.File, err error) {
	m, err := r.call(StateOpen, name)
	if err != nil {
		return files, err
	}
	if len(m.Files) != 2 {
		m.CloseFiles()
		return files, errors.New("the node sent no files")
	}
	return [2]*os.File(m.Files), nil
}

func (r remoteState) Find(name string) (files [2]*os.File, err error) {
	m, err := r.call(StateFind, name)
	if err != nil {
		return files, err
	}
	if len(m.Files) != 2 {
		m.CloseFiles()
		return files, fs.ErrNotExist
	}
	return [2]*os.File(m.Files), nil
}

func (r remoteState) Release(name string) {
	if m, err := r.call(StateRelease, name); err == nil { // else the node is gone, or knows
		m.CloseFiles()
	}
}

func (r remoteState) Remove(name string) error {
	m, err := r.call(StateRemove, name)
	m.CloseFiles()
	return err
}

func reply(v any) (link.Message, error) {
	b, err := link.Marshal(v)
	return link.Message{Body: b}, err
}

// started returns the worker, once the node has had it started.
func (s *server) started() (*Worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return nil, errors.New("not started")
	}
	return s.w, nil
}

func (s *server) stats() (link.Message, error) {
	w, err := s.started()
	if err != nil {
		return link.Message{}, err
	}
	st := w.Stats()
	t := st.Tasks
	return reply(StatsBody{
		Waiting: int64(t.Waiting), Running: int64(t.Running),
		Finished: int64(t.Finished), Failed: int64(t.Failed),
		Replaced: st.Replaced, Retried: int64(t.Retried),
		OnDisk: st.Store.OnDisk, Spilled: st.Store.Spilled, Restored: st.Store.Restored, Lost: st.Store.Lost,
		Resident: int64(st.Resident), Asleep: st.Asleep, AsleepBytes: st.AsleepBytes, AsleepOnDisk: st.AsleepOnDisk, Undrained: st.Undrained,
	})
}

func (s *server) memory(m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b clientwire.MemoryBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	w, err := s.started()
	if err != nil {
		return link.Message{}, err
	}
	return reply(w.Memory(b))
}

func (s *server) explain(m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b clientwire.ExplainBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	w, err := s.started()
	if err != nil {
		return link.Message{}, err
	}
	x, err := w.Explain(b)
	if err != nil {
		return link.Message{}, err
	}
	return reply(x)
}

func (s *server) run(ctx context.Context, m link.Message) (link.Message, error) {
	defer m.CloseFiles()
	var b RunBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	s.mu.Lock()
	w := s.w
	s.mu.Unlock()
	files := len(b.Modules)
	if b.Stdin || b.Client {
		files++
	}
	switch {
	case w == nil:
		return link.Message{}, errors.New("not started")
	case len(m.Files) != files || b.Stdin && b.Client:
		return link.Message{}, fmt.Errorf("%d files for a job that needs %d", len(m.Files), files)
	}
	spec := JobSpec{Name: b.Name, Run: b.Run, Args: b.Args, Env: b.Env, Limits: Limits{
		Memory: b.Memory, Stack: b.Stack, Files: b.Files, Handles: b.Handles, Windows: b.Windows, LogRate: b.LogRate, Timeout: time.Duration(b.Timeout)}}
	for i, mb := range b.Modules {
		raw, err := io.ReadAll(m.Files[i])
		if err != nil {
			return link.Message{}, fmt.Errorf("read artifact %s: %w", mb.Name, err)
		}
		a, err := sandbox.DecodeArtifact(raw)
		if err != nil {
			return link.Message{}, fmt.Errorf("artifact %s: %w", mb.Name, err)
		}
		spec.Modules = append(spec.Modules, ModuleSpec{Name: mb.Name, Artifact: a, Native: mb.Native, Hash: mb.Hash})
	}
	for i, d := range b.Dirs {
		spec.Dirs = append(spec.Dirs, DirSpec{Guest: d.Guest, ReadOnly: d.ReadOnly,
			FS: &remoteFS{ctx: ctx, conn: s.conn, run: b.Run, dir: i}})
	}
	spec.Fetch = func(ctx context.Context, fb FetchBody) (out FetchReply, err error) {
		fb.Run = b.Run
		body, err := link.Marshal(fb)
		if err != nil {
			return out, err
		}
		m, err := s.conn.Call(ctx, link.Message{Kind: KindFetch, Body: body})
		if err != nil {
			return out, err
		}
		m.CloseFiles()
		return out, link.Unmarshal(m.Body, &out)
	}
	if b.Stdin {
		in, err := newInput(m.Files[len(m.Files)-1])
		if err != nil {
			return link.Message{}, err
		}
		defer in.Close()
		spec.Stdin = in
	}
	if b.Client {
		spec.Client = m.Files[len(m.Files)-1]
	}
	spec.Output = func(task string, st Stream, p []byte) {
		// A request and not a notice: the node answers when the reader has it,
		// and reads what others send meanwhile.
		body, err := link.Marshal(OutputBody{Run: b.Run, Task: task, Stream: st, Data: p})
		if err != nil {
			return
		}
		// An error means that the job was canceled, or the node is gone.
		if m, err := s.conn.Call(ctx, link.Message{Kind: KindOutput, Body: body}); err == nil {
			m.CloseFiles()
		}
	}
	code, err := w.Run(ctx, spec)
	if err != nil {
		return link.Message{}, err
	}
	return reply(RanBody{ExitCode: code})
}
