package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/host/egress/client"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// What a job is granted is checked against its tenant's policy when it is
// submitted, and each HTTP request again when it is made: by what the node knows of
// the tenant and the job, whatever their worker says.

// Bounds of HTTP requests.
const (
	// maxFetches is of one tenant. Its worker keeps to fewer, and has others wait.
	maxFetches      = worker.MaxFetches + 16
	maxFetchTime    = time.Hour
	normalFetchTime = 10 * time.Minute // where the guest names none
)

// policy is what the tenant's jobs may be granted now.
func (t *tenant) policy() wray.Policy {
	r := t.record()
	return t.n.policyOf(t.name, &r)
}

func (n *Node) policyOf(tenant string, r *control.Tenant) wray.Policy {
	if r.Policy != nil {
		return *r.Policy
	}
	own := tenant == n.cfg.Tenant
	p := wray.DefaultPolicy(own)
	if own {
		p.Private = n.cfg.EgressPrivate
	}
	return p
}

// policyKnown is an error where the node is of a cluster and has not heard yet which
// policies there are: the default of those who run it would open what they closed.
func (n *Node) policyKnown() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil || n.followed {
		return nil
	}
	return &wray.Error{Code: wray.CodeDenied, Message: "what jobs may be granted is not known: this node has reached no head of its cluster since it started",
		Hint: "try again when one answers; wray status tells which do"}
}

// grants checks what a job is granted against the tenant's policy.
func (t *tenant) grants(j *Job) ([]wray.EgressRule, error) {
	rules, err := wray.ParseEgressRules(j.Egress)
	if err != nil {
		return nil, err
	}
	if len(rules) > 0 || len(j.Dirs) > 0 {
		if err := t.n.policyKnown(); err != nil {
			return nil, err
		}
	}
	p := t.policy()
	for _, r := range rules {
		if !p.AllowsEgress(r) {
			return nil, t.refused("job.grant", j.Name, p.Refused(t.name, "egress to "+r.String(), "egress", r.String()))
		}
	}
	for _, d := range j.Dirs {
		// All of them need no name that this process knows: a client in another mount
		// namespace has passed a descriptor.
		if slices.Contains(p.Dirs, wray.AllDirs) {
			break
		}
		dir, err := trueName(d.Host)
		if err != nil {
			return nil, fmt.Errorf("grant %s: %w", d.Guest, err)
		}
		if !p.AllowsDir(dir, d.ReadOnly, within) {
			value := dir
			if d.ReadOnly {
				value += ":ro"
			}
			return nil, t.refused("job.grant", j.Name, p.Refused(t.name, "the directory "+value, "dir", value))
		}
	}
	return rules, nil
}

// trueName is the path of a directory without links, by which it is what host is.
func trueName(host string) (string, error) {
	dir, err := filepath.EvalSymlinks(host)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return "", err
	}
	named, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	given, err := os.Stat(host)
	if err != nil {
		return "", err
	}
	if !os.SameFile(named, given) {
		return "", fmt.Errorf("%s is another directory for the node than for who grants it", dir)
	}
	return dir, nil
}

// tellGrants says of jobs what each was granted, and what of that the policy of
// their tenant would refuse now.
func (w *workerProcess) tellGrants(jobs []clientwire.Job) {
	if w.t == nil {
		return
	}
	p := w.t.policy()
	for i := range jobs {
		j := &jobs[i]
		r := w.get(j.Run)
		if j.Run, j.Grants = 0, nil; r == nil {
			continue
		}
		for _, d := range r.job.Dirs {
			dir, err := filepath.EvalSymlinks(d.Host)
			g := wray.Grants{Dirs: []wray.DirGrant{{Guest: d.Guest, ReadOnly: d.ReadOnly}}}
			j.Grants = append(j.Grants, clientwire.JobGrant{Grant: grantText(&g), Refused: err == nil && !p.AllowsDir(dir, d.ReadOnly, within)})
		}
		for _, e := range r.egress {
			g := wray.Grants{Egress: []wray.EgressRule{e}}
			j.Grants = append(j.Grants, clientwire.JobGrant{Grant: grantText(&g), Refused: !p.AllowsEgress(e)})
		}
	}
}

