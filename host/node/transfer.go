package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// life is a node as long as it is not down.
type life struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// bornLocked notes that a node is up. mu is held.
func (p *peering) bornLocked(node peer.Node) *life {
	l := p.lives[node]
	if l == nil {
		l = &life{}
		l.ctx, l.end = context.WithCancelCause(p.ctx)
		p.lives[node] = l
	}
	return l
}

// diedLocked ends what waits for a node. mu is held.
func (p *peering) diedLocked(node peer.Node) {
	if l := p.lives[node]; l != nil {
		l.end(goneFor(node))
		delete(p.lives, node)
	}
	p.bulk.forget(node.Name)
}

// within returns a context that ends with a node, too.
func (p *peering) within(ctx context.Context, from peer.Node) (context.Context, context.CancelCauseFunc, error) {
	p.mu.Lock()
	_, known := p.up[from]
	var l *life
	if known {
		l = p.bornLocked(from)
	}
	p.mu.Unlock()
	if l == nil {
		return nil, nil, goneFor(from)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })
	return ctx, func(cause error) { stop(); cancel(cause) }, nil
}

// answers reports whether a node is reached.
func (p *peering) answers(node peer.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up[node]
}

// transfer calls f with a context that ends with the node, and when nothing has
// come into b for long.
func (p *peering) transfer(ctx context.Context, from peer.Node, b *moduleBuffer, f func(context.Context) error) error {
	ctx, cancel, err := p.within(ctx, from)
	if err != nil {
		return err
	}
	defer cancel(nil)
	go func() { // ends with ctx
		tick := time.NewTicker(p.patience)
		defer tick.Stop()
		for seen := int64(0); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			n := b.taken.Load()
			if n == seen {
				cancel(fmt.Errorf("nothing came from node %s for %v", from.Name, p.patience))
				return
			}
			seen = n
		}
	}()
	err = f(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = cause
	}
	return err
}

// moduleBuffer is a module that comes, within the node's budget.
type moduleBuffer struct {
	bytes.Buffer
	budget *moduleBudget
	taken  atomic.Int64
}

// Write implements io.Writer.
func (b *moduleBuffer) Write(p []byte) (int, error) {
	if err := b.budget.take(int64(len(p))); err != nil {
		return 0, err
	}
	b.taken.Add(int64(len(p)))
	return b.Buffer.Write(p)
}

// giveBack gives the budget back what it was taken. The bytes are not used any
// more.
func (b *moduleBuffer) giveBack() { b.budget.give(b.taken.Swap(0)) }

func errPiece(n int) error {
	return fmt.Errorf("%w: a piece of %d bytes, %d are the most", link.ErrProtocol, n, worker.MaxPeerPiece)
}
