package controltest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

func testRecords(t *testing.T, h *Harness, s control.Store) {
	absent(t, s, "a")
	r1 := put(t, s, "a", "1")
	got := get(t, s, "a")
	if got.Key != "a" || string(got.Value) != "1" || got.Created != r1 || got.Modified != r1 || got.Lease != 0 {
		t.Errorf("after the first write, at %d: %+v", r1, got)
	}
	r2 := put(t, s, "a", "2")
	got = get(t, s, "a")
	if string(got.Value) != "2" || got.Created != r1 || got.Modified != r2 || r2 != r1+1 {
		t.Errorf("after the second write, at %d after %d: %+v", r2, r1, got)
	}
	commit(t, s, control.Txn{Do: []control.Op{control.Delete("a")}})
	absent(t, s, "a")
	r4 := put(t, s, "a", "")
	got = get(t, s, "a")
	if len(got.Value) != 0 || got.Created != r4 || got.Modified != r4 {
		t.Errorf("made again, at %d: %+v", r4, got)
	}
	// Keys and values are bytes, and the value is the store's once it is put.
	value := []byte("\x00\xff/")
	commit(t, s, control.Txn{Do: []control.Op{control.Put("\x00\xff/", value)}})
	value[0] = 'x'
	if got := get(t, s, "\x00\xff/"); string(got.Value) != "\x00\xff/" || got.Key != "\x00\xff/" {
		t.Errorf("binary record: %+v", got)
	}
}

func testConditions(t *testing.T, h *Harness, s control.Store) {
	born := put(t, s, "k", "1")
	at := put(t, s, "k", "2")
	other := put(t, s, "other", "1")
	for _, c := range []struct {
		name string
		cond control.Cond
		ok   bool
	}{
		{"absent, and is", control.Absent("none"), true},
		{"absent, and is there", control.Absent("k"), false},
		{"at its revision", control.At("k", at), true},
		{"at an older one", control.At("k", born), false},
		{"at a newer one", control.At("k", other), false},
		{"at, and is absent", control.At("none", at), false},
		{"born then", control.Born("k", born), true},
		{"born when it was changed", control.Born("k", at), false},
		{"born, and is absent", control.Born("none", born), false},
	} {
		rev, err := s.Commit(bg(t), control.Txn{If: []control.Cond{control.Born("other", other), c.cond}, Do: []control.Op{control.Put("done", nil)}})
		var conflict *control.ConflictError
		switch {
		case c.ok && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !c.ok && (!errors.Is(err, control.ErrConflict) || !errors.As(err, &conflict)):
			t.Errorf("%s: %d, %v; want a *ConflictError", c.name, rev, err)
		case !c.ok && (conflict.Cond != c.cond || conflict.Cond.Key == "k" && string(conflict.Found.Value) != "2" || conflict.Cond.Key == "none" && conflict.Found.Modified != 0):
			t.Errorf("%s: %+v", c.name, conflict)
		}
		if c.ok {
			commit(t, s, control.Txn{Do: []control.Op{control.Delete("done")}})
		}
		absent(t, s, "done")
	}
}

func testCommits(t *testing.T, h *Harness, s control.Store) {
	start := put(t, s, "a", "1")
	// All of a commit bears one revision.
	rev := commit(t, s, control.Txn{Do: []control.Op{control.Put("b", nil), control.Put("c", nil), control.Delete("a"), control.Delete("none")}})
	if b, c := get(t, s, "b"), get(t, s, "c"); rev != start+1 || b.Modified != rev || c.Modified != rev {
		t.Errorf("commit %d after %d wrote b at %d and c at %d", rev, start, b.Modified, c.Modified)
	}
	// One that changes nothing makes none.
	for _, txn := range []control.Txn{{}, {If: []control.Cond{control.Absent("a")}}, {Do: []control.Op{control.Delete("none")}}} {
		if got := commit(t, s, txn); got != rev {
			t.Errorf("commit %+v, which changes nothing, made revision %d after %d", txn, got, rev)
		}
	}
	if got := put(t, s, "b", ""); got != rev+1 {
		t.Errorf("a write of the same value made revision %d after %d; it is a write", got, rev)
	}
	// Nothing is done of what is refused.
	_, err := s.Commit(bg(t), control.Txn{Do: []control.Op{control.Put("x", nil), control.PutLeased("y", nil, 77)}})
	if !errors.Is(err, control.ErrLeaseLapsed) {
		t.Errorf("write with a lease that never was: %v", err)
	}
	absent(t, s, "x")
}

