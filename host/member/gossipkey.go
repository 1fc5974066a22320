package member

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/gossip"
	"github.com/wray-project/wray/host/control"
)

// gossipKeyName is the record of the key that nodes gossip with. While that is
// exchanged it has two: the one to write with, and the one that is to be.
const gossipKeyName = "gossip/" + control.Cluster + "/key"

// splitKeys takes the record apart.
func splitKeys(b []byte) ([][]byte, error) {
	if n := len(b); n != gossip.KeySize && n != 2*gossip.KeySize {
		return nil, fmt.Errorf("the record of the gossip's key has %d bytes", n)
	}
	keys := [][]byte{b[:gossip.KeySize:gossip.KeySize]}
	if len(b) > gossip.KeySize {
		keys = append(keys, b[gossip.KeySize:])
	}
	return keys, nil
}

// gossipKeys reads the keys, or makes the first.
func (m *Member) gossipKeys(ctx context.Context) ([][]byte, error) {
	for {
		r, err := m.store.Get(ctx, gossipKeyName)
		if err == nil {
			return splitKeys(r.Value)
		}
		if !errors.Is(err, control.ErrNotFound) {
			return nil, fmt.Errorf("read the key of the gossip: %w", err)
		}
		key := make([]byte, gossip.KeySize)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		_, err = m.store.Commit(ctx, control.Txn{If: []control.Cond{control.Absent(gossipKeyName)}, Do: []control.Op{control.Put(gossipKeyName, key)}})
		if err != nil && !errors.Is(err, control.ErrConflict) {
			return nil, fmt.Errorf("make a key for the gossip: %w", err)
		}
	}
}

// followKeys takes the keys as they are exchanged: also where the node was not
// asked, as it came while others were.
func (m *Member) followKeys() {
	m.followRecord(gossipKeyName, func(r control.Record) bool {
		keys, err := splitKeys(r.Value)
		if err == nil {
			err = m.gossip.Adopt(keys)
		}
		if err != nil {
			m.cfg.Log.Error("the key of the gossip cannot be taken", "err", err)
			return false
		}
		m.meet(m.dir.Nodes()) // who did not understand this node before may now
		return false
	})
}

// Rekey exchanges the key that nodes gossip with, on a head: nodes that were
// removed know the old one. All read the new one before any writes with it. It
// may be called again after any error, and goes on where it was.
func (m *Member) Rekey(ctx context.Context) error {
	if m.head == nil {
		return &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "exchange the key at a head", Node: m.cfg.Name}
	}
	r, err := m.store.Get(ctx, gossipKeyName)
	if err != nil {
		return err
	}
	keys, err := splitKeys(r.Value)
	if err != nil {
		return err
	}
	at := r.Modified
	if len(keys) == 1 {
		next := make([]byte, gossip.KeySize)
		if _, err := rand.Read(next); err != nil {
			return err
		}
		keys = append(keys, next)
		if at, err = m.store.Commit(ctx, control.Txn{If: []control.Cond{control.At(gossipKeyName, at)},
			Do: []control.Op{control.Put(gossipKeyName, bytes.Join(keys, nil))}}); err != nil {
			return fmt.Errorf("note the new key: %w", err)
		}
	}
	if err := m.gossip.Rotate(ctx, keys[1]); err != nil {
		return err
	}
	_, err = m.store.Commit(ctx, control.Txn{If: []control.Cond{control.At(gossipKeyName, at)}, Do: []control.Op{control.Put(gossipKeyName, keys[1])}})
	return err
}