// grantText is a single grant as people write it.
func grantText(g *wray.Grants) string { return strings.TrimSuffix(string(g.Append(nil)), "\x00") }

// within reports whether a directory is another, or below it.
func within(outer, dir string) bool {
	if real, err := filepath.EvalSymlinks(outer); err == nil {
		outer = real
	}
	rel, err := filepath.Rel(outer, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// refused records that something was not granted.
func (t *tenant) refused(action, object string, why *wray.Error) *wray.Error {
	_ = t.n.auditLog.Write(audit.Event{Who: "tenant " + t.name, Tenant: t.name, Action: action, Object: object, Decision: audit.Denied, Why: why.Message})
	return why
}

// tenantEgress is what a node has of a tenant's HTTP requests.
type tenantEgress struct {
	rate byteRate

	mu     sync.Mutex
	under  int            // guarded by mu; requests under way
	client *client.Client // guarded by mu; nil before the first
	of     []string       // guarded by mu; the private networks of client
}

// ask returns the client for a tenant with this policy. One with another is not
// used any more, nor are its connections.
func (t *tenant) ask(p *wray.Policy) (*client.Client, error) {
	e := &t.egress
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil && reflect.DeepEqual(e.of, p.Private) {
		return e.client, nil
	}
	private, err := p.PrivateNetworks()
	if err != nil {
		return nil, err
	}
	if len(private) > 0 {
		slog.Warn("jobs may ask servers in networks that are not public", "tenant", t.name, "networks", p.Private)
	}
	if e.client != nil {
		e.client.Close()
	}
	e.client, e.of = client.New(client.Config{Private: private, Own: t.n.ownAddress, Hold: t.holdConn}), p.Private
	return e.client, nil
}

// holdConn is client.Config.Hold.
func (t *tenant) holdConn() (release func(), err error) {
	if t.fds == nil {
		return func() {}, nil
	}
	if err := t.fds.Take(1); err != nil {
		return nil, err
	}
	return func() { t.fds.Give(1) }, nil
}

// ownAddress is client.Config.Own: whether an address is the node's, or another's of
// its cluster, and whether wray listens there.
func (n *Node) ownAddress(a netip.AddrPort) (node, port bool) {
	local := a.Addr().IsLoopback() || a.Addr().IsUnspecified()
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, x := range addrs {
			if p, ok := x.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(p.IP); ok && ip.Unmap() == a.Addr() {
					local = true
				}
			}
		}
	}
	for host, listens := range n.nodeAddrs() {
		addr, err := netip.ParseAddr(host)
		switch {
		case err == nil && addr.Unmap() == a.Addr():
			node = true
			port = port || listens[int(a.Port())]
		case local && listens[int(a.Port())] && host == n.selfHost():
			port = true
		}
	}
	return node || local, port
}

// nodeAddrs are the hosts of the nodes of the cluster, and the ports of each.
func (n *Node) nodeAddrs() map[string]map[int]bool {
	m := n.Member()
	if m == nil {
		return nil
	}
	all := map[string]map[int]bool{}
	add := func(addr string) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return
		}
		if all[host] == nil {
			all[host] = map[int]bool{}
		}
		number, _ := strconv.Atoi(port)
		all[host][number] = true
	}
	add(m.Self().Addr)
	for _, e := range m.Nodes().Nodes() {
		add(e.Node.Addr)
	}
	return all
}

func (n *Node) selfHost() string {
	host, _, _ := net.SplitHostPort(n.Member().Self().Addr)
	return host
}

// fetches are the HTTP requests of a job that are under way.
type fetches struct {
	mu     sync.Mutex
	closed bool              // guarded by mu
	last   uint64            // guarded by mu
	all    map[uint64]*fetch // guarded by mu
	asking sync.WaitGroup
}

// fetch is one of them.
type fetch struct {
	t      *tenant
	ctx    context.Context
	cancel context.CancelFunc
	sent   *io.PipeWriter // nil where there is no body
	left   int64          // bytes of the body to come; belongs to the sender
	begun  chan struct{}  // closed when the rest is set
	answer *client.Response
	err    error

	reading sync.Mutex // held while answer.Body is read
	sending sync.Mutex // held while sent is written
}

