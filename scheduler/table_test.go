package scheduler

import (
	"math/rand/v2"
	"testing"

	"github.com/wray-project/wray"
)

// TestTable compares a table with a map while it grows and shrinks.
func TestTable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var b table[object, *object]
	want := map[wray.ID]*object{}
	var ids []wray.ID
	check := func() {
		t.Helper()
		n := 0
		b.all(func(o *object) bool {
			n++
			if want[o.id] != o {
				t.Fatalf("%v is in the table", o.id)
			}
			return true
		})
		if n != len(want) || b.n != n {
			t.Fatalf("%d records, %d counted: expected %d", n, b.n, len(want))
		}
	}
	for _, step := range []struct{ grow, ops int }{{9, 3000}, {5, 1000}, {1, 4000}, {8, 500}, {0, 6000}} {
		for range step.ops {
			if len(ids) == 0 || rnd.IntN(10) < step.grow {
				id := wray.ID{Owner: rnd.Uint64N(3), Seq: rnd.Uint64N(1 << 14)}
				if b.get(id) != want[id] {
					t.Fatalf("%v: got %p, expected %p", id, b.get(id), want[id])
				}
				if want[id] == nil {
					o := &object{entry: entry[object]{id: id}}
					b.add(o)
					want[id] = o
					ids = append(ids, id)
				}
				continue
			}
			k := rnd.IntN(len(ids))
			id := ids[k]
			ids[k] = ids[len(ids)-1]
			ids = ids[:len(ids)-1]
			b.remove(want[id])
			delete(want, id)
			if b.get(id) != nil {
				t.Fatalf("%v is there after it was removed", id)
			}
		}
		check()
	}
	if len(b.buckets) != minBuckets || cap(b.buckets) > 4*minBuckets {
		t.Errorf("an empty table keeps %d of %d buckets", len(b.buckets), cap(b.buckets))
	}
}
