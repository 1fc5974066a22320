package objectstore

import (
	"slices"
	"testing"

	wray "github.com/wray-project/wray"
)

// TestUrgentWaiters: who is urgent goes before all that are not, and among
// those, and among the others, who came first goes first, whoever leaves.
func TestUrgentWaiters(t *testing.T) {
	var p space
	waiters := map[string]*waiter{}
	push := func(name string) {
		waiters[name] = &waiter{urgent: name < "a"} // digits are
		p.push(waiters[name])
	}
	order := func() (names []string) {
		for w := p.head; w != nil; w = w.next {
			for name := range waiters {
				if waiters[name] == w {
					names = append(names, name)
				}
			}
		}
		return names
	}
	for _, name := range []string{"a", "1", "b", "2", "3"} {
		push(name)
	}
	p.drop(waiters["3"]) // the last of the urgent ones
	push("4")
	p.drop(waiters["1"])
	push("5")
	push("c")
	if got, want := order(), []string{"2", "4", "5", "a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("the queue is %v, want %v", got, want)
	}
	for _, name := range []string{"5", "4", "2"} {
		p.drop(waiters[name])
	}
	push("6")
	if got, want := order(), []string{"6", "a", "b", "c"}; !slices.Equal(got, want) || p.waiting.Load() != 4 {
		t.Errorf("the queue is %v of %d, want %v", got, p.waiting.Load(), want)
	}
}

// TestGivenOutStays: a payload that Bytes gave out stays in memory, also where
// the spiller has found it idle, and has a copy of it, before.
func TestGivenOutStays(t *testing.T) {
	s, err := New(Config{Heap: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o, err := s.TryPut(wray.ID{Owner: 1, Seq: 1}, Value{Encoding: 1, Payload: make([]byte, InlineMax)})
	if err != nil {
		t.Fatal(err)
	}
	o.residence.copy.batch = new(diskBatch)
	b := o.Bytes()
	if o.detach(0) || len(o.Bytes()) != len(b) {
		t.Error("its memory was taken away")
	}
	o.residence.copy = diskCopy{}
	o.Release()
}
