package directory_test

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray/host/control"
)

// severed is a store that one node cannot reach while it is off.
type severed struct {
	control.Store
	off atomic.Bool
}

// reach waits as a request does that nobody answers.
func (s *severed) reach(ctx context.Context) error {
	if !s.off.Load() {
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return control.ErrUnavailable
}

func (s *severed) Get(ctx context.Context, key string) (control.Record, error) {
	if err := s.reach(ctx); err != nil {
		return control.Record{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *severed) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	if err := s.reach(ctx); err != nil {
		return control.Page{}, err
	}
	return s.Store.List(ctx, req)
}

func (s *severed) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if err := s.reach(ctx); err != nil {
		return 0, err
	}
	return s.Store.Commit(ctx, txn)
}

func (s *severed) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	if err := s.reach(ctx); err != nil {
		return control.Lease{}, err
	}
	return s.Store.Grant(ctx, ttl)
}

func (s *severed) KeepAlive(ctx context.Context, id control.LeaseID) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	return s.Store.KeepAlive(ctx, id)
}

func (s *severed) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	if err := s.reach(ctx); err != nil {
		return nil, err
	}
	w, err := s.Store.Watch(ctx, prefix, from)
	if err != nil {
		return nil, err
	}
	return &severedWatch{w, s}, nil
}

type severedWatch struct {
	control.Watcher
	s *severed
}

// Next looks, from time to time, whether the link is there; what came on it
// while it was not, it sees afterwards.
func (w *severedWatch) Next(ctx context.Context) (control.Batch, error) {
	for {
		if err := w.s.reach(ctx); err != nil {
			return control.Batch{}, err
		}
		once, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		b, err := w.Watcher.Next(once)
		late := once.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return b, err
		}
	}
}