// fetch serves a step of an HTTP request. The worker may say anything.
func (w *workerProcess) fetch(ctx context.Context, m link.Message) (out link.Message, err error) {
	var b worker.FetchBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return out, err
	}
	r := w.get(b.Run)
	if r == nil || w.t == nil {
		return out, wray.Errorf(wray.CodeCanceled, "the job has ended")
	}
	reply, err := r.fetchStep(ctx, w.t, &b)
	if err != nil {
		return out, err
	}
	out.Body, err = link.Marshal(reply)
	return out, err
}

func (r *run) fetchStep(ctx context.Context, t *tenant, b *worker.FetchBody) (out worker.FetchReply, err error) {
	if b.Op == worker.FetchBegin {
		out.ID, err = r.beginFetch(t, b)
		return out, err
	}
	r.fetches.mu.Lock()
	f := r.fetches.all[b.ID]
	if b.Op == worker.FetchEnd {
		delete(r.fetches.all, b.ID)
	}
	r.fetches.mu.Unlock()
	if f == nil {
		return out, wray.Errorf(wray.CodeBadArgument, "there is no request %d", b.ID)
	}
	switch b.Op {
	case worker.FetchSend:
		return out, f.send(ctx, b.Data, &out)
	case worker.FetchHead:
		if err := f.await(ctx); err != nil {
			return out, err
		}
		out.Status, out.Header = f.answer.Status, f.answer.Header
		return out, f.pay(ctx, headerBytes(out.Header))
	case worker.FetchRead:
		return f.read(ctx)
	case worker.FetchEnd:
		f.end()
		return out, nil
	}
	return out, fmt.Errorf("%w: step %d of a request", link.ErrProtocol, b.Op)
}

// beginFetch begins a request, where the job and its tenant may make it.
func (r *run) beginFetch(t *tenant, b *worker.FetchBody) (uint64, error) {
	p := t.policy()
	c, err := t.ask(&p)
	if err != nil {
		return 0, err
	}
	req := &egress.Request{Method: b.Method, URL: b.URL, Header: b.Header}
	to, err := req.Parse()
	if err != nil {
		return 0, err
	}
	about := fmt.Sprintf("%s, task %.80q of job %.80q", to.String(), b.Task, r.job.Name)
	if err := r.mayAsk(t, &p, to.Host, to.Port); err != nil {
		return 0, t.refused("egress.ask", about, err)
	}
	if b.Length < 0 || b.Length > egress.MaxRequestBytes {
		return 0, wray.Errorf(wray.CodeBadArgument, "a body of %d bytes, the most are %d", b.Length, int64(egress.MaxRequestBytes))
	}
	limit := time.Duration(b.Timeout)
	if limit <= 0 {
		limit = normalFetchTime
	}
	f := &fetch{t: t, begun: make(chan struct{}), left: b.Length}
	e, s := &t.egress, &r.fetches
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, wray.Errorf(wray.CodeCanceled, "the job has ended")
	}
	e.mu.Lock()
	full := e.under >= maxFetches
	if !full {
		e.under++
	}
	e.mu.Unlock()
	if full {
		return 0, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("tenant %s has too many HTTP requests under way", t.name),
			Limit: &wray.Limit{Name: "HTTP requests of a tenant at once", Value: maxFetches}}
	}
	f.ctx, f.cancel = context.WithTimeout(context.Background(), min(limit, maxFetchTime))
	var body io.ReadCloser
	if b.Length > 0 {
		var pipe *io.PipeReader
		pipe, f.sent = io.Pipe()
		body = pipe
		// The transport waits for who reads the body.
		context.AfterFunc(f.ctx, func() { pipe.CloseWithError(io.ErrClosedPipe) })
	}
	if s.all == nil {
		s.all = map[uint64]*fetch{}
	}
	s.last++
	s.all[s.last] = f
	s.asking.Go(func() {
		defer close(f.begun)
		if f.err = f.pay(f.ctx, len(b.Method)+len(b.URL)+headerBytes(b.Header)); f.err != nil {
			if body != nil {
				body.Close()
			}
			return
		}
		f.answer, f.err = c.Do(f.ctx, req, body, b.Length, func(host string, port int) error {
			if err := r.mayAsk(t, &p, host, port); err != nil {
				return err
			}
			return nil
		})
		if why := (*wray.Error)(nil); errors.As(f.err, &why) && why.Code == wray.CodeDenied {
			t.refused("egress.ask", about, why)
		}
	})
	return s.last, nil
}

