// Package directory is the nodes of a cluster as one of them knows them: what
// each offers, from its record in the control state, and whether it lives, by
// package liveness. It keeps this node's own record, bound to a lease, and says
// whether this node may still act.
//
// A node's record is node/cluster/NAME and goes with its lease. Beside it,
// node/dead/NAME says up to which incarnation the node is dead, for all and for
// ever: who lapsed and was condemned, who left, who was replaced by its own
// successor.
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/latest"
)

// Node is what a node offers: its record.
type Node struct {
	Incarnation uint64            `cbor:"1,keyasint"` // grows with each start; not zero
	Addr        string            `cbor:"2,keyasint"` // host:port of its links
	Version     string            `cbor:"3,keyasint,omitempty"`
	Head        bool              `cbor:"4,keyasint,omitempty"`
	Draining    bool              `cbor:"5,keyasint,omitempty"` // takes no new work
	Capacity    wray.Resources    `cbor:"6,keyasint"`
	Custom      []wray.Custom     `cbor:"7,keyasint,omitempty"`
	Labels      map[string]string `cbor:"8,keyasint,omitempty"`
}

// tombstone says up to which incarnation a node is dead.
type tombstone struct {
	Incarnation uint64 `cbor:"1,keyasint"`
	Why         string `cbor:"2,keyasint,omitempty"`
	At          int64  `cbor:"3,keyasint,omitempty"` // seconds since 1970, by the clock of who wrote it
}

// grave encodes a tombstone of now.
func (d *Directory) grave(incarnation uint64, why string) ([]byte, error) {
	return d.graves.Encode(tombstone{Incarnation: incarnation, Why: why, At: time.Now().Unix()})
}

// Entry is a node and what is thought of it. It is not to be modified.
type Entry struct {
	Name   string
	Node   Node            // the zero Node where it was dead before this node came
	Status liveness.Status // of Node.Incarnation
	Why    string
	Since  time.Time // of this status, as this node saw it
}

// Errors of Join and Err.
var (
	// ErrCondemned says that the cluster has called this incarnation dead: what it
	// did is being done again elsewhere, and it must begin anew as the next.
	ErrCondemned = errors.New("the cluster has given this node up")
	// ErrSuperseded says that a newer incarnation of this node is there.
	ErrSuperseded = errors.New("a newer process is this node now")
	// ErrLeft says that Leave was called, or Close.
	ErrLeft = errors.New("the node has left")
)

// Options are the options of Join.
type Options struct {
	Liveness liveness.Config
	// Margin is how long before the end of its lease a node stops to acknowledge
	// what must be done once: see liveness.NewSelf.
	Margin time.Duration
	// Witness is set on a node that calls no others dead: heads do.
	Witness bool
	// Forget is how long after its end a dead node is still shown; 0 is an hour.
	// Its tombstone stays, so that none that is forgotten comes back as it was.
	Forget time.Duration
	Log    *slog.Logger // nil drops what it says
}

// Directory keeps this node's record and knows the others'. Its methods may be
// called by any number of goroutines.
type Directory struct {
	store  control.Store
	nodes  control.Table[Node]
	graves control.Table[tombstone]
	name   string
	// incarnation is self's, which never changes.
	incarnation uint64
	opt         Options
	start       time.Time

	entries latest.Map[string, Entry]

	mu       sync.Mutex
	self     Node // guarded by mu, as is all that follows
	life     *liveness.Self
	view     *liveness.View
	records  map[string]Node // by name; the newest that was read
	lease    control.LeaseID
	proposed map[string]struct{} // proposals under way
	fence    control.Revision    // the commit that made this node's record
	err      error               // why the node may act no more

	kick  chan struct{} // holds one token: the ticker is to look again
	ended chan struct{} // closed when err is set
	wg    sync.WaitGroup
	// running ends with halt: whatever is under way then ends with it.
	running context.Context
	stop    context.CancelFunc
}

// Graveyard is the tenant of tombstones, of the kind control.KindNode.
const Graveyard = "dead"

