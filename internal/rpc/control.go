package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray/host/control"
	pb "github.com/wray-project/wray/internal/rpc/internal/controlpb"
)

// maxBatch is about how many bytes of records go in one message.
const maxBatch = 1 << 20

// controlService serves a head's control state to nodes that are no heads.
type controlService struct {
	pb.UnsafeControlServer
	s *Server
}

func (c controlService) store(ctx context.Context) (control.Store, error) {
	if c.s.opt.Control == nil {
		return nil, status.Error(codes.Unimplemented, "this node is no head")
	}
	id, ok := Caller(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "nobody knows who calls")
	}
	return c.s.opt.Control(id), nil
}

// Get implements the service.
func (c controlService) Get(ctx context.Context, req *pb.GetRequest) (*pb.GetReply, error) {
	s, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.Get(ctx, string(req.Key))
	if err != nil {
		return &pb.GetReply{Failure: failureOf(err)}, nil
	}
	return &pb.GetReply{Record: pbRecord(r)}, nil
}

// List implements the service. A page may be shorter than what was asked for.
func (c controlService) List(ctx context.Context, req *pb.ListRequest) (*pb.ListReply, error) {
	s, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	page, err := s.List(ctx, control.ListRequest{Prefix: string(req.Prefix), After: string(req.After), Limit: int(req.Limit), At: control.Revision(req.At)})
	if err != nil {
		return &pb.ListReply{Failure: failureOf(err)}, nil
	}
	out := &pb.ListReply{Revision: int64(page.Revision), More: page.More}
	size := 0
	for i, r := range page.Records {
		if size += len(r.Key) + len(r.Value); size > maxBatch && i > 0 {
			out.More = true
			break
		}
		out.Records = append(out.Records, pbRecord(r))
	}
	return out, nil
}

// Commit implements the service.
func (c controlService) Commit(ctx context.Context, req *pb.CommitRequest) (*pb.CommitReply, error) {
	s, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	var txn control.Txn
	for _, x := range req.Conditions {
		txn.If = append(txn.If, condOf(x))
	}
	for _, o := range req.Ops {
		txn.Do = append(txn.Do, control.Op{Key: string(o.Key), Value: o.Value, Lease: control.LeaseID(o.Lease), Delete: o.Delete})
	}
	rev, err := s.Commit(ctx, txn)
	if err != nil {
		return &pb.CommitReply{Failure: failureOf(err)}, nil
	}
	return &pb.CommitReply{Revision: int64(rev)}, nil
}

// Watch implements the service.
func (c controlService) Watch(req *pb.WatchRequest, st grpc.ServerStreamingServer[pb.WatchReply]) error {
	ctx := st.Context()
	s, err := c.store(ctx)
	if err != nil {
		return err
	}
	w, err := s.Watch(ctx, string(req.Prefix), control.Revision(req.From))
	if err != nil {
		return st.Send(&pb.WatchReply{Failure: failureOf(err)})
	}
	defer w.Close()
	if err := st.Send(&pb.WatchReply{}); err != nil {
		return err
	}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return st.Send(&pb.WatchReply{Failure: failureOf(err)})
		}
		out := &pb.WatchReply{Revision: int64(b.Revision)}
		size := 0
		for _, e := range b.Events {
			n := len(e.Record.Key) + len(e.Record.Value)
			if size+n > maxBatch && len(out.Events) > 0 {
				out.More = true
				if err := st.Send(out); err != nil {
					return err
				}
				out, size = &pb.WatchReply{Revision: int64(b.Revision)}, 0
			}
			size += n
			out.Events = append(out.Events, &pb.Event{Record: pbRecord(e.Record), Deleted: e.Deleted})
		}
		if err := st.Send(out); err != nil {
			return err
		}
	}
}

// Grant implements the service.
func (c controlService) Grant(ctx context.Context, req *pb.GrantRequest) (*pb.GrantReply, error) {
	s, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.Grant(ctx, time.Duration(req.Ttl))
	if err != nil {
		return &pb.GrantReply{Failure: failureOf(err)}, nil
	}
	return &pb.GrantReply{Lease: int64(l.ID), Ttl: int64(l.TTL)}, nil
}

