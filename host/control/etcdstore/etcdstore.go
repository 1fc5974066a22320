// Package etcdstore keeps the control state in etcd: in one that runs inside
// of this process ([Start]), alone or as one of up to five heads, or in one
// that runs elsewhere ([Dial]).
//
// An embedded etcd that is alone listens nowhere: requests are function calls.
// One with others speaks TLS with certificates on both sides, and so does one
// that is dialed beyond this machine; there is no flag that turns it off.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray/host/control"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Prefix is what the keys of wray begin with, in an etcd that is not its alone.
const Prefix = "wray/"

// Store is a control.Store in etcd.
type Store struct {
	client  *clientv3.Client
	kv      clientv3.KV
	lease   clientv3.Lease
	watch   clientv3.Watcher // of bare keys: see watcher
	prefix  string           // of keys
	renew   func(context.Context, clientv3.LeaseID) (ttl int64, err error)
	self    uint64   // this member, of an etcd that runs here
	local   *local   // that etcd; nil of one that was dialed
	ill     *illness // of that etcd; nil likewise
	awaited awaited
	shut    func() error // closes client and what is behind it, once

	closing context.Context // done when Close was called
	close   context.CancelFunc
	// term ends with closing, and some time after heads have another leader:
	// what was on its way to the one before is lost, and nobody would say so
	// for long.
	term atomic.Pointer[context.Context]
}

var _ control.Store = (*Store)(nil)

func newStore(c *clientv3.Client, prefix string) *Store {
	s := &Store{
		client:  c,
		kv:      namespace.NewKV(c.KV, prefix),
		lease:   c.Lease,
		watch:   c.Watcher,
		prefix:  prefix,
		awaited: awaited{now: time.Now, byID: map[uint64]newcomer{}},
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.term.Store(&s.closing)
	return s
}

// Get implements control.Store.
func (s *Store) Get(ctx context.Context, key string) (control.Record, error) {
	if err := control.CheckKey(key); err != nil {
		return control.Record{}, err
	}
	doing := "read the control state"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return control.Record{}, err
	}
	defer done()
	r, err := s.kv.Get(ctx, key)
	if err != nil {
		return control.Record{}, s.wrap(ctx, doing, err)
	}
	if len(r.Kvs) == 0 {
		return control.Record{}, fmt.Errorf("%q: %w", key, control.ErrNotFound)
	}
	return record(r.Kvs[0]), nil
}

// List implements control.Store.
func (s *Store) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	req, err := control.CheckList(req)
	if err != nil {
		return control.Page{}, err
	}
	doing := "list the control state"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return control.Page{}, err
	}
	defer done()
	from, end := req.Prefix, "\x00" // the end of everything
	if req.Prefix != "" {
		end = clientv3.GetPrefixRangeEnd(req.Prefix)
	}
	if req.After != "" {
		from = max(from, req.After+"\x00")
	}
	if from == "" {
		from = "\x00"
	}
	if end != "\x00" && from >= end {
		// Nothing can be there, but the revision is asked for as well.
		from, end = req.Prefix, req.Prefix
	}
	r, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(req.Limit)), clientv3.WithRev(int64(req.At)),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil {
		var compacted *control.CompactedError
		if err = s.wrap(ctx, doing, err); errors.As(err, &compacted) {
			compacted.Asked = req.At
		}
		return control.Page{}, err
	}
	p := control.Page{Revision: control.Revision(r.Header.Revision), More: r.More}
	if req.At != 0 {
		p.Revision = req.At
	}
	for _, kv := range r.Kvs {
		p.Records = append(p.Records, record(kv))
	}
	return p, nil
}

// Commit implements control.Store.
func (s *Store) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if err := control.CheckTxn(txn); err != nil {
		return 0, err
	}
	doing := "write to the control state"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return 0, err
	}
	defer done()
	var cmps []clientv3.Cmp
	var ops, reads []clientv3.Op
	for _, c := range txn.If {
		rev, born := c.Parts()
		if born {
			cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(c.Key), "=", int64(rev)))
		} else {
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(c.Key), "=", int64(rev)))
		}
		reads = append(reads, clientv3.OpGet(c.Key))
	}
	for _, o := range txn.Do {
		if o.Delete {
			ops = append(ops, clientv3.OpDelete(o.Key))
		} else {
			ops = append(ops, clientv3.OpPut(o.Key, string(o.Value), clientv3.WithLease(clientv3.LeaseID(o.Lease))))
		}
	}
	r, err := s.kv.Txn(ctx).If(cmps...).Then(ops...).Else(reads...).Commit()
	if err != nil {
		return 0, s.wrap(ctx, doing, err)
	}
	if r.Succeeded {
		return control.Revision(r.Header.Revision), nil
	}
	for i, c := range txn.If {
		var found control.Record
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			found = record(kvs[0])
		}
		if !c.Holds(found) {
			return 0, &control.ConflictError{Cond: c, Found: found}
		}
	}
	return 0, fmt.Errorf("BUG: etcd refused a commit of which every condition holds: %v", txn.If)
}