func testLimits(t *testing.T, h *Harness, s control.Store) {
	long := strings.Repeat("k", control.MaxKey)
	big := make([]byte, control.MaxValue)
	many := func(n int) (ops []control.Op) {
		for i := range n {
			ops = append(ops, control.Put(fmt.Sprint("many/", i), nil))
		}
		return ops
	}
	conds := func(n int) (cs []control.Cond) {
		for i := range n {
			cs = append(cs, control.Absent(fmt.Sprint("none/", i)))
		}
		return cs
	}
	full := []control.Op{control.Put("f1", big), control.Put("f2", make([]byte, control.MaxCommit-control.MaxValue-4))}
	for _, c := range []struct {
		name string
		txn  control.Txn
		want error
	}{
		{"longest key", control.Txn{Do: []control.Op{control.Put(long, nil)}}, nil},
		{"key too long", control.Txn{Do: []control.Op{control.Put(long+"k", nil)}}, control.ErrTooLarge},
		{"empty key", control.Txn{Do: []control.Op{control.Put("", nil)}}, control.ErrInvalid},
		{"largest value", control.Txn{Do: []control.Op{control.Put("big", big)}}, nil},
		{"value too large", control.Txn{Do: []control.Op{control.Put("big", append(big, 0))}}, control.ErrTooLarge},
		{"largest commit", control.Txn{Do: full}, nil},
		{"commit too large", control.Txn{Do: append(full[:2:2], control.Put("f", nil))}, control.ErrTooLarge},
		{"most operations and conditions", control.Txn{If: conds(control.MaxOps), Do: many(control.MaxOps)}, nil},
		{"too many operations", control.Txn{Do: many(control.MaxOps + 1)}, control.ErrTooLarge},
		{"too many conditions", control.Txn{If: conds(control.MaxOps + 1)}, control.ErrTooLarge},
		{"a key twice", control.Txn{Do: []control.Op{control.Put("a", nil), control.Delete("a")}}, control.ErrInvalid},
		{"no such condition", control.Txn{If: []control.Cond{{Key: "a"}}}, control.ErrInvalid},
		{"condition on revision 0", control.Txn{If: []control.Cond{control.At("a", 0)}}, control.ErrInvalid},
		{"deletion with a value", control.Txn{Do: []control.Op{{Key: "a", Value: []byte("v"), Delete: true}}}, control.ErrInvalid},
	} {
		before := list(t, s, control.ListRequest{Limit: 1}).Revision
		_, err := s.Commit(bg(t), c.txn)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		var limit *control.LimitError
		if c.want == control.ErrTooLarge && (!errors.As(err, &limit) || limit.Size <= limit.Limit || limit.Unit == "") {
			t.Errorf("%s: %#v says nothing of the limit", c.name, err)
		}
		if after := list(t, s, control.ListRequest{Limit: 1}).Revision; c.want != nil && after != before {
			t.Errorf("%s: refused, and made a revision", c.name)
		}
	}
	if got := get(t, s, "big"); !bytes.Equal(got.Value, big) {
		t.Errorf("the largest value came back with %d bytes", len(got.Value))
	}
	for _, ttl := range []time.Duration{0, -1, control.MaxTTL + 1} {
		if _, err := s.Grant(bg(t), ttl); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("a lease of %v: %v", ttl, err)
		}
	}
	if _, err := s.Get(bg(t), ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("get of the empty key: %v", err)
	}
	if _, err := s.List(bg(t), control.ListRequest{Prefix: long + "k"}); !errors.Is(err, control.ErrTooLarge) {
		t.Errorf("list of a long prefix: %v", err)
	}
	if _, err := s.List(bg(t), control.ListRequest{At: 1 << 40}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("list of a revision that is yet to come: %v", err)
	}
	if _, err := s.Watch(bg(t), long+"k", 0); !errors.Is(err, control.ErrTooLarge) {
		t.Errorf("watch of a long prefix: %v", err)
	}
	if _, err := s.Watch(bg(t), "", -1); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("watch from -1: %v", err)
	}
}