// KeepAlive implements the service.
func (c controlService) KeepAlive(ctx context.Context, req *pb.LeaseRequest) (*pb.LeaseReply, error) {
	return c.lease(ctx, req, func(s control.Store, id control.LeaseID) error { return s.KeepAlive(ctx, id) })
}

// Revoke implements the service.
func (c controlService) Revoke(ctx context.Context, req *pb.LeaseRequest) (*pb.LeaseReply, error) {
	return c.lease(ctx, req, func(s control.Store, id control.LeaseID) error { return s.Revoke(ctx, id) })
}

func (c controlService) lease(ctx context.Context, req *pb.LeaseRequest, do func(control.Store, control.LeaseID) error) (*pb.LeaseReply, error) {
	s, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	if err := do(s, control.LeaseID(req.Lease)); err != nil {
		return &pb.LeaseReply{Failure: failureOf(err)}, nil
	}
	return &pb.LeaseReply{}, nil
}

func pbRecord(r control.Record) *pb.Record {
	return &pb.Record{Key: []byte(r.Key), Value: r.Value, Created: int64(r.Created), Modified: int64(r.Modified), Lease: int64(r.Lease)}
}

func recordOf(r *pb.Record) control.Record {
	if r == nil {
		return control.Record{}
	}
	return control.Record{Key: string(r.Key), Value: r.Value, Created: control.Revision(r.Created), Modified: control.Revision(r.Modified), Lease: control.LeaseID(r.Lease)}
}

func pbCond(c control.Cond) *pb.Condition {
	rev, born := c.Parts()
	return &pb.Condition{Key: []byte(c.Key), Revision: int64(rev), Born: born}
}

func condOf(c *pb.Condition) control.Cond {
	key, rev := string(c.Key), control.Revision(c.Revision)
	switch {
	case c.Born:
		return control.Born(key, rev)
	case rev == 0:
		return control.Absent(key)
	}
	return control.At(key, rev)
}

// failures pairs the errors of a store with what stands for them. A store that
// was closed is one that cannot be reached, for others.
var failures = []struct {
	err  error
	kind pb.Failure_Kind
}{
	{control.ErrNotFound, pb.Failure_NOT_FOUND},
	{control.ErrConflict, pb.Failure_CONFLICT},
	{control.ErrCompacted, pb.Failure_COMPACTED},
	{control.ErrLeaseLapsed, pb.Failure_LEASE_LAPSED},
	{control.ErrUnavailable, pb.Failure_UNAVAILABLE},
	{control.ErrClosed, pb.Failure_UNAVAILABLE},
	{control.ErrInvalid, pb.Failure_INVALID},
	{control.ErrTooLarge, pb.Failure_TOO_LARGE},
	{control.ErrDenied, pb.Failure_DENIED},
}

func failureOf(err error) *pb.Failure {
	f := &pb.Failure{Text: strings.ToValidUTF8(err.Error(), "?"), Kind: pb.Failure_UNAVAILABLE}
	for _, x := range failures {
		if errors.Is(err, x.err) {
			f.Kind = x.kind
			break
		}
	}
	var conflict *control.ConflictError
	if errors.As(err, &conflict) {
		f.Condition, f.Found = pbCond(conflict.Cond), pbRecord(conflict.Found)
	}
	var compacted *control.CompactedError
	if errors.As(err, &compacted) {
		f.Asked, f.Oldest = int64(compacted.Asked), int64(compacted.Oldest)
	}
	return f
}

// storeError is an error that a head's store had.
type storeError struct {
	is   error
	text string
}

func (e *storeError) Error() string { return e.text }
func (e *storeError) Unwrap() error { return e.is }

// failed reads a failure; nil where there is none.
func failed(f *pb.Failure) error {
	if f == nil {
		return nil
	}
	switch {
	case f.Kind == pb.Failure_CONFLICT && f.Condition != nil:
		return &control.ConflictError{Cond: condOf(f.Condition), Found: recordOf(f.Found)}
	case f.Kind == pb.Failure_COMPACTED:
		return &control.CompactedError{Asked: control.Revision(f.Asked), Oldest: control.Revision(f.Oldest)}
	}
	for _, x := range failures {
		if f.Kind == x.kind {
			return &storeError{x.err, f.Text}
		}
	}
	return fmt.Errorf("of a kind that only a newer version knows: %s", f.Text)
}
