// Package control keeps what is true of a cluster: which tenants, jobs,
// modules, named actors and placement groups there are, which nodes hold a
// lease, and what programs put under keys of their own. It is small, versioned
// and watched; no task passes through it.
//
// [Store] is the interface, and its documentation the contract. [Memory] keeps
// it in this process, for a node that is alone and for tests; package etcdstore
// keeps it in etcd. Package controltest holds both to the same contract.
// [Table], [Actors] and [Hold] stand on any Store.
package control

import (
	"context"
	"time"
)

// Revision numbers the states of a store. Each commit that changes something
// makes the next one; all its changes bear the same. Zero is before everything.
type Revision int64

// LeaseID names a lease. Zero is none.
type LeaseID int64

// Record is a key and what is stored under it.
type Record struct {
	Key      string
	Value    []byte   // not to be modified
	Created  Revision // the commit that made the key, after its last deletion
	Modified Revision // the commit that last wrote it
	Lease    LeaseID  // the lease that the record ends with, or zero
}

// Event says what a commit did to one key. Where Deleted is set, Record has the
// key, and in Modified the revision of the deletion, and nothing else.
type Event struct {
	Record  Record
	Deleted bool // by a commit, or with the lease it was bound to
}

// Batch is what a [Watcher] saw: the events of one or more whole commits, in
// order, and nothing left out up to Revision.
type Batch struct {
	Revision Revision
	Events   []Event
}

// Page is a part of a list, in order of keys.
type Page struct {
	Records  []Record
	Revision Revision // the state that it was read from
	More     bool     // there are keys after the last one here
}

// ListRequest says what to list.
type ListRequest struct {
	Prefix string   // of the keys; empty is all
	After  string   // leave out keys up to this one; empty leaves out none
	Limit  int      // of records, at most and by default MaxPage
	At     Revision // the state to read, zero for the newest
}

// Lease is a promise of its holder to come back within TTL. What was written
// with its ID goes, all in one commit, when the holder does not.
type Lease struct {
	ID  LeaseID
	TTL time.Duration // what was granted, at least what was asked
}

// Cond is what must be true of a key for a commit to happen. Use [Absent],
// [At] and [Born] to make one.
type Cond struct {
	Key  string
	kind condKind
	rev  Revision
}

type condKind uint8

const (
	condAbsent condKind = iota + 1
	condAt
	condBorn
)

// Absent holds while the key is not there.
func Absent(key string) Cond { return Cond{Key: key, kind: condAbsent} }

// At holds while the key was last written by the commit rev: nobody wrote since
// it was read.
func At(key string, rev Revision) Cond { return Cond{Key: key, kind: condAt, rev: rev} }

// Born holds while the key that the commit rev made is there, written to since
// or not. For a key bound to a lease it is the fence: it holds no longer from
// the commit on in which the lease lapsed, and never again.
func Born(key string, rev Revision) Cond { return Cond{Key: key, kind: condBorn, rev: rev} }

// Parts tells implementations of Store what the condition compares: the
// revision that created the key (born) or last modified it, with rev, which is
// zero where the key must be absent.
func (c Cond) Parts() (rev Revision, born bool) {
	return c.rev, c.kind == condBorn
}

// Holds reports whether the condition is true of the record under its key; of
// the zero Record where there is none.
func (c Cond) Holds(r Record) bool {
	switch c.kind {
	case condAbsent:
		return r.Modified == 0
	case condAt:
		return r.Modified == c.rev
	case condBorn:
		return r.Created == c.rev
	}
	return false
}

// Op changes one key. Use [Put], [PutLeased] and [Delete] to make one.
type Op struct {
	Key    string
	Value  []byte
	Lease  LeaseID
	Delete bool
}

// Put writes a record without a lease. The value is copied.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// PutLeased writes a record that goes when the lease does.
func PutLeased(key string, value []byte, lease LeaseID) Op {
	return Op{Key: key, Value: value, Lease: lease}
}

// Delete removes a record. That it is not there is no error.
func Delete(key string) Op { return Op{Key: key, Delete: true} }

// Txn is a commit: if all of If hold, all of Do are done, together and at one
// revision. A key stands in Do once at most.
type Txn struct {
	If []Cond
	Do []Op
}

// Store is the control state. Its methods may be called by any number of
// goroutines.
//
// Reads and commits are linearizable: they happen in one order, each between
// its call and its return, whichever node calls. Watches are in the same order
// and may be late.
//
// Where the state cannot be reached, or a quorum of those who keep it is gone,
// methods return [ErrUnavailable], in time for the deadline of ctx, and after
// ten seconds without one. A commit that ends so may have happened, or may
// still happen: read before it is tried again, or make it so that doing it
// twice is harmless, with conditions.
//
// Errors match one of the sentinels of this package, by errors.Is.
type Store interface {
	// Get returns the record under key, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)

	// List returns records in order of keys, a page at a time. To read all of
	// one state, take At from the first page's Revision. A state that is too
	// long ago is answered with ErrCompacted.
	List(ctx context.Context, req ListRequest) (Page, error)

	// Commit does txn and returns its revision, or does nothing and returns a
	// *ConflictError, which says what was found, where a condition does not
	// hold; ErrLeaseLapsed where a lease is not there. A commit that changes
	// nothing returns the newest revision.
	Commit(ctx context.Context, txn Txn) (Revision, error)

	// Watch returns a watcher of the keys with the prefix, of the commits from
	// a revision on: from one after what a page showed, nothing is missed
	// between the two. Zero is from now on.
	Watch(ctx context.Context, prefix string, from Revision) (Watcher, error)

	// Grant makes a lease: whole seconds, rounded up, and at least what the
	// store can keep track of, which is in the answer. While no quorum is there
	// no lease lapses, and when it is back each has its full time again.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)

	// KeepAlive gives the lease its full time again, from some moment within
	// the call on, or returns ErrLeaseLapsed.
	KeepAlive(ctx context.Context, id LeaseID) error

	// Revoke ends a lease now, and removes what is bound to it. That it has
	// lapsed is no error.
	Revoke(ctx context.Context, id LeaseID) error

	// Close releases what the store holds here, and ends its watchers. Leases
	// stay until they lapse. It may be called more than once.
	Close() error
}

// Watcher is a place in the order of commits. It is for one goroutine, but for
// Close.
type Watcher interface {
	// Next waits for commits and returns them. After ErrUnavailable and after
	// the end of its ctx it may be called again, and goes on where it was:
	// nothing is missed and nothing comes twice. A *CompactedError says that
	// what comes next is forgotten, and is final: list, and watch from there.
	// ErrClosed is final too.
	Next(ctx context.Context) (Batch, error)

	// Close ends the watch, and Next with ErrClosed. It may be called more than
	// once.
	Close() error
}

// Clock is the time that leases go by. [SystemClock] is the machine's; tests
// have others.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f, on a goroutine of its own, when d has passed, unless
	// stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock is the machine's clock, or a synctest bubble's inside of one.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc implements Clock.
func (SystemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
