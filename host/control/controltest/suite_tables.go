package controltest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
)

func testTables(t *testing.T, h *Harness, s control.Store) {
	ctx := bg(t)
	jobs := control.Jobs(s)
	want := control.Job{State: control.JobPending, Module: "m", Args: []string{"a"}, Created: 5}
	e, err := jobs.Create(ctx, "acme", "j/1", want)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := jobs.Create(ctx, "acme", "j/1", control.Job{}); !errors.Is(err, control.ErrConflict) || found.Value.Module != "m" || found.Name != "j/1" {
		t.Errorf("made twice: %+v, %v", found, err)
	}
	stale := e
	e.Value.State = control.JobRunning
	if e, err = jobs.Update(ctx, e); err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.Update(ctx, stale); !errors.Is(err, control.ErrConflict) {
		t.Errorf("written after another wrote: %v", err)
	}
	if err := jobs.Delete(ctx, stale); !errors.Is(err, control.ErrConflict) {
		t.Errorf("removed after another wrote: %v", err)
	}
	e, err = jobs.Modify(ctx, "acme", "j/1", func(j *control.Job) error { j.Ended = 9; return nil })
	if err != nil || e.Value.State != control.JobRunning || e.Value.Ended != 9 {
		t.Errorf("changed: %+v, %v", e, err)
	}
	stop := errors.New("stop")
	if _, err := jobs.Modify(ctx, "acme", "j/1", func(j *control.Job) error { j.Ended = 10; return stop }); err != stop {
		t.Errorf("a change that gave up: %v", err)
	}
	got, err := jobs.Get(ctx, "acme", "j/1")
	if err != nil || got.Value.Ended != 9 || got.Record.Modified != e.Record.Modified {
		t.Errorf("read: %+v, %v; written: %+v", got, err, e)
	}
	// Tenants see nothing of each other's, whatever they are called.
	for _, name := range []string{"acme2", "acm", "ACME", "a.c-m_e"} {
		if _, err := jobs.Create(ctx, name, "j/1", want); err != nil {
			t.Error(err)
		}
	}
	for _, tenant := range []string{"", "a/b", "../x", "acme/", "a\x00", "é", strings.Repeat("a", 65)} {
		if _, err := jobs.Create(ctx, tenant, "x", want); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("a job of tenant %q: %v", tenant, err)
		}
	}
	if _, err := jobs.Get(ctx, "acme", ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a job without a name: %v", err)
	}
	if _, err := jobs.Get(ctx, "acme", strings.Repeat("n", control.MaxName+1)); !errors.Is(err, control.ErrTooLarge) {
		t.Errorf("a job with a long name: %v", err)
	}
	all := func(tenant string) (out []string) {
		for e, err := range jobs.All(ctx, tenant) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e.Tenant+" "+e.Name)
		}
		return out
	}
	if got := all("acme"); !slices.Equal(got, []string{"acme j/1"}) {
		t.Errorf("jobs of acme: %q", got)
	}
	if got := all(""); len(got) != 5 {
		t.Errorf("jobs of all: %q", got)
	}
	if err := jobs.Delete(ctx, e); err != nil {
		t.Error(err)
	}
	if got := all("acme"); len(got) != 0 {
		t.Errorf("jobs of acme, removed: %q", got)
	}
	// A newer version's record is read and not written.
	type newJob struct {
		State control.JobState `cbor:"1,keyasint"`
		More  string           `cbor:"99,keyasint"`
	}
	if _, err := control.NewTable[newJob](s, control.KindJob, 2).Create(ctx, "acme", "new", newJob{State: control.JobFailed, More: "kept"}); err != nil {
		t.Fatal(err)
	}
	e, err = jobs.Get(ctx, "acme", "new")
	if err != nil || e.Value.State != control.JobFailed {
		t.Errorf("a newer version's job: %+v, %v", e, err)
	}
	if _, err := jobs.Update(ctx, e); !errors.Is(err, control.ErrNewer) {
		t.Errorf("a newer version's job was written to: %v", err)
	}
	put(t, s, "job/acme/bad", "\x01\xff\xff")
	if _, err := jobs.Get(ctx, "acme", "bad"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a job that does not decode: %v", err)
	}
	// More than a page.
	groups := control.Groups(s)
	var ops []control.Op
	const n = control.MaxPage + 5
	for i := range n {
		v, err := groups.Encode(control.Group{Strategy: "pack", Bundles: []control.Bundle{{Node: fmt.Sprint(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, control.Put(fmt.Sprintf("group/acme/%04d", i), v))
		if len(ops) == control.MaxOps || i == n-1 {
			commit(t, s, control.Txn{Do: ops})
			ops = nil
		}
	}
	i := 0
	for e, err := range groups.All(ctx, "acme") {
		if err != nil || e.Value.Bundles[0].Node != fmt.Sprint(i) {
			t.Fatalf("group %d: %+v, %v", i, e, err)
		}
		i++
	}
	if i != n {
		t.Errorf("%d groups of %d", i, n)
	}
}

func testActors(t *testing.T, h *Harness, s control.Store) {
	ctx := bg(t)
	actors := control.NewActors(s)
	one, two := wray.ID{Owner: 1, Seq: 1}, wray.ID{Owner: 2, Seq: 1}
	for range 2 { // the second time as if the reply was lost
		e, err := actors.Claim(ctx, "acme", "counter", control.Actor{ID: one, Node: "n1"})
		if err != nil || e.Value.Epoch != 1 || e.Value.Node != "n1" {
			t.Fatalf("claim: %+v, %v", e, err)
		}
	}
	if e, err := actors.Claim(ctx, "acme", "counter", control.Actor{ID: two}); !errors.Is(err, control.ErrConflict) || e.Value.ID != one {
		t.Errorf("claim of another's name: %+v, %v", e, err)
	}
	if _, err := actors.Claim(ctx, "acme", "nobody", control.Actor{}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("claim without an ID: %v", err)
	}
	for range 2 {
		e, err := actors.Move(ctx, "acme", "counter", one, 1, "n2")
		if err != nil || e.Value.Epoch != 2 || e.Value.Node != "n2" {
			t.Fatalf("move: %+v, %v", e, err)
		}
	}
	for name, f := range map[string]func() error{
		"to another node, too late": func() error { _, err := actors.Move(ctx, "acme", "counter", one, 1, "n3"); return err },
		"of another actor":          func() error { _, err := actors.Move(ctx, "acme", "counter", two, 2, "n3"); return err },
		"of none":                   func() error { _, err := actors.Move(ctx, "acme", "none", one, 1, "n3"); return err },
	} {
		if err := f(); !errors.Is(err, control.ErrMoved) {
			t.Errorf("move %s: %v", name, err)
		}
	}
	if err := actors.Release(ctx, "acme", "counter", two); err != nil {
		t.Error(err)
	}
	if e, err := actors.Get(ctx, "acme", "counter"); err != nil || e.Value.Epoch != 2 {
		t.Errorf("released by another: %+v, %v", e, err)
	}
	for range 2 {
		if err := actors.Release(ctx, "acme", "counter", one); err != nil {
			t.Error(err)
		}
	}
	if e, err := actors.Claim(ctx, "acme", "counter", control.Actor{ID: two}); err != nil || e.Value.ID != two {
		t.Errorf("claim of a name that was released: %+v, %v", e, err)
	}
}
