package control

import (
	"fmt"
	"time"
)

// Limits of every Store. etcd takes 1.5 MiB in one request, all told, and 128
// operations.
const (
	MaxKey    = 512     // bytes of a key
	MaxValue  = 1 << 20 // bytes of one value
	MaxCommit = 5 << 18 // bytes of keys and values in one commit, 1.25 MiB
	MaxOps    = 100     // operations of one commit, and conditions
	MaxPage   = 1000    // records of one page
	MaxTTL    = 24 * time.Hour
	// Patience is how long a request without a deadline waits for a state that
	// cannot be reached.
	Patience = 10 * time.Second
)

// CheckKey reports what is wrong with a key.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: the key is empty", ErrInvalid)
	}
	if len(key) > MaxKey {
		return &LimitError{What: fmt.Sprintf("key %q…", key[:40]), Size: len(key), Limit: MaxKey, Unit: "bytes"}
	}
	return nil
}

// CheckTxn reports what is wrong with a commit, whatever the state.
func CheckTxn(txn Txn) error {
	if n := len(txn.If); n > MaxOps {
		return &LimitError{What: "commit", Size: n, Limit: MaxOps, Unit: "conditions"}
	}
	if n := len(txn.Do); n > MaxOps {
		return &LimitError{What: "commit", Size: n, Limit: MaxOps, Unit: "operations"}
	}
	total := 0
	for _, c := range txn.If {
		if err := CheckKey(c.Key); err != nil {
			return err
		}
		if c.kind == 0 || c.kind != condAbsent && c.rev <= 0 {
			return fmt.Errorf("%w: the condition on %q compares with revision %d; use Absent for a key that must not be there", ErrInvalid, c.Key, c.rev)
		}
		total += len(c.Key)
	}
	seen := make(map[string]bool, len(txn.Do))
	for _, o := range txn.Do {
		if err := CheckKey(o.Key); err != nil {
			return err
		}
		if seen[o.Key] {
			return fmt.Errorf("%w: one commit changes %q twice", ErrInvalid, o.Key)
		}
		seen[o.Key] = true
		if len(o.Value) > MaxValue {
			return &LimitError{What: fmt.Sprintf("value of record %q", o.Key), Size: len(o.Value), Limit: MaxValue, Unit: "bytes"}
		}
		if o.Delete && (len(o.Value) > 0 || o.Lease != 0) {
			return fmt.Errorf("%w: the deletion of %q has a value or a lease", ErrInvalid, o.Key)
		}
		total += len(o.Key) + len(o.Value)
	}
	if total > MaxCommit {
		return &LimitError{What: "commit", Size: total, Limit: MaxCommit, Unit: "bytes"}
	}
	return nil
}

// CheckList reports what is wrong with a request, and returns it with its
// default limit.
func CheckList(req ListRequest) (ListRequest, error) {
	if len(req.Prefix) > MaxKey || len(req.After) > MaxKey {
		return req, &LimitError{What: "prefix or key to list after", Size: max(len(req.Prefix), len(req.After)), Limit: MaxKey, Unit: "bytes"}
	}
	if req.Limit < 0 || req.At < 0 {
		return req, fmt.Errorf("%w: a list of %d records at revision %d", ErrInvalid, req.Limit, req.At)
	}
	if req.Limit == 0 || req.Limit > MaxPage {
		req.Limit = MaxPage
	}
	return req, nil
}

// CheckTTL reports what is wrong with a lease's time, and returns it in whole
// seconds.
func CheckTTL(ttl time.Duration) (time.Duration, error) {
	if ttl <= 0 || ttl > MaxTTL {
		return 0, fmt.Errorf("%w: a lease of %v; it must be more than nothing and at most %v", ErrInvalid, ttl, MaxTTL)
	}
	return (ttl + time.Second - 1).Truncate(time.Second), nil
}

// CheckWatch reports what is wrong with a watch.
func CheckWatch(prefix string, from Revision) error {
	if len(prefix) > MaxKey {
		return &LimitError{What: "prefix to watch", Size: len(prefix), Limit: MaxKey, Unit: "bytes"}
	}
	if from < 0 {
		return fmt.Errorf("%w: a watch from revision %d", ErrInvalid, from)
	}
	return nil
}
