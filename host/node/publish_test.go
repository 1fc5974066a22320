package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/wray-project/wray/host/control"
)

// TestMakeRoom: what makes room for a job is one that has ended, the oldest of the
// tenant that has most; where all run, none.
func TestMakeRoom(t *testing.T) {
	ctx := t.Context()
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	table := control.Jobs(store)
	put := func(tenant, name, node string, ended int64) {
		t.Helper()
		if _, err := table.Create(ctx, tenant, name, control.Job{Node: node, Ended: ended}); err != nil {
			t.Fatal(err)
		}
	}
	put("many", "running", "me", 0)
	put("many", "newer", "me", 20)
	put("many", "older", "me", 10)
	put("few", "oldest of all", "me", 1)
	put("few", "newest", "me", 30)
	put("theirs", "oldest of theirs", "other", 1)
	for i := range 5 {
		put("theirs", fmt.Sprint(i), "other", 2)
	}
	left := func() (names []string) {
		for e, err := range table.All(ctx, "") {
			if err != nil {
				t.Fatal(err)
			}
			if e.Value.Node == "me" {
				names = append(names, e.Name)
			}
		}
		return names
	}
	for _, goes := range []string{"older", "oldest of all", "newer", "newest"} {
		before := left()
		if err := makeRoom(ctx, table, "me"); err != nil {
			t.Fatal(err)
		}
		now := left()
		if want := slices.DeleteFunc(before, func(n string) bool { return n == goes }); !slices.Equal(now, want) {
			t.Errorf("left are %q, want %q", now, want)
		}
	}
	if err := makeRoom(ctx, table, "me"); !errors.Is(err, control.ErrTooLarge) || len(left()) != 1 {
		t.Errorf("where all run: %v, %q", err, left())
	}
}
