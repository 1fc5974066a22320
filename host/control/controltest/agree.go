package controltest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

// sentinels that a caller can tell apart.
var sentinels = []error{control.ErrNotFound, control.ErrConflict, control.ErrCompacted, control.ErrLeaseLapsed,
	control.ErrUnavailable, control.ErrInvalid, control.ErrTooLarge, control.ErrClosed}

// class writes what a caller can tell of an error.
func class(err error) string {
	if err == nil {
		return "ok"
	}
	var conflict *control.ConflictError
	if errors.As(err, &conflict) {
		return fmt.Sprintf("conflict on %q, found %s", conflict.Cond.Key, conflict.Found.Value)
	}
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return s.Error()
		}
	}
	return err.Error()
}

// testAgrees does the same at random to the store and to a Memory, and compares
// all that they say: two of everything must agree.
func testAgrees(t *testing.T, h *Harness, s control.Store) {
	seed := uint64(time.Now().UnixNano())
	if h.Bubble {
		seed = rand.Uint64() // the bubble's clock says the same each time
	}
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := control.NewMemory(control.MemoryOptions{})
	defer m.Close()
	both := []control.Store{s, m}
	var leases [2][]control.LeaseID
	watchers := [2]control.Watcher{watch(t, s, "k", 1), watch(t, m, "k", 1)}
	last := list(t, m, control.ListRequest{Limit: 1}).Revision
	key := func() string { return "k" + string(rune('a'+rnd.IntN(5))) }
	rev := func() control.Revision { return max(1, last-control.Revision(rnd.IntN(4))) }
	for step := range 300 {
		var do string
		var out [2]string
		switch op := rnd.IntN(20); {
		case op < 10:
			var conds []control.Cond
			for range rnd.IntN(3) {
				conds = append(conds, []control.Cond{control.Absent(key()), control.At(key(), rev()), control.Born(key(), rev())}[rnd.IntN(3)])
			}
			type change struct {
				key    string
				delete bool
				lease  int // of leases, or -1
			}
			changes := map[string]change{}
			for range rnd.IntN(4) {
				c := change{key: key(), delete: rnd.IntN(3) == 0, lease: -1}
				if n := len(leases[0]); n > 0 && rnd.IntN(4) == 0 {
					c.lease = rnd.IntN(n)
				}
				changes[c.key] = c
			}
			do = fmt.Sprintf("commit if %+v do %+v", conds, changes)
			for i, s := range both {
				txn := control.Txn{If: conds}
				for _, c := range changes {
					switch {
					case c.delete:
						txn.Do = append(txn.Do, control.Delete(c.key))
					case c.lease >= 0:
						txn.Do = append(txn.Do, control.PutLeased(c.key, fmt.Append(nil, step), leases[i][c.lease]))
					default:
						txn.Do = append(txn.Do, control.Put(c.key, fmt.Append(nil, step)))
					}
				}
				r, err := s.Commit(bg(t), txn)
				out[i] = fmt.Sprint(r, " ", class(err))
				last = max(last, r)
			}
		case op < 13:
			req := control.ListRequest{Prefix: []string{"", "k", "kb", "x"}[rnd.IntN(4)], Limit: rnd.IntN(4)}
			if rnd.IntN(2) == 0 {
				req.After = key()
			}
			if rnd.IntN(2) == 0 {
				req.At = rev()
			}
			do = fmt.Sprintf("list %+v", req)
			for i, s := range both {
				p, err := s.List(bg(t), req)
				for _, r := range p.Records {
					out[i] += fmt.Sprintf("%s=%s@%d,%d leased %v; ", r.Key, r.Value, r.Created, r.Modified, r.Lease != 0)
				}
				out[i] += fmt.Sprint(p.Revision, p.More, " ", class(err))
			}
		case op < 14:
			do = "grant"
			for i, s := range both {
				l, err := s.Grant(bg(t), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				leases[i] = append(leases[i], l.ID)
			}
		case op < 16 && len(leases[0]) > 0:
			n := rnd.IntN(len(leases[0]))
			do = fmt.Sprint("revoke lease ", n)
			for i, s := range both {
				out[i] = class(s.Revoke(bg(t), leases[i][n])) + ", " + class(s.KeepAlive(bg(t), leases[i][n]))
			}
		default:
			k := key()
			do = "get " + k
			for i, s := range both {
				r, err := s.Get(bg(t), k)
				out[i] = fmt.Sprintf("%s@%d,%d %s", r.Value, r.Created, r.Modified, class(err))
			}
		}
		if out[0] != out[1] {
			t.Fatalf("seed %d, step %d, %s:\n  %s\nand in memory:\n  %s", seed, step, do, out[0], out[1])
		}
	}
	// Both tell the same story. Within one commit the order is theirs.
	put(t, s, "kz", "end")
	put(t, m, "kz", "end")
	var stories [2]map[string]bool
	for i, w := range watchers {
		stories[i] = map[string]bool{}
		for ended := false; !ended; {
			for _, e := range events(t, w, 1) {
				stories[i][show([]control.Event{e})] = true
				ended = ended || e.Record.Key == "kz"
			}
		}
	}
	for i := range stories {
		for e := range stories[i] {
			if !stories[1-i][e] {
				t.Errorf("seed %d: event %s is seen by one watcher alone", seed, e)
			}
		}
	}
}
