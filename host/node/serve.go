package node

import (
	"cmp"
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
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
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
	maxModuleBytes = 1 << 30 // of one module
	maxJobBytes    = 1 << 30 // of all modules of a job
	maxNodeBytes   = 2 << 30 // of the modules of all jobs that are being read or compiled
)

// moduleBudget bounds the bytes of modules that clients have a node keep in its
// memory at once.
type moduleBudget struct {
	mu   sync.Mutex
	used int64            // guarded by mu
	by   map[string]int64 // guarded by mu; of used, by who sends it over the network
}

// takeFor is take for somebody who sends modules over the network, and has no
// more of the budget at once than one job may: there is room for others beside
// one who sends much and slowly. giveFor gives it back.
func (b *moduleBudget) takeFor(who string, n int64) error {
	b.mu.Lock()
	over := n <= maxJobBytes && b.by[who]+n > maxJobBytes
	if !over {
		if b.by == nil {
			b.by = map[string]int64{}
		}
		b.by[who] += n
	}
	b.mu.Unlock()
	if over {
		return moduleLimit(fmt.Sprintf("the modules of the jobs that %s starts now are too large together", who), "module bytes of who submits", maxJobBytes, "try again when the others have started")
	}
	err := b.take(n)
	if err != nil {
		b.owed(who, n)
	}
	return err
}

func (b *moduleBudget) giveFor(who string, n int64) {
	b.owed(who, n)
	b.give(n)
}

func (b *moduleBudget) owed(who string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[who] -= n; b.by[who] == 0 {
		delete(b.by, who)
	}
}

