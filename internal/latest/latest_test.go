package latest

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// put stores v under k.
func put(m *Map[string, int], k string, v int) {
	m.Change(k, func(int, bool) (int, bool) { return v, true })
}

func next(t *testing.T, w *Watch[string, int]) []int {
	t.Helper()
	v, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWatch(t *testing.T) {
	var m Map[string, int]
	put(&m, "b", 2)
	put(&m, "a", 1)
	w := m.Watch()
	if got := next(t, w); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("a watch begins with %v, want all, in order of keys", got)
	}
	for i := range 100 {
		put(&m, "a", i)
	}
	m.Change("b", func(old int, ok bool) (int, bool) {
		if old != 2 || !ok {
			t.Errorf("change is given %d, %v", old, ok)
		}
		return 7, false // changes nothing
	})
	if got := next(t, w); !slices.Equal(got, []int{99}) {
		t.Errorf("after a hundred changes of one key: %v, want its last", got)
	}
	put(&m, "c", 3)
	m.Drop("c", func(v int) bool { return v == 3 })
	m.Drop("a", func(v int) bool { return v == 3 })
	put(&m, "d", 4)
	if got := next(t, w); !slices.Equal(got, []int{4}) {
		t.Errorf("after one came and was dropped, and another came: %v, want the other", got)
	}
	if got := m.All(); !slices.Equal(got, []int{99, 2, 4}) {
		t.Errorf("all: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	other := m.Watch()
	w.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed watch: %v, want ErrClosed", err)
	}
	next(t, other)
	m.Close()
	put(&m, "a", 5)
	for range 2 {
		if _, err := other.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("a watch of a closed map: %v, want ErrClosed", err)
		}
	}
	if v, _ := m.Get("a"); v != 99 {
		t.Errorf("a closed map changed: %d", v)
	}
}
