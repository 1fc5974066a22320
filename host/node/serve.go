package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// Server takes jobs and sessions from clients at a unix socket. Clients must be
// of the node's user; what they send is bounded and checked all the same.
type Server struct {
	n       *Node
	path    string
	lock    *os.File
	l       *net.UnixListener
	inspect bool // it tells, and takes no jobs

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the acceptor and the clients
	places chan struct{}  // one token for each client
}

// Bounds on what clients may have.
const (
	maxClients     = 256
	maxModuleBytes = 1 << 30
)

// Serve listens at a socket at path, for the node's user alone. The socket of a
// node that has died is replaced, that of a live one refused. With inspect, the
// server tells what the node holds and takes no jobs. Close it before the node.
func (n *Node) Serve(path string, inspect bool) (*Server, error) {
	fail := func(err error, hint string) (*Server, error) {
		return nil, &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("listen at %s: %v", path, err), Hint: hint}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err, "name another place with --socket")
	}
	lock, err := lockSocket(path + ".lock")
	if err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return fail(err, "native clients need Linux")
		}
		return fail(err, "a node is running there; use it, or start another with --socket")
	}
	// Whoever made an old socket held the lock as long as it lived.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return fail(err, "remove what is there, or name another place with --socket")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		lock.Close()
		return fail(err, "name another place with --socket; its path must be shorter than 100 bytes")
	}
	s := &Server{n: n, path: path, lock: lock, l: l, inspect: inspect, places: make(chan struct{}, maxClients)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Close ends the jobs and sessions of all clients, and removes the socket. It is
// idempotent.
func (s *Server) Close() error {
	s.cancel()
	err := s.l.Close() // which removes the socket
	s.wg.Wait()
	if s.inspect {
		// Nobody else takes the name. Otherwise the lock's file stays: who has
		// opened it and waits would hold the lock of a file that is gone.
		os.Remove(s.path + ".lock")
	}
	s.lock.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.l.AcceptUnix()
		switch {
		case s.ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return
		case err != nil:
			// There are no descriptors: wait for some.
			select {
			case <-s.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.places <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.places }()
				s.client(c)
			})
		default:
			c.Close()
		}
	}
}

// client serves one connection.
func (s *Server) client(c *net.UnixConn) {
	err := checkPeer(c)
	var f *os.File
	if err == nil {
		f, err = c.File()
	}
	c.Close()
	if err != nil {
		return
	}
	conn, err := link.FromFile(f, clientwire.ControlOptions())
	if err != nil {
		return
	}
	// What ends the connection ends its jobs, and tells nobody else.
	_ = conn.Serve(s.ctx, func(ctx context.Context, m link.Message) (link.Message, error) {
		defer m.CloseFiles()
		return s.handle(ctx, conn, m)
	})
}

func (s *Server) handle(ctx context.Context, conn *link.Conn, m link.Message) (link.Message, error) {
	var out any
	var err error
	switch {
	case m.Kind == clientwire.KindRun && !s.inspect:
		out, err = s.run(ctx, conn, m)
	case m.Kind == clientwire.KindMemory:
		var b clientwire.MemoryBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			out, err = s.n.Objects(ctx, b)
		}
	case m.Kind == clientwire.KindStats:
		var st worker.StatsBody
		st, err = s.n.Stats(ctx)
		out = clientwire.StatsBody{Waiting: st.Waiting, Running: st.Running, Finished: st.Finished, Failed: st.Failed, OnDisk: st.OnDisk}
	default:
		return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	if err != nil {
		return link.Message{}, err
	}
	body, err := link.Marshal(out)
	return link.Message{Body: body}, err
}

// run runs a job, or a session, of a client.
func (s *Server) run(ctx context.Context, conn *link.Conn, m link.Message) (any, error) {
	var b clientwire.RunBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return nil, err
	}
	if b.Version != clientwire.Version {
		return nil, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("the client speaks version %d, the node %d", b.Version, clientwire.Version),
			Hint: "use the same version of wray on both sides"}
	}
	want := len(b.Modules) + len(b.Dirs)
	if b.Stdin {
		want++
	}
	if b.Session {
		want++
	}
	if len(m.Files) != want || b.Stdin && b.Session {
		return nil, fmt.Errorf("%w: %d files for a job that needs %d", link.ErrProtocol, len(m.Files), want)
	}
	files := m.Files
	j := Job{Name: b.Name, Args: b.Args, Env: b.Env, Limits: worker.Limits{Memory: b.Memory, Stack: b.Stack,
		Files: b.Files, Handles: b.Handles, Windows: b.Windows, LogRate: b.LogRate, Timeout: time.Duration(b.Timeout)}}
	for _, name := range b.Modules {
		wasm, err := readModule(files[0])
		if err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
		j.Modules = append(j.Modules, Module{Name: name, Wasm: wasm})
		files = files[1:]
	}
	for _, d := range b.Dirs {
		host, free, err := dirPath(files[0])
		if err != nil {
			return nil, fmt.Errorf("granted directory %s: %w", d.Guest, err)
		}
		defer free()
		j.Dirs = append(j.Dirs, Dir{Host: host, Guest: d.Guest, ReadOnly: d.ReadOnly})
		files = files[1:]
	}
	switch {
	case b.Session:
		if err := checkSocket(files[0]); err != nil {
			return nil, err
		}
		j.Client = files[0]
	case b.Stdin:
		j.Stdin = files[0]
	}
	j.Output = func(task string, st worker.Stream, p []byte) {
		body, err := link.Marshal(clientwire.OutputBody{Job: b.Job, Task: task, Stream: uint8(st), Data: p})
		if err != nil {
			return
		}
		// A request, so that a client that is slow, or stopped by its terminal,
		// slows down its own job alone. An error means that it is gone.
		if r, err := conn.Call(ctx, link.Message{Kind: clientwire.KindOutput, Body: body}); err == nil {
			r.CloseFiles()
		}
	}
	code, err := s.n.Run(ctx, j)
	return clientwire.RanBody{ExitCode: code}, err
}

// readModule reads a file of a client, which must be one whose reading ends.
func readModule(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxModuleBytes {
		return nil, wray.Errorf(wray.CodeBadArgument, "a module is a regular file of at most %d bytes", maxModuleBytes)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, st.Size()))
}