// Join registers a node under a name and returns the directory. It replaces an
// older incarnation of the node, whose record may still be there, and fails
// with ErrCondemned or ErrSuperseded where the node is not to be. Close it.
func Join(ctx context.Context, s control.Store, name string, self Node, o Options) (*Directory, error) {
	if o.Liveness.Silence <= 0 {
		o.Liveness.Silence = liveness.DefaultSilence
	}
	if o.Liveness.TTL <= 0 {
		o.Liveness.TTL = liveness.DefaultTTL
	}
	if o.Forget <= 0 {
		o.Forget = time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if self.Incarnation == 0 || self.Addr == "" {
		return nil, fmt.Errorf("join as node %q: it has no incarnation, or no address", name)
	}
	d := &Directory{store: s, name: name, incarnation: self.Incarnation, self: self, opt: o, start: time.Now(),
		nodes: control.NewTable[Node](s, control.KindNode, 1), graves: control.NewTable[tombstone](s, control.KindNode, 1),
		records: map[string]Node{}, proposed: map[string]struct{}{},
		kick: make(chan struct{}, 1), ended: make(chan struct{})}
	d.view = liveness.NewView(o.Liveness, d.now())
	if err := d.register(ctx); err != nil {
		return nil, fmt.Errorf("join as node %q: %w", name, err)
	}
	d.running, d.stop = context.WithCancel(context.Background())
	d.wg.Go(func() { d.follow(d.running) })
	d.wg.Go(func() { d.renew(d.running) })
	d.wg.Go(func() { d.tick(d.running) })
	d.wg.Go(func() { d.forget(d.running) })
	return d, nil
}

// now is the time of the state machines.
func (d *Directory) now() time.Duration { return time.Since(d.start) }

// Nodes returns all nodes that are known, this one among them, in order of
// names. The dead stay until they are back, or for Options.Forget.
func (d *Directory) Nodes() []Entry { return d.entries.All() }

// Node returns the entry of a node.
func (d *Directory) Node(name string) (Entry, bool) { return d.entries.Get(name) }

// Watch returns a watch, for one goroutine, that first shows all nodes. Of a
// node that is back its new incarnation may be all that is shown: the one
// before is dead. Close it.
func (d *Directory) Watch() *latest.Watch[string, Entry] { return d.entries.Watch() }

// Heard says that a node answered, or sent something of its own.
func (d *Directory) Heard(name string, incarnation uint64) {
	d.event(func(now time.Duration) []liveness.Decision { return d.view.Reply(now, name, incarnation) })
}

// Closed says that the connection to a node closed.
func (d *Directory) Closed(name string, incarnation uint64) {
	d.event(func(now time.Duration) []liveness.Decision { return d.view.Closed(now, name, incarnation) })
}

// MayAct reports whether this node may acknowledge what must be done once. It
// ends before others may take its work over, and is true again when the lease
// was renewed after all.
func (d *Directory) MayAct() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err == nil && d.life.MayAct(d.now())
}

// Fence is the commit that made this node's record: a commit with the condition
// control.Born of Key and Fence is done only while the node is registered. It
// changes when the node had to register again.
func (d *Directory) Fence() (key string, fence control.Revision) {
	key, _ = control.Key(control.KindNode, control.Cluster, d.name)
	d.mu.Lock()
	defer d.mu.Unlock()
	return key, d.fence
}

// Ended is closed when the node may act no more as this incarnation; Err then
// says why: ErrCondemned, ErrSuperseded, ErrLeft.
func (d *Directory) Ended() <-chan struct{} { return d.ended }

// Err returns nil until Ended is closed.
func (d *Directory) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *Directory) end(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = why
		d.life.Condemned()
		close(d.ended)
	}
}

// Update changes this node's record. Incarnation and Addr stay.
func (d *Directory) Update(ctx context.Context, change func(*Node)) error {
	d.mu.Lock()
	n, lease, err := d.self, d.lease, d.err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	inc, addr := n.Incarnation, n.Addr
	change(&n)
	n.Incarnation, n.Addr = inc, addr
	value, err := d.nodes.Encode(n)
	if err != nil {
		return err
	}
	key, fence := d.Fence()
	if _, err := d.store.Commit(ctx, control.Txn{If: []control.Cond{control.Born(key, fence)},
		Do: []control.Op{control.PutLeased(key, value, lease)}}); err != nil {
		return fmt.Errorf("update the record of node %q: %w", d.name, err)
	}
	d.mu.Lock()
	d.self = n
	d.mu.Unlock()
	return nil
}

// Leave says that the node goes, in order: the others know at once, and need
// not wait for its lease. It ends the directory as Close does.
func (d *Directory) Leave(ctx context.Context) error {
	d.end(ErrLeft)
	d.halt()
	key, fence := d.Fence()
	grave, err := d.grave(d.incarnation, "it left")
	if err != nil {
		return err
	}
	stone, _ := control.Key(control.KindNode, Graveyard, d.name)
	txn := control.Txn{If: []control.Cond{control.Born(key, fence)}, Do: []control.Op{control.Put(stone, grave), control.Delete(key)}}
	for try := 1; ; try++ {
		switch _, err = d.store.Commit(ctx, txn); {
		case err == nil, errors.Is(err, control.ErrConflict): // or it was done the last time, unheard
			return nil
		case !errors.Is(err, control.ErrUnavailable) || try == leaveTries || !sleep(ctx, leavePause):
			return fmt.Errorf("node %q leaves: %w; the others take it for dead within %v", d.name, err, d.opt.Liveness.TTL)
		}
	}
}

// How often a node asks to be let go, where a connection may end just then, as
// the one to the head by which it joined does.
const (
	leaveTries = 3
	leavePause = 200 * time.Millisecond
)

// sleep returns false where ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Close ends the directory without a word to others: to them the node has died.
// It is idempotent.
func (d *Directory) Close() error {
	d.end(ErrLeft)
	d.halt()
	return nil
}

func (d *Directory) halt() {
	d.stop()
	d.wg.Wait()
	d.entries.Close()
}
