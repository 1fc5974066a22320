package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
)

// drainOrder has an incarnation of a node end what it does and leave. Heads
// alone write it; it is in the control state, so that it is not lost with a
// message.
type drainOrder struct {
	Incarnation uint64 `cbor:"1,keyasint"`
	Within      int64  `cbor:"2,keyasint"` // ns that what runs has to end
}

func (m *Member) orders() control.Table[drainOrder] {
	return control.NewTable[drainOrder](m.store, control.KindDrain, 1)
}

// Drain orders another node to end what it does within a time, and to leave. It
// returns when that is written; the directory shows what becomes of it. Only a
// head may.
func (m *Member) Drain(ctx context.Context, name string, within time.Duration) error {
	if m.head == nil {
		return &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "drain other nodes at a head, or this one by its own name", Node: m.cfg.Name}
	}
	e, ok := m.dir.Node(name)
	if !ok || e.Status == liveness.Dead {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no node %q that lives", name), Hint: "wray status lists the nodes"}
	}
	key, err := control.Key(control.KindDrain, control.Cluster, name)
	if err != nil {
		return err
	}
	b, err := m.orders().Encode(drainOrder{Incarnation: e.Node.Incarnation, Within: int64(within)})
	if err != nil {
		return err
	}
	_, err = m.store.Commit(ctx, control.Txn{Do: []control.Op{control.Put(key, b)}})
	return err
}

// followOrders waits for an order to this incarnation, and obeys it.
func (m *Member) followOrders() {
	key, err := control.Key(control.KindDrain, control.Cluster, m.cfg.Name)
	if err != nil || m.cfg.Drain == nil {
		return
	}
	obey := func(r control.Record) bool {
		e, err := m.orders().Decode(r)
		if err != nil || e.Value.Incarnation != m.self.Incarnation {
			return false
		}
		m.cfg.Drain(time.Duration(e.Value.Within))
		return true
	}
	m.followRecord(key, obey)
}

// followRecord calls f with a record, and whenever it changes, until f returns
// true or the member closes.
func (m *Member) followRecord(key string, f func(control.Record) (done bool)) {
	mine := func(r control.Record) bool { return r.Key == key && f(r) }
	for m.running.Err() == nil {
		page, err := m.store.List(m.running, control.ListRequest{Prefix: key})
		for _, r := range page.Records {
			if mine(r) {
				return
			}
		}
		var w control.Watcher
		if err == nil {
			w, err = m.store.Watch(m.running, key, page.Revision+1)
		}
		for err == nil || w != nil && errors.Is(err, control.ErrUnavailable) && m.running.Err() == nil {
			var b control.Batch
			if b, err = w.Next(m.running); err != nil && !m.pause() {
				break
			}
			for _, e := range b.Events {
				if !e.Deleted && mine(e.Record) {
					w.Close()
					return
				}
			}
		}
		if w != nil {
			w.Close()
		}
		m.pause()
	}
}

// retryPause is between two tries to reach the control state.
const retryPause = 500 * time.Millisecond

// pause waits a moment, and reports whether the member runs yet.
func (m *Member) pause() bool {
	select {
	case <-m.running.Done():
		return false
	case <-time.After(retryPause):
		return true
	}
}
