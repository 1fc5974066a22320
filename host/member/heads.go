package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/rpc"
)

// ControlDir is where a head keeps its control state, below the node's directory.
const ControlDir = "control"

// openHead opens what a head keeps: the authority, and the control state. The
// first head makes both; a further one is let in by another, which gives it the
// authority.
func (m *Member) openHead(ctx context.Context, o *rpc.Options, p *port) (err error) {
	dir := filepath.Join(m.cfg.Dir, ControlDir)
	_, joined := auth.Open(m.cfg.Dir)
	begun := false // by this node, as the first head, whose control state is elsewhere
	if m.cfg.Outside {
		if begun, err = auth.HasAuthority(m.cfg.Dir); err != nil {
			return fmt.Errorf("the cluster's authority: %w", err)
		}
	}
	further := false // it comes to those that there are
	var all []string // the addresses of those, where they keep the control state
	defer func() {
		// One that did not become a head is a node as before, and has no secret of
		// heads. With a control state it is one, and the next start goes on.
		if err != nil && further && !m.cfg.ControlKept(dir) {
			err = errors.Join(err, m.dropAuthority())
		}
	}()
	if m.cfg.ControlKept != nil && !m.cfg.ControlKept(dir) {
		switch {
		case m.cfg.Join != "":
			if all, err = m.enlist(ctx); err != nil {
				return fmt.Errorf("become one more head: %w", err)
			}
			if further = true; (len(all) > 0) == m.cfg.Outside {
				return errKeeper(m.cfg.Outside)
			}
		case joined == nil && !begun:
			return &wray.Error{Code: wray.CodeBadArgument, Node: m.cfg.Name, Message: fmt.Sprintf("%s has a node's keys and no control state", m.cfg.Dir),
				Hint: "if other heads live, start it with the address of one, and it reads theirs; to begin a new cluster, use another directory"}
		}
	}
	authority, err := auth.OpenAuthority(m.cfg.Dir, time.Now())
	if err != nil {
		return fmt.Errorf("the cluster's authority: %w", err)
	}
	keys, err := authority.HeadKeys(m.cfg.Dir, m.cfg.Name, nil)
	if err != nil {
		return err
	}
	// Other heads are served before this one has its control state, which it may
	// have to wait for them to have, too.
	hp := rpc.NewHeadPort(p.tcp.Addr(), keys.ServerConfig())
	m.server = rpc.Listen(p.tcp, hp)
	m.closers = append(m.closers, m.server.Close)
	if m.store, err = m.cfg.OpenControl(ctx, dir, control.Port{Name: m.cfg.Name, Advertise: m.self.Addr, Listener: hp, File: keys.File(),
		CA: filepath.Join(m.cfg.Dir, auth.ClusterFile), ServerName: auth.HeadsName, Join: all}); err != nil {
		return err
	}
	m.closers = append(m.closers, m.store.Close)
	if err := ownCluster(ctx, m.store, authority.Cluster(), further && m.cfg.Outside); err != nil {
		return err
	}
	m.head = &auth.Registrar{Authority: authority, Store: m.store}
	o.Registrar, o.Head, o.Control = joins{m.head, m}, authority.HeadCertificates(m.cfg.Name, time.Now), newAccess(m.store).of
	if q, ok := m.store.(control.Quorum); ok {
		m.quorum = q
		m.wg.Go(m.getVote)
	}
	o.Enlist = m.enlistRecorded
	m.wg.Go(func() { m.keepHeadKeys(keys) })
	m.cred, err = auth.Open(m.cfg.Dir)
	if !errors.Is(err, auth.ErrNotJoined) {
		return err
	}
	e, err := auth.Enroll(m.cfg.Dir, authority.Cluster(), m.cfg.Name)
	if err != nil {
		return err
	}
	grant, err := m.head.Admit(ctx, e.Request)
	if err != nil {
		return fmt.Errorf("admit the head itself: %w", err)
	}
	m.cred, err = e.Finish(grant, authority.Trust, time.Now())
	return err
}

