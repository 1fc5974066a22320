package worker

import (
	"testing"
	"testing/synctest"

	"github.com/wray-project/wray"
)

// fullHouse returns residents with as many busy actors as may be without any
// of them leaving.
func fullHouse(t *testing.T, limit int) (*residents, []*actor) {
	t.Helper()
	r := newResidents(limit, 1<<40)
	var all []*actor
	for range limit + limit/8 + 1 {
		a := &actor{wake: make(chan struct{}, 1)}
		if err := r.add(a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return r, all
}

// adding adds an actor in a goroutine of its own.
func adding(r *residents) (done chan *wray.Error) {
	done = make(chan *wray.Error, 1)
	go func() { done <- r.add(&actor{wake: make(chan struct{}, 1)}) }()
	return done
}

func waits(t *testing.T, done chan *wray.Error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	default:
	}
}

func TestResidentsWaitForBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := fullHouse(t, 8)
		done := adding(r)
		waits(t, done)

		all[3].resting.Store(true)
		r.changed()
		synctest.Wait()
		if !all[3].sleepy.Load() || len(all[3].wake) != 1 {
			t.Fatal("the actor that came to rest was not asked to sleep")
		}
		waits(t, done)
		r.remove(all[3])
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestResidentsAllWait goes beyond the limit when nobody can leave, since it
// may be the new one that they wait for, and refuses when that is of no use.
func TestResidentsAllWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := fullHouse(t, 8)
		for _, a := range all[1:] {
			a.parked.Store(true)
		}
		first, second := adding(r), adding(r)
		waits(t, first)
		waits(t, second)
		all[0].parked.Store(true)
		r.changed()
		synctest.Wait()
		if len(first)+len(second) != 1 {
			t.Fatalf("%d went on, want one: the other waits for it", len(first)+len(second))
		}
		r.ring[len(r.ring)-1].parked.Store(true)
		r.changed()
		synctest.Wait()
		if len(first)+len(second) != 2 {
			t.Fatal("the other was not let in when all waited again")
		}
		// From here on everyone waits as soon as it is in.
		r.ring[len(r.ring)-1].parked.Store(true)
		for {
			a := &actor{wake: make(chan struct{}, 1)}
			a.parked.Store(true)
			err := r.add(a)
			if err == nil {
				continue
			}
			if n := r.count(); n != r.limit+r.beyond() || err.Limit == nil || err.Limit.Flag != ResidentsFlag {
				t.Fatalf("with %d actors: %v", n, err)
			}
			break
		}
	})
}

// TestResidentsWeigh has one of many actors that rest grow: as many others are
// asked to sleep as it takes the place of, and there is no room for one more
// until they do. Few stay whatever they take.
func TestResidentsWeigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, more = 40, 10
		r := newResidents(1000, n*residentBytes)
		var all []*actor
		for range n {
			a := &actor{wake: make(chan struct{}, 1)}
			if err := r.add(a); err != nil {
				t.Fatal(err)
			}
			a.resting.Store(true)
			all = append(all, a)
		}
		sleepy := func() (n int) {
			for _, a := range all {
				if a.sleepy.Load() {
					n++
				}
			}
			return n
		}
		all[0].resting.Store(false)
		r.weigh(all[0], more*residentBytes)
		if got := sleepy(); got != more {
			t.Errorf("%d are asked to sleep, want %d", got, more)
		}
		for _, a := range all {
			if a.sleepy.Load() {
				r.remove(a)
			}
		}
		if r.tryAdd(&actor{wake: make(chan struct{}, 1)}) {
			t.Error("there is room for one more")
		}
		r.weigh(all[0], 0)
		if !r.tryAdd(&actor{wake: make(chan struct{}, 1)}) {
			t.Error("there is no room for what has shrunk")
		}
		r.weigh(all[0], n*more*residentBytes)
		if left := len(r.ring) - r.dozing; left != fewResidents {
			t.Errorf("%d stay, want %d", left, fewResidents)
		}
		for len(r.ring) > 1 {
			for _, a := range r.ring {
				if a != all[0] {
					a.resting.Store(true)
					r.remove(a)
					break
				}
			}
		}
		if r.bytes != all[0].weight || r.lighter != 0 || r.dozing != 0 {
			t.Errorf("left of those that are gone: %d bytes, %d of them leaving, %d leave", r.bytes-all[0].weight, r.lighter, r.dozing)
		}
	})
}
