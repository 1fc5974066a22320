package node

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/bulk"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/jobhttp"
	"github.com/wray-project/wray/internal/peoplehttp"
	"github.com/wray-project/wray/internal/rpc"
)

// Join has the node take part in a cluster. It is called once, before Serve.
func (n *Node) Join(ctx context.Context, c member.Config) error {
	n.cfg.Name = c.Name // what others call it, and tasks ask for
	c.Offer.Capacity, c.Offer.Custom = n.cfg.Capacity, n.cfg.Custom
	c.Offer.Labels = map[string]string{}
	for _, l := range wray.NodeLabels(c.Name, n.cfg.Labels) {
		c.Offer.Labels[l.Key] = l.Value
	}
	if c.Offer.Capacity.CPU <= 0 {
		c.Offer.Capacity.CPU = wray.CPUs(float64(runtime.NumCPU()))
	}
	if c.Offer.Capacity.Memory <= 0 {
		c.Offer.Capacity.Memory = worker.DefaultMemory()
	}
	n.peers = newPeering(n)
	n.mu.Lock()
	for _, t := range n.tenants { // the node's own was there before
		t.peers = n.peers.of(t)
	}
	n.mu.Unlock()
	c.Handler, c.Blob, c.Drain = n.peers, n.peers.blob, n.retire
	c.Protocols = map[string]func(context.Context, *rpc.Conn){bulk.Protocol: n.peers.bulk.accept}
	c.Jobs = jobsForOthers{n}
	c.Denied, c.Login, c.Decided, c.Ready = n.denied, n.login, n.done, n.recordable
	c.HTTP = jobhttp.New(c.Jobs)
	peoplehttp.Mount(c.HTTP, n.people)
	m, err := member.Start(ctx, c)
	n.peers.joined(m)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.member = m
	n.mu.Unlock()
	n.followTenants(n.peers.ctx, m.Store())
	return nil
}

// Member is the node's part in its cluster; nil for a node that is alone.
func (n *Node) Member() *member.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

// Ended is closed when the cluster has given the node up; never for a node that
// is alone.
func (n *Node) Ended() <-chan struct{} {
	if m := n.Member(); m != nil {
		return m.Nodes().Ended()
	}
	return nil
}

// errAlone says that the node is in no cluster.
var errAlone = &wray.Error{Code: wray.CodeBadArgument, Message: "this node is in no cluster", Hint: "start a cluster with: wray start --head"}

// NewToken makes a token with which another node may join.
func (n *Node) NewToken(ctx context.Context, o auth.TokenOptions) (auth.Token, error) {
	m := n.Member()
	if m == nil {
		return auth.Token{}, errAlone
	}
	return m.NewToken(ctx, o)
}

// NewOperator makes the credential of somebody who is to submit jobs over the
// network: see auth.Registrar.NewOperator.
func (n *Node) NewOperator(ctx context.Context, name string, life time.Duration) ([]byte, error) {
	m := n.Member()
	if m == nil {
		return nil, errAlone
	}
	return m.NewOperator(ctx, name, life)
}

// RevokeOperator makes all credentials of an operator worthless.
func (n *Node) RevokeOperator(ctx context.Context, name string) error {
	m := n.Member()
	if m == nil {
		return errAlone
	}
	return m.RevokeOperator(ctx, name)
}

func nodeStatus(e directory.Entry) clientwire.NodeStatus {
	s := clientwire.NodeStatus{Name: e.Name, Incarnation: e.Node.Incarnation, Addr: e.Node.Addr, Version: e.Node.Version,
		Head: e.Node.Head, Draining: e.Node.Draining, Status: e.Status.String(), Why: e.Why, Since: int64(time.Since(e.Since) / time.Second),
		CPU: int64(e.Node.Capacity.CPU), Memory: e.Node.Capacity.Memory}
	for _, c := range e.Node.Custom {
		s.Custom = append(s.Custom, clientwire.CustomStatus{Name: c.Name, Amount: int64(c.Amount)})
	}
	s.Labels = e.Node.Labels
	return s
}

// leave tells the cluster that the node goes, once.
func (n *Node) leave(retire bool) (err error) {
	n.leaving.Do(func() { err = n.leaveOnce(retire) })
	return err
}

func (n *Node) leaveOnce(retire bool) error {
	m := n.Member()
	if m == nil {
		return nil
	}
	n.peers.close()
	patience := controlPatience
	if retire {
		patience = drainAfter
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if retire {
		return errors.Join(m.Retire(ctx), m.Close())
	}
	return errors.Join(m.Leave(ctx), m.Close())
}