// dropAuthority removes the secrets of a head.
func (m *Member) dropAuthority() (err error) {
	for _, name := range []string{auth.AuthorityFile, auth.HeadsFile} {
		if rerr := os.Remove(filepath.Join(m.cfg.Dir, name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// enlistTime is how long other heads may take to let one more in: they do it
// when they have been together for some seconds, and one after the other. It is
// more than one takes that they await, and that does not come.
const enlistTime = time.Minute

// enlist has a head let this node be one more, and keeps the authority that it
// gives. It returns the addresses of all heads.
func (m *Member) enlist(ctx context.Context) ([]string, error) {
	if err := m.openNode(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, enlistTime)
	defer cancel()
	why := errors.New("no head answers")
	for {
		for _, c := range m.boot {
			e, err := c.Enlist(ctx, m.self.Addr)
			switch {
			case err == nil:
				if _, err = auth.ImportAuthority(m.cfg.Dir, e.Authority, m.cred.Trust()); err != nil {
					return nil, err
				}
				return e.Heads, m.endBoot()
			case errors.Is(err, auth.ErrNotHead), errors.Is(err, control.ErrInvalid):
				return nil, err
			case ctx.Err() == nil:
				why = err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), why)
		case <-time.After(retryPause):
		}
	}
}

// enlistOther lets a node be one more head. It gets the authority itself: only
// one that a token for heads let in.
func (m *Member) enlistOther(ctx context.Context, who auth.Identity, addr string) (rpc.Enlisted, error) {
	if err := m.head.MayHead(ctx, who); err != nil {
		m.cfg.Log.Warn("a node that may not be a head asked to be one", "node", who.Name)
		return rpc.Enlisted{}, err
	}
	b, err := m.head.Authority.Export()
	if err != nil {
		return rpc.Enlisted{}, err
	}
	if m.quorum == nil {
		return rpc.Enlisted{Authority: b}, nil
	}
	all, err := m.quorum.AddHead(ctx, who.Name, addr)
	if err != nil {
		return rpc.Enlisted{}, err
	}
	return rpc.Enlisted{Authority: b, Heads: all}, nil
}

// getVote has this head vote, when it has read all that the others have.
func (m *Member) getVote() {
	for m.quorum.Promote(m.running) != nil && m.pause() {
	}
}

// keepHeadKeys renews the certificate that other heads are shown.
func (m *Member) keepHeadKeys(keys *auth.HeadKeys) {
	t := time.NewTicker(auth.DefaultLife / 24)
	defer t.Stop()
	for {
		select {
		case <-m.running.Done():
			return
		case <-t.C:
			if _, err := keys.Certificate(); err != nil {
				m.cfg.Log.Warn("the certificate for other heads is not renewed yet", "err", err)
			}
		}
	}
}

// Learners returns the heads that have no vote yet, as far as this one knows.
func (m *Member) Learners(ctx context.Context) map[string]bool {
	if m.quorum == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, retryPause)
	defer cancel()
	out := map[string]bool{}
	all, _ := m.quorum.Heads(ctx) // nobody knows, while there is no quorum
	for _, h := range all {
		if h.Learner {
			out[h.Name] = true
		}
	}
	return out
}

// RemoveHead has a head keep the control state no more, and be no head: one that
// is gone for good. Only another head may.
func (m *Member) RemoveHead(ctx context.Context, name string) error {
	if m.head == nil {
		return &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "remove heads at another head", Node: m.cfg.Name}
	}
	if name == m.cfg.Name {
		return &wray.Error{Code: wray.CodeBadArgument, Message: "a head does not remove itself", Hint: "ask another head, or drain it", Node: m.cfg.Name}
	}
	// First it may be one no more: it would ask at once to be let in again.
	if err := m.head.Dismiss(ctx, name); err != nil {
		return err
	}
	if m.quorum == nil {
		return nil
	}
	return m.quorum.RemoveHead(ctx, name)
}

// Revoke accepts a node's certificates no more: its connections end. Only a
// head may, and not itself.
func (m *Member) Revoke(ctx context.Context, name, why string) error {
	switch {
	case m.head == nil:
		return &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "revoke nodes at a head", Node: m.cfg.Name}
	case name == m.cfg.Name:
		return &wray.Error{Code: wray.CodeBadArgument, Message: "a head does not revoke itself", Hint: "ask another head, or drain it", Node: m.cfg.Name}
	}
	err := m.head.Revoke(ctx, name, why)
	if errors.Is(err, control.ErrNotFound) {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("no node %q has joined", name), Hint: "wray status lists the nodes"}
	}
	return err
}

// CheckRetire reports why this node may not go for good: it is the only head.
func (m *Member) CheckRetire(ctx context.Context) error {
	if m.head == nil {
		return nil
	}
	if m.quorum != nil {
		all, err := m.quorum.Heads(ctx)
		if err != nil {
			return err
		}
		votes := 0
		for _, h := range all {
			if !h.Learner {
				votes++
			}
		}
		if votes > 1 {
			return nil
		}
	} else {
		if len(m.otherHeads()) > 0 {
			return nil
		}
	}
	return &wray.Error{Code: wray.CodeBadArgument, Node: m.cfg.Name, Message: "this is the only head: without it there is no cluster",
		Hint: "let another node be a head first (wray node token --head), or stop this one with a signal: it may come back"}
}

// otherHeads are the heads that are there to stay.
func (m *Member) otherHeads() (names []string) {
	for _, e := range m.dir.Nodes() {
		if e.Name != m.cfg.Name && e.Node.Head && !e.Node.Draining && e.Status != liveness.Dead {
			names = append(names, e.Name)
		}
	}
	return names
}

// goFromHeads has the other heads do without this one. They refuse for some
// seconds after the last change of who they are.
func (m *Member) goFromHeads(ctx context.Context) error {
	for m.quorum != nil {
		err := m.quorum.RemoveHead(ctx, m.cfg.Name)
		if !errors.Is(err, control.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return &wray.Error{Code: wray.CodeInternal, Node: m.cfg.Name, Message: "the other heads count on this one yet: " + err.Error(),
				Hint: "at another head: wray node remove " + m.cfg.Name}
		case <-time.After(retryPause):
		}
	}
	return nil
}

// Retire is Leave of a node that does not come back as a head: the others keep
// the control state without it, and its own, and the authority, are removed.
func (m *Member) Retire(ctx context.Context) error {
	if m.head == nil {
		return m.Leave(ctx)
	}
	others := m.otherHeads()
	err := m.dir.Leave(ctx)
	switch {
	case err != nil:
	case m.quorum == nil: // which else lets the last of them not go
		err = m.head.DismissBeside(ctx, m.cfg.Name, others)
	default:
		if err = m.head.Dismiss(ctx, m.cfg.Name); err == nil {
			err = m.goFromHeads(ctx)
		}
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	gone := err == nil
	err = errors.Join(err, m.gossip.Leave(short), m.Close())
	if gone { // what it kept is of no use, and the authority is a secret
		_ = os.Remove(filepath.Join(m.cfg.Dir, headsFile))
		err = errors.Join(err, m.dropAuthority(), os.RemoveAll(filepath.Join(m.cfg.Dir, ControlDir)))
	}
	return err
}