// take takes n bytes, where there are so many.
func (b *moduleBudget) take(n int64) error {
	if n > maxJobBytes {
		return moduleLimit("the job's modules are too large together", "module bytes of a job", maxJobBytes, "submit fewer or smaller modules with it; strip them with -ldflags='-s -w'")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > maxNodeBytes {
		return moduleLimit("the modules of the jobs that start now are too large together", "module bytes of a node", maxNodeBytes, "try again when the others have started")
	}
	b.used += n
	return nil
}

func (b *moduleBudget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

func moduleLimit(what, name string, value int64, hint string) error {
	return &wray.Error{Code: wray.CodeLimitExceeded, Message: what, Limit: &wray.Limit{Name: name, Value: value, Unit: "bytes"}, Hint: hint}
}

// Serve listens at a socket at path, for the node's user alone. The socket of a
// node that has died is replaced, that of a live one refused. With inspect, the
// server tells what the node holds and takes no jobs. Close it before the node.
func (n *Node) Serve(path string, inspect bool) (*Server, error) {
	fail := func(err error, hint string) (*Server, error) { return nil, noListen(path, err, hint) }
	lock, err := takeSocket(path)
	if err != nil {
		return nil, err
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

// CheckSocket returns the error that Serve will, where another node has a socket:
// for who does much before it serves.
func CheckSocket(path string) error {
	lock, err := takeSocket(path)
	if err != nil {
		return err
	}
	return lock.Close()
}

func noListen(path string, err error, hint string) error {
	return &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("listen at %s: %v", path, err), Hint: hint}
}

// takeSocket takes the lock of a socket, until that is closed.
func takeSocket(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, noListen(path, err, "name another place with --socket")
	}
	lock, err := lockSocket(path + ".lock")
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, noListen(path, err, "native clients need Linux")
	case err != nil:
		return nil, noListen(path, err, "a node is running there; use it, or start another with --socket")
	}
	return lock, nil
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

func (s *Server) handle(ctx context.Context, conn *link.Conn, m link.Message) (_ link.Message, failed error) {
	var out any
	// Clients are of the node's user: see checkPeer.
	who := access.LocalUser(os.Geteuid())
	rule, err := access.Decide(who, access.Message(m.Kind))
	if err != nil {
		s.n.denied(who, access.Message(m.Kind), "")
		return link.Message{}, err
	}
	ctx, object := withObject(access.With(ctx, who))
	if audited(rule.Action) && rule.Action != access.PeopleWrite && m.Kind != clientwire.KindRun { // which record themselves
		defer func() { s.n.done(ctx, who, rule.Action, *object, failed) }()
	}
	if rule.Action.Governs() && !s.inspect {
		if err := s.n.recordable(); err != nil {
			return link.Message{}, err
		}
	}
	switch {
	case m.Kind == clientwire.KindRun && !s.inspect:
		out, err = s.run(ctx, conn, m)
	case m.Kind == clientwire.KindPing:
		out = struct{}{}
	case m.Kind == clientwire.KindMemory:
		var b clientwire.MemoryBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			if b.Tenant, err = s.tenantFor(ctx, b.Tenant); err == nil {
				out, err = s.n.Objects(ctx, b.Tenant, b)
			}
		}
	case m.Kind == clientwire.KindStats:
		var st worker.StatsBody
		st, err = s.n.Stats(ctx, s.n.cfg.Tenant)
		out = clientwire.StatsBody{Waiting: st.Waiting, Running: st.Running, Finished: st.Finished, Failed: st.Failed, OnDisk: st.OnDisk, Retried: st.Retried}
	case m.Kind == clientwire.KindExplain:
		var b clientwire.ExplainBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			if b.Tenant, err = s.tenantFor(ctx, b.Tenant); err == nil {
				out, err = s.n.Explain(ctx, b.Tenant, b)
			}
		}
	case m.Kind == clientwire.KindStatus:
		var b clientwire.StatusBody
		if len(m.Body) > 0 {
			err = link.Unmarshal(m.Body, &b)
		}
		if err == nil {
			if b.Tenant, err = s.tenantFor(ctx, b.Tenant); err == nil {
				out, err = s.n.Status(ctx, b.Tenant)
			}
		}
	case m.Kind >= clientwire.KindJobSubmit && m.Kind <= clientwire.KindJobLogs && !s.inspect:
		out, err = s.jobs(ctx, m)
	case m.Kind >= clientwire.KindUserList && m.Kind <= clientwire.KindTokenRevoke && !s.inspect:
		out, err = s.people(ctx, m)
	case m.Kind == clientwire.KindDrain && !s.inspect:
		var b clientwire.DrainBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			about(ctx, "drain node %s", b.Name)
			out, err = struct{}{}, s.n.DrainNode(ctx, b.Name, time.Duration(b.Within))
		}
	case m.Kind == clientwire.KindTenants:
		var b clientwire.TenantsBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			out, err = s.n.Tenants(ctx, b)
		}
	case m.Kind == clientwire.KindTenantSet && !s.inspect:
		var b clientwire.TenantBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			about(ctx, "%s", tenantChange(&b))
			out, err = s.n.SetTenant(ctx, b)
		}
	case m.Kind == clientwire.KindTenantLift && !s.inspect:
		var b clientwire.LiftBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			about(ctx, "lift module %s of tenant %s", b.Hash, b.Tenant)
			out, err = struct{}{}, s.n.Lift(b)
		}
	case m.Kind == clientwire.KindRekey && !s.inspect:
		about(ctx, "the key of gossip")
		out, err = struct{}{}, s.n.Rekey(ctx)
	case m.Kind == clientwire.KindRemove && !s.inspect:
		var b clientwire.RemoveBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			about(ctx, "remove node %s", b.Name)
			out, err = struct{}{}, s.n.RemoveNode(ctx, b.Name, b.Why, b.Head)
		}
	case m.Kind == clientwire.KindToken && !s.inspect:
		var b clientwire.TokenBody
		if err = link.Unmarshal(m.Body, &b); err == nil {
			var t auth.Token
			about(ctx, "join token for %d nodes, name %q, head %v", max(b.Uses, 1), b.Name, b.Head)
			t, err = s.n.NewToken(ctx, auth.TokenOptions{Uses: b.Uses, Life: time.Duration(b.Life), Name: b.Name, Head: b.Head})
			if err == nil {
				out = clientwire.Token{Token: t.Reveal(), Addr: s.n.Member().Self().Addr}
			}
		}
	case m.Kind == clientwire.KindOperator && !s.inspect:
		var b clientwire.OperatorBody
		if err = link.Unmarshal(m.Body, &b); err != nil {
			break
		}
		about(ctx, "credential of operator %s, revoked %v", b.Name, b.Revoke)
		if b.Revoke {
			out, err = clientwire.Operator{}, s.n.RevokeOperator(ctx, b.Name)
			break
		}
		var pem []byte
		if pem, err = s.n.NewOperator(ctx, b.Name, time.Duration(b.Life)); err == nil {
			out = clientwire.Operator{Credential: pem, Addr: s.n.Member().Self().Addr}
		}
	default:
		return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	if err != nil {
		return link.Message{}, err
	}
	body, err := link.Marshal(out)
	return link.Message{Body: body}, err
}

