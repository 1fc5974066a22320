package etcdstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// retryPause is between two attempts to watch, where etcd is not there.
const retryPause = 100 * time.Millisecond

// watcher is a control.Watcher. It takes the prefix of all keys off by itself:
// etcd's own way (namespace.NewWatcher) does so in place, and in one process all
// watchers of a key are given the same event. Next starts a watch of etcd's where there is
// none, at the place that was come to.
type watcher struct {
	s      *Store
	prefix string
	next   control.Revision // of Next alone
	events clientv3.WatchChan
	stop   context.CancelFunc // of events
	failed bool               // the last one ended by itself, or Next said that the member has

	once    sync.Once
	closing context.Context // done when Close was called, or the store closed
	close   context.CancelFunc
}

// Watch implements control.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	if err := control.CheckWatch(prefix, from); err != nil {
		return nil, err
	}
	if from == 0 {
		// Say where now is, so that a watch that is cut goes on from there.
		p, err := s.List(ctx, control.ListRequest{Prefix: prefix, Limit: 1})
		if err != nil {
			return nil, err
		}
		from = p.Revision + 1
	} else if err := s.closing.Err(); err != nil {
		return nil, fmt.Errorf("watch %q: %w", prefix, control.ErrClosed)
	}
	if err := s.ill.Err(); err != nil {
		return nil, control.Unavailable("watch the control state", err)
	}
	w := &watcher{s: s, prefix: prefix, next: from}
	w.closing, w.close = context.WithCancel(s.closing)
	return w, nil
}

// Next implements control.Watcher.
func (w *watcher) Next(ctx context.Context) (control.Batch, error) {
	doing := "watch the control state"
	for {
		if w.closing.Err() != nil {
			return control.Batch{}, fmt.Errorf("watch of %q: %w", w.prefix, control.ErrClosed)
		}
		if err := ctx.Err(); err != nil {
			return control.Batch{}, control.Unavailable(doing, err)
		}
		if w.failed {
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
				continue
			case <-w.closing.Done():
				continue
			}
			w.failed = false
		}
		// What etcd gives to who is in its process it leaves open when it stops, and
		// silent, as if nothing happened.
		if err := w.s.ill.Err(); err != nil {
			w.end()
			return control.Batch{}, control.Unavailable(doing, err)
		}
		if w.events == nil {
			w.start()
		}
		select {
		case <-ctx.Done():
			continue
		case <-w.closing.Done():
			continue
		case <-w.s.ill.Ended():
			continue
		case r, ok := <-w.events:
			if !ok || r.Canceled && r.CompactRevision == 0 {
				w.end()
				err := r.Err()
				if w.closing.Err() != nil || w.s.ill.Err() != nil {
					continue
				}
				return control.Batch{}, control.Unavailable(doing, err)
			}
			if r.CompactRevision != 0 {
				w.end()
				return control.Batch{}, &control.CompactedError{Asked: w.next, Oldest: control.Revision(r.CompactRevision)}
			}
			if len(r.Events) == 0 {
				continue
			}
			var b control.Batch
			for _, e := range r.Events {
				b.Events = append(b.Events, event(e, w.s.prefix))
			}
			// The header may be ahead of the events that are still to come.
			b.Revision = b.Events[len(b.Events)-1].Record.Modified
			w.next = b.Revision + 1
			return b, nil
		}
	}
}

func (w *watcher) start() {
	var ctx context.Context
	ctx, w.stop = context.WithCancel(w.closing)
	begun := make(chan struct{})
	defer close(begun)
	go func(stop context.CancelFunc) {
		select {
		case <-w.s.ill.Ended(): // nobody answers to the watch
			stop()
		case <-begun:
		}
	}(w.stop)
	opts := []clientv3.OpOption{clientv3.WithRev(int64(w.next)), clientv3.WithPrefix()}
	w.events = w.s.watch.Watch(clientv3.WithRequireLeader(ctx), w.s.prefix+w.prefix, opts...)
}

func (w *watcher) end() {
	if w.stop != nil {
		w.stop()
	}
	w.events, w.failed = nil, true
}

// Close implements control.Watcher.
func (w *watcher) Close() error {
	w.once.Do(w.close)
	return nil
}

func event(e *clientv3.Event, prefix string) control.Event {
	r := record(e.Kv)
	r.Key = r.Key[len(prefix):]
	if e.Type == clientv3.EventTypeDelete {
		return control.Event{Record: control.Record{Key: r.Key, Modified: r.Modified}, Deleted: true}
	}
	return control.Event{Record: r}
}

func record(kv *mvccpb.KeyValue) control.Record {
	return control.Record{
		Key:      string(kv.Key),
		Value:    kv.Value,
		Created:  control.Revision(kv.CreateRevision),
		Modified: control.Revision(kv.ModRevision),
		Lease:    control.LeaseID(kv.Lease),
	}
}