func testList(t *testing.T, h *Harness, s control.Store) {
	for _, k := range []string{"b/2", "a", "b/1", "b", "b/\xff", "b0", "\x00", "\xff\xff"} {
		put(t, s, k, k)
	}
	for _, c := range []struct {
		req  control.ListRequest
		want string
		more bool
	}{
		{control.ListRequest{}, "\x00 a b b/1 b/2 b/\xff b0 \xff\xff", false},
		{control.ListRequest{Prefix: "b"}, "b b/1 b/2 b/\xff b0", false},
		{control.ListRequest{Prefix: "b/"}, "b/1 b/2 b/\xff", false},
		{control.ListRequest{Prefix: "b/", Limit: 2}, "b/1 b/2", true},
		{control.ListRequest{Prefix: "b/", Limit: 3}, "b/1 b/2 b/\xff", false},
		{control.ListRequest{Prefix: "b/", After: "b/1"}, "b/2 b/\xff", false},
		{control.ListRequest{Prefix: "b/", After: "b/1\x00"}, "b/2 b/\xff", false},
		{control.ListRequest{Prefix: "b/", After: "a"}, "b/1 b/2 b/\xff", false},
		{control.ListRequest{Prefix: "b/", After: "b/\xff"}, "", false},
		{control.ListRequest{Prefix: "b/", After: "c"}, "", false},
		{control.ListRequest{Prefix: "c"}, "", false},
		{control.ListRequest{Prefix: "\xff"}, "\xff\xff", false},
		{control.ListRequest{After: "b0"}, "\xff\xff", false},
	} {
		p := list(t, s, c.req)
		if got := keys(p.Records); got != c.want || p.More != c.more {
			t.Errorf("%+v: %q, more %v; want %q, %v", c.req, got, p.More, c.want, c.more)
		}
		for _, r := range p.Records {
			if string(r.Value) != r.Key || r.Created == 0 || r.Modified > p.Revision {
				t.Errorf("%+v: %+v, of revision %d", c.req, r, p.Revision)
			}
		}
	}
}

// testPages holds that pages of one revision are of one state, whatever is
// written meanwhile.
func testPages(t *testing.T, h *Harness, s control.Store) {
	var want []string
	for i := range 10 {
		k := fmt.Sprint("p/", i)
		put(t, s, k, "old")
		want = append(want, k)
	}
	p := list(t, s, control.ListRequest{Prefix: "p/", Limit: 3})
	at, got := p.Revision, p.Records
	for p.More {
		last := got[len(got)-1].Key
		put(t, s, last+"5", "new")
		put(t, s, "p/9", "new")
		commit(t, s, control.Txn{Do: []control.Op{control.Delete("p/8")}})
		p = list(t, s, control.ListRequest{Prefix: "p/", Limit: 3, After: last, At: at})
		if p.Revision != at {
			t.Errorf("a page of revision %d says that it is of %d", at, p.Revision)
		}
		got = append(got, p.Records...)
	}
	if keys(got) != strings.Join(want, " ") {
		t.Errorf("pages have %q", keys(got))
	}
	for _, r := range got {
		if string(r.Value) != "old" {
			t.Errorf("%s in an old page is %q", r.Key, r.Value)
		}
	}
}

func testCompaction(t *testing.T, h *Harness, s control.Store) {
	put(t, s, "a", "1")
	r2 := put(t, s, "a", "2")
	put(t, s, "b", "1")
	r4 := commit(t, s, control.Txn{Do: []control.Op{control.Delete("b")}})
	put(t, s, "c", "1")
	h.Compact(t, s, r4)
	if got := get(t, s, "a"); string(got.Value) != "2" || got.Modified != r2 {
		t.Errorf("compaction changed a: %+v", got)
	}
	if p := list(t, s, control.ListRequest{At: r4}); keys(p.Records) != "a" {
		t.Errorf("the oldest state that is known has %q", keys(p.Records))
	}
	if p := list(t, s, control.ListRequest{}); keys(p.Records) != "a c" {
		t.Errorf("the newest state has %q", keys(p.Records))
	}
	var compacted *control.CompactedError
	if _, err := s.List(bg(t), control.ListRequest{At: r2}); !errors.As(err, &compacted) || compacted.Asked != r2 {
		t.Errorf("list of a forgotten state: %v", err)
	}
	w := watch(t, s, "", r2)
	for range 2 { // it is final
		if _, err := w.Next(bg(t)); !errors.As(err, &compacted) || compacted.Asked != r2 || compacted.Oldest != r4 {
			t.Errorf("watch from a forgotten state: %v", err)
		}
	}
	if got := show(events(t, watch(t, s, "", r4), 2)); got != fmt.Sprintf("-b@%d +c=1@%d", r4, r4+1) {
		t.Errorf("watch from the oldest state that is known: %s", got)
	}
}

// testContention has many goroutines count with compare-and-set.
func testContention(t *testing.T, h *Harness, s control.Store) {
	const workers, each = 8, 15
	put(t, s, "n", "0")
	var wg sync.WaitGroup
	ctx := bg(t)
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				r, err := s.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(r.Value), &n)
				_, err = s.Commit(ctx, control.Txn{If: []control.Cond{control.At("n", r.Modified)}, Do: []control.Op{control.Put("n", fmt.Append(nil, n+1))}})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, control.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := get(t, s, "n"); string(got.Value) != fmt.Sprint(workers*each) {
		t.Errorf("%d goroutines counted to %s, each %d", workers, got.Value, each)
	}
}