// tenantFor is the tenant of whom somebody asks what it has here, the node's own
// where none is named. Of another than his own only those hear who run the cluster.
func (s *Server) tenantFor(ctx context.Context, asked string) (string, error) {
	name, err := tenantFor(access.From(ctx), cmp.Or(asked, s.n.cfg.Tenant), false)
	if err == nil {
		_, err = s.n.tenant(name)
	}
	return name, err
}

// run runs a job, or a session, of a client, as long as the connection lasts.
func (s *Server) run(ctx context.Context, conn *link.Conn, m link.Message) (any, error) {
	var b clientwire.RunBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return nil, err
	}
	j, free, err := s.job(&b, m.Files)
	if err != nil {
		return nil, err
	}
	defer free()
	s.n.done(ctx, access.From(ctx), access.JobSubmit, j.Name+", for as long as its client is there"+s.n.of(j.Tenant), nil)
	if b.Session {
		if err := checkSocket(j.Client); err != nil {
			return nil, err
		}
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

// job makes a job of a client's message. Its standard input and its session are
// files of the message; all else is its own until free is called.
func (s *Server) job(b *clientwire.RunBody, files []*os.File) (j Job, free func(), err error) {
	if b.Version != clientwire.Version {
		return j, nil, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("the client speaks version %d, the node %d", b.Version, clientwire.Version),
			Hint: "use the same version of wray on both sides"}
	}
	want := len(b.Modules) + len(b.Dirs)
	if b.Stdin {
		want++
	}
	if b.Session {
		want++
	}
	if len(files) != want || b.Stdin && b.Session {
		return j, nil, fmt.Errorf("%w: %d files for a job that needs %d", link.ErrProtocol, len(files), want)
	}
	j = Job{Name: b.Name, Tenant: b.Tenant, Args: b.Args, Env: b.Env, Egress: b.Egress, Limits: worker.Limits{Memory: b.Memory, Stack: b.Stack,
		Files: b.Files, Handles: b.Handles, Windows: b.Windows, LogRate: b.LogRate, Timeout: time.Duration(b.Timeout)}}
	// All are measured before the first is read.
	sizes := make([]int64, len(b.Modules))
	total := int64(0)
	for i, name := range b.Modules {
		n, err := moduleSize(files[i])
		if err != nil {
			return j, nil, fmt.Errorf("module %s: %w", name, err)
		}
		sizes[i] = n
		total += n // of at most 128 files
	}
	if err := s.n.modules.take(total); err != nil {
		return j, nil, err
	}
	give := sync.OnceFunc(func() { s.n.modules.give(total) })
	frees := []func(){give}
	free = func() {
		for _, f := range frees {
			f()
		}
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	j.Compiled = give
	for i, name := range b.Modules {
		wasm := make([]byte, sizes[i])
		if _, err := io.ReadFull(io.NewSectionReader(files[0], 0, sizes[i]), wasm); err != nil {
			return j, nil, fmt.Errorf("module %s: %w", name, err)
		}
		j.Modules = append(j.Modules, Module{Name: name, Wasm: wasm})
		files = files[1:]
	}
	for _, d := range b.Dirs {
		host, done, err := dirPath(files[0])
		if err != nil {
			return j, nil, fmt.Errorf("granted directory %s: %w", d.Guest, err)
		}
		frees = append(frees, done)
		j.Dirs = append(j.Dirs, Dir{Host: host, Guest: d.Guest, ReadOnly: d.ReadOnly})
		files = files[1:]
	}
	switch {
	case b.Session:
		j.Client = files[0]
	case b.Stdin:
		j.Stdin = files[0]
	}
	return j, free, nil
}

// moduleSize returns the length of a client's file, which must be one whose
// reading ends.
func moduleSize(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxModuleBytes {
		return 0, wray.Errorf(wray.CodeBadArgument, "a module is a regular file of at most %d bytes", maxModuleBytes)
	}
	return st.Size(), nil
}