// mayAsk is why the job may not ask a server: nobody has granted it, or the policy
// of its tenant does not let it have that, or not any more.
func (r *run) mayAsk(t *tenant, p *wray.Policy, host string, port int) *wray.Error {
	at := egress.HostPort(host, port)
	if !wray.EgressAllowed(r.egress, host, port) {
		return &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("the job was not granted egress to %s", at),
			Hint: "who runs the job can grant it: --egress " + at}
	}
	rules, err := wray.ParseEgressRules(p.Egress)
	if err != nil || !wray.EgressAllowed(rules, host, port) {
		return p.Refused(t.name, "egress to "+at, "egress", at)
	}
	if t.n.nodeAddrs()[host][port] {
		return &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("%s is not asked: a node of wray listens there", at)}
	}
	return nil
}

// send passes a part of the body on.
func (f *fetch) send(ctx context.Context, p []byte, out *worker.FetchReply) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	if len(p) == 0 {
		return nil
	}
	if int64(len(p)) > f.left {
		return wray.Errorf(wray.CodeBadArgument, "more of a body than its length")
	}
	if err := f.pay(ctx, len(p)); err != nil {
		return err
	}
	f.left -= int64(len(p))
	stop := context.AfterFunc(ctx, func() { f.sent.CloseWithError(context.Canceled) })
	defer stop()
	_, err := f.sent.Write(p)
	if err == nil && f.left == 0 {
		err = f.sent.Close()
	}
	if errors.Is(err, io.ErrClosedPipe) {
		out.End = true
		return nil
	}
	return err
}

// await waits until the answer has begun.
func (f *fetch) await(ctx context.Context) error {
	select {
	case <-f.begun:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read returns what there is of the answer, or waits for more.
func (f *fetch) read(ctx context.Context) (out worker.FetchReply, err error) {
	if err := f.await(ctx); err != nil {
		return out, err
	}
	f.reading.Lock()
	defer f.reading.Unlock()
	stop := context.AfterFunc(ctx, f.cancel)
	defer stop()
	buf := make([]byte, worker.FetchChunk)
	n, err := f.answer.Body.Read(buf)
	out.Data = buf[:n]
	switch {
	case err == io.EOF:
		out.End, err = true, nil
	case err != nil && n > 0:
		err = nil // it comes again
	case err != nil && errors.Is(f.ctx.Err(), context.DeadlineExceeded):
		err = wray.Errorf(wray.CodeTimeout, "the answer was not over in its time")
	case err != nil && !errors.As(err, new(*wray.Error)):
		err = wray.Errorf(wray.CodeUserError, "the answer broke off: %v", err)
	}
	if err == nil {
		err = f.pay(ctx, n)
	}
	return out, err
}

// pay waits until n more bytes are within the tenant's rate, and no longer than the
// request may take.
func (f *fetch) pay(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	err := f.t.egress.rate.wait(ctx, n, f.t.record().Quota.EgressRate)
	if err != nil && errors.Is(f.ctx.Err(), context.DeadlineExceeded) {
		return wray.Errorf(wray.CodeTimeout, "the request was not over in its time: its tenant's quota egress-rate is %d bytes a second", f.t.record().Quota.EgressRate)
	}
	return err
}

// headerBytes is what headers take on the wire.
func headerBytes(headers []egress.Header) (n int) {
	for _, h := range headers {
		n += len(h.Name) + len(h.Value) + len(": \r\n")
	}
	return n
}

// end ends a request that was taken out of fetches.
func (f *fetch) end() {
	f.cancel()
	<-f.begun
	if f.answer != nil {
		f.answer.Body.Close()
	}
	f.t.egress.mu.Lock()
	f.t.egress.under--
	f.t.egress.mu.Unlock()
}

// close ends all that is under way, when the job has ended.
func (s *fetches) close() {
	s.mu.Lock()
	s.closed = true
	all := s.all
	s.all = nil
	s.mu.Unlock()
	for _, f := range all {
		f.end()
	}
	s.asking.Wait()
}
