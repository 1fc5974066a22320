package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// DefaultDrain is how long what runs on a node has to end when that is drained,
// where nothing is said.
const DefaultDrain = 30 * time.Second

// drainAfter is how long the rest takes at most: others fetch what is theirs.
const drainAfter = 30 * time.Second

// drain is how a node goes from its cluster without a loss.
type drain struct {
	once  sync.Once
	begun chan struct{} // closed when nothing new is taken
	done  chan struct{} // closed when the node has left; the rest is set then
	left  worker.Left
	err   error
}

func newDrain() drain { return drain{begun: make(chan struct{}), done: make(chan struct{})} }

// draining reports whether the node takes nothing new.
func (n *Node) draining() bool {
	select {
	case <-n.drain.begun:
		return true
	default:
		return false
	}
}

// errDraining is why a job is not taken.
func (n *Node) errDraining() error {
	if !n.draining() {
		return nil
	}
	return &wray.Error{Code: wray.CodeCanceled, Node: n.cfg.Name, Message: fmt.Sprintf("node %s is leaving the cluster", n.cfg.Name),
		Hint: "give the job to another node"}
}

// Drain has the node take nothing new, waits until what runs has ended, or
// within is over, has others fetch what is here alone, and leaves the cluster.
// Tasks of others that run yet are run elsewhere; jobs of this node are for the
// caller to end. It returns what became of what was here for others. A second
// call waits for the first.
func (n *Node) Drain(within time.Duration) (worker.Left, error) {
	n.beginDrain(within, false)
	<-n.drain.done
	return n.drain.left, n.drain.err
}

// Drained is closed when a drain is done.
func (n *Node) Drained() <-chan struct{} { return n.drain.done }

// retire drains the node for good: a head is no head then.
func (n *Node) retire(within time.Duration) { n.beginDrain(within, true) }

// beginDrain is Drain that does not wait.
func (n *Node) beginDrain(within time.Duration, retire bool) {
	n.drain.once.Do(func() {
		close(n.drain.begun)
		go func() { // ends within bounds
			defer close(n.drain.done)
			n.drain.left, n.drain.err = n.drainNow(within, retire)
		}()
	})
}

func (n *Node) drainNow(within time.Duration, retire bool) (left worker.Left, err error) {
	if within <= 0 {
		within = DefaultDrain
	}
	ctx, cancel := context.WithTimeout(context.Background(), within+drainAfter)
	defer cancel()
	m := n.Member()
	if m == nil {
		return left, errAlone
	}
	// The nodes that are this head's go meanwhile: that can take longer than all else.
	scaled := make(chan error, 1)
	go func() { scaled <- n.stopScaling(ctx, true) }()
	told, end := context.WithTimeout(ctx, controlPatience)
	err = m.Nodes().Update(told, func(d *directory.Node) { d.Draining = true })
	end()
	if err != nil {
		err = fmt.Errorf("say that the node is draining: %w", err) // and go on: its workers say so too
	}
	var mu sync.Mutex
	var leaving sync.WaitGroup
	for _, t := range n.allTenants() {
		leaving.Go(func() {
			l, lerr := t.leave(ctx, within)
			mu.Lock()
			defer mu.Unlock()
			left = worker.Left{Ended: left.Ended + l.Ended, Moved: left.Moved + l.Moved, Fetched: left.Fetched + l.Fetched, Lost: left.Lost + l.Lost}
			err = errors.Join(err, lerr)
		})
	}
	leaving.Wait()
	serr := <-scaled // they leave by this node, where it is their only head
	return left, errors.Join(err, n.leave(retire), serr)
}

// leave has the tenant's worker take nothing more and end what it has for others.
func (t *tenant) leave(ctx context.Context, within time.Duration) (left worker.Left, err error) {
	t.n.mu.Lock()
	w, s := t.worker, t.starting
	t.n.mu.Unlock()
	if s != nil {
		<-s.done
		w = s.w
	}
	if w == nil {
		return left, nil
	}
	body, err := link.Marshal(worker.LeaveBody{Within: int64(within), After: int64(drainAfter)})
	var reply link.Message
	if err == nil {
		reply, err = w.conn.Call(ctx, link.Message{Kind: worker.KindLeave, Body: body})
	}
	if err == nil {
		reply.CloseFiles()
		err = link.Unmarshal(reply.Body, &left)
	}
	if err != nil {
		// The node leaves all the same: what the worker had is run elsewhere.
		err = fmt.Errorf("the worker of tenant %s does not say that it is empty: %w", t.name, err)
	}
	return left, err
}

// controlPatience is how long the control state may take to answer, where the
// node goes on without an answer.
const controlPatience = 5 * time.Second

// DrainNode drains a node of the cluster: this one, or, on a head, another. It
// returns when that has begun.
func (n *Node) DrainNode(ctx context.Context, name string, within time.Duration) error {
	m := n.Member()
	if m == nil {
		return errAlone
	}
	if within <= 0 {
		within = DefaultDrain
	}
	if name != m.Self().Name {
		return m.Drain(ctx, name, within)
	}
	if err := m.CheckRetire(ctx); err != nil {
		return err
	}
	n.retire(within)
	return nil
}

// Rekey exchanges the key that the cluster's nodes gossip with, on a head.
func (n *Node) Rekey(ctx context.Context) error {
	m := n.Member()
	if m == nil {
		return errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, drainAfter)
	defer cancel()
	return m.Rekey(ctx)
}

// RemoveNode revokes what a node of the cluster has, on a head: it may join
// again with a token for its name. With head, it is a head no more either.
func (n *Node) RemoveNode(ctx context.Context, name, why string, head bool) error {
	m := n.Member()
	if m == nil {
		return errAlone
	}
	if head {
		if err := m.RemoveHead(ctx, name); err != nil {
			return err
		}
	}
	return m.Revoke(ctx, name, why)
}