// Grant implements control.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	ttl, err := control.CheckTTL(ttl)
	if err != nil {
		return control.Lease{}, err
	}
	doing := "grant a lease"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return control.Lease{}, err
	}
	defer done()
	r, err := s.lease.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return control.Lease{}, s.wrap(ctx, doing, err)
	}
	return control.Lease{ID: control.LeaseID(r.ID), TTL: time.Duration(r.TTL) * time.Second}, nil
}

// KeepAlive implements control.Store.
func (s *Store) KeepAlive(ctx context.Context, id control.LeaseID) error {
	doing := fmt.Sprintf("keep lease %x alive", int64(id))
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return err
	}
	defer done()
	ttl, err := s.renew(ctx, clientv3.LeaseID(id))
	if err == nil && ttl <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	if err != nil {
		return s.wrap(ctx, doing, err)
	}
	return nil
}

// Revoke implements control.Store.
func (s *Store) Revoke(ctx context.Context, id control.LeaseID) error {
	doing := fmt.Sprintf("revoke lease %x", int64(id))
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return err
	}
	defer done()
	_, err = s.lease.Revoke(ctx, clientv3.LeaseID(id))
	if err != nil {
		err = s.wrap(ctx, doing, err)
		if errors.Is(err, control.ErrLeaseLapsed) {
			return nil
		}
	}
	return err
}

// Close implements control.Store. An etcd that was started here is stopped.
func (s *Store) Close() error {
	s.close()
	return s.shut()
}

// errNewLeader is why a request has no answer.
var errNewLeader = errors.New("the heads have another leader since it was made; read, and try again")

// newLeaderTime is how long requests have to be answered that were made before
// the leader changed.
const newLeaderTime = 300 * time.Millisecond

// followLeader ends the term of requests whenever heads have another leader.
func (s *Store) followLeader(changed func() <-chan struct{}) {
	for s.closing.Err() == nil {
		term, end := context.WithCancel(s.closing)
		s.term.Store(&term)
		select {
		case <-changed():
			time.AfterFunc(newLeaderTime, end)
		case <-s.closing.Done():
			end()
		}
	}
}

// begin returns ctx with the deadline that requests without one have. It ends
// with the store.
func (s *Store) begin(ctx context.Context, doing string) (context.Context, context.CancelFunc, error) {
	if s.closing.Err() != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, control.ErrClosed)
	}
	if err := s.ill.Err(); err != nil {
		return nil, nil, control.Unavailable(doing, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, control.Unavailable(doing, err)
	}
	ctx, end := context.WithTimeout(ctx, control.Patience)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(*s.term.Load(), func() { cancel(errNewLeader) })
	return ctx, func() { stop(); cancel(nil); end() }, nil
}

// wrap says of an error of etcd's which of control's it is.
func (s *Store) wrap(ctx context.Context, doing string, err error) error {
	if s.closing.Err() != nil {
		return fmt.Errorf("%s: %w", doing, control.ErrClosed)
	}
	if err := s.ill.Err(); err != nil {
		return control.Unavailable(doing, err)
	}
	if ctx.Err() != nil {
		return control.Unavailable(doing, context.Cause(ctx))
	}
	err = rpctypes.Error(err)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%s: %w", doing, &control.CompactedError{})
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%s: %w", doing, control.ErrLeaseLapsed)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("%s: %w: the revision is yet to come", doing, control.ErrInvalid)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%s: %w: %w; this etcd has smaller limits than its defaults: raise its max-request-bytes and max-txn-ops", doing, control.ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: %w: %w; compact and defragment it, then disarm its alarm", doing, control.ErrUnavailable, err)
	}
	var e rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &e) {
		code = e.Code()
	}
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%s: %w: %w", doing, control.ErrDenied, err)
	case codes.InvalidArgument:
		if strings.Contains(err.Error(), "authentication failed") {
			return fmt.Errorf("%s: %w: %w", doing, control.ErrDenied, err)
		}
		return fmt.Errorf("%s: %w: %w", doing, control.ErrInvalid, err)
	}
	return control.Unavailable(doing, err)
}
