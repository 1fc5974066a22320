package worker

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
	"github.com/wray-project/wray/wasm/abi"
)

// crowd is a worker whose store is full of what cannot be moved, beside one
// object that is on disk.
type crowd struct {
	*jobs
	disk    *storetest.MemDisk
	away    *objectstore.Object
	objects []*objectstore.Object
	pins    []objectstore.View
}

const crowdObject = 256 << 10

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{disk: storetest.NewMemDisk(0)}
	c.jobs = newJobs(t, tinyGuest(), func(cfg *Config) {
		cfg.StoreBytes, cfg.Disk, cfg.FullAfter = 4<<20, c.disk, 20*time.Millisecond
	})
	st := c.w.store
	p := make([]byte, crowdObject)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: p}
	put := func() bool {
		o, err := st.TryPut(c.w.newID(), v)
		if errors.Is(err, objectstore.ErrFull) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		c.objects = append(c.objects, o)
		return true
	}
	for put() {
	}
	r, err := st.WaitSpace(t.Context(), v.Size()) // has something moved out
	if err != nil {
		t.Fatal(err)
	}
	r.Cancel()
	if c.away = c.objects[0]; !c.away.Away() {
		t.Fatal("the coldest object is in memory")
	}
	for _, o := range c.objects[1:] {
		c.pin(o)
	}
	// The store may still be moving what was not pinned yet.
	until(t, func() bool {
		for put() {
			c.pin(c.objects[len(c.objects)-1])
		}
		return len(c.pins) == int(st.Stats().Capacity/crowdObject)
	})
	return c
}

func (c *crowd) pin(o *objectstore.Object) {
	if v, err := o.View(); err == nil {
		c.pins = append(c.pins, v)
	}
}

func (c *crowd) unpin() {
	for i := range c.pins {
		c.pins[i].Close()
	}
	c.pins = nil
}

// release gives back all objects, and waits until the store, which may be
// moving some, has done so too.
func (c *crowd) release(t *testing.T) {
	t.Helper()
	c.unpin()
	for _, o := range c.objects {
		o.Release()
	}
	c.objects = nil
	until(t, func() bool { s := c.w.store.Stats(); return s.Objects == 0 && s.Used == 0 })
}

// settle waits until nothing is on its way to g, which has no sandbox that runs
// and so gets no event.
func settle(t *testing.T, g *guest) {
	t.Helper()
	until(t, func() bool { return !g.fetching() })
}

// until waits for what no event tells.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not come to be")
		}
	}
}

// TestFetchRefused: who reads an object back into a store that is full of what
// is in use is refused with ENOSPC and the reason, once, and may ask again.
func TestFetchRefused(t *testing.T) {
	c := newCrowd(t)
	g, stop := c.start(t)
	if e := g.fetch(c.away, 0, 0); e != abi.EAGAIN {
		t.Fatalf("got %d: expected EAGAIN", e)
	}
	settle(t, g)
	if e := g.fetch(c.away, 0, 0); e != abi.ENOSPC || g.refused == nil || g.refused.Code != wray.CodeStoreFull || g.refused.Limit == nil {
		t.Errorf("got %d, %v: expected ENOSPC and a full store", e, g.refused)
	}
	if _, err := g.viewOf(c.away); err == nil || err.Code != wray.CodeStoreFull {
		t.Errorf("the host itself: %v: expected a full store", err)
	}
	c.unpin()
	if e := g.fetch(c.away, 0, 0); e != abi.EAGAIN {
		t.Errorf("with room: %d: expected EAGAIN", e)
	}
	settle(t, g)
	if e := g.fetch(c.away, 0, 0); e != abi.Success || c.away.Away() {
		t.Errorf("when it is there: %d", e)
	}
	g.letGo(c.away)
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestFetchGivenUp: a guest that goes while an object is on its way takes its
// wait with it.
func TestFetchGivenUp(t *testing.T) {
	c := newCrowd(t)
	g, stop := c.start(t)
	if e := g.fetch(c.away, 0, 0); e != abi.EAGAIN {
		t.Fatalf("got %d: expected EAGAIN", e)
	}
	g.letGoAll(false)
	c.w.room.mu.Lock()
	waits := len(c.w.room.waits)
	c.w.room.mu.Unlock()
	if n := c.w.store.Stats().Waiting; n != 0 || waits != 0 || g.fetching() {
		t.Errorf("%d wait in the store, %d in the worker", n, waits)
	}
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestFetchLost: what disk did not keep is EIO for a guest that reads a part of
// it, with the reason.
func TestFetchLost(t *testing.T) {
	c := newCrowd(t)
	g, stop := c.start(t)
	c.disk.Corrupt(func(p []byte, _ int64) { p[0] ^= 1 })
	c.away.Retain()
	h, err := g.handles.Add(c.away)
	if err != nil {
		t.Fatal(err)
	}
	c.unpin()
	read := func() abi.Errno { return g.call("object_read", uint64(h), 0, 64, 100, 8) }
	if e := read(); e != abi.EAGAIN {
		t.Errorf("got %d: expected EAGAIN", e)
	}
	settle(t, g)
	if e := read(); e != abi.EIO || g.refused == nil || g.refused.Code != wray.CodeObjectLost {
		t.Errorf("got %d, %v: expected EIO and a lost object", e, g.refused)
	}
	c.disk.Corrupt(nil)
	g.handles.Drop(h)
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestWhoIsRefused: the latest to come, and drivers when there is nobody else.
func TestWhoIsRefused(t *testing.T) {
	w := &Worker{}
	r := &rooms{w: w, waits: map[*roomWait]uint64{}}
	var all []*roomWait
	for i, driver := range []bool{false, true, false, true} {
		all = append(all, &roomWait{driver: driver})
		r.waits[all[i]] = uint64(i)
	}
	for _, want := range []int{2, 0, 3, 1} {
		if got := r.pick(); got != all[want] {
			t.Errorf("wait %d was to be refused", want)
		}
	}
	if r.pick() != nil {
		t.Error("somebody who does not wait is refused")
	}
}

// TestSpillStats: a worker tells its node what it has on disk.
func TestSpillStats(t *testing.T) {
	c := newCrowd(t)
	_, stop := c.start(t)
	var b StatsBody
	until(t, func() bool { // a batch may be on its way still
		m, err := (&server{w: c.w}).stats()
		if err == nil {
			err = link.Unmarshal(m.Body, &b)
		}
		if err != nil {
			t.Fatal(err)
		}
		st := c.w.store.Stats()
		return b.OnDisk == st.OnDisk && b.Spilled == st.Spilled
	})
	if b.OnDisk < crowdObject || b.Spilled < crowdObject || b.Restored != 0 || b.Lost != 0 {
		t.Errorf("the worker tells %+v", b)
	}
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestRoomExplained: what waits for room in the store is said to, as long as it
// does.
func TestRoomExplained(t *testing.T) {
	c := newCrowd(t)
	g, stop := c.start(t)
	if why := c.w.room.why(g); why != "" {
		t.Errorf("before: %s", why)
	}
	wait := c.w.room.add(g, func() {})
	if why := c.w.room.why(g); !strings.Contains(why, "room in the object store: 4194304 of 4194304 bytes") {
		t.Errorf("while: %q", why)
	}
	if why := c.w.room.why(nil); why != "" {
		t.Errorf("another: %q", why)
	}
	c.w.room.remove(wait)
	if why := c.w.room.why(g); why != "" {
		t.Errorf("after: %q", why)
	}
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestFullTold: a job whose sandboxes wait for room in a store in which nothing
// moves is told so on its standard error, once, with the flags that help.
func TestFullTold(t *testing.T) {
	c := newCrowd(t)
	g, stop := c.start(t)
	said := make(chan string, 10)
	g.job.out = newOutput(func(_ string, s Stream, p []byte) {
		if s == Notice {
			said <- string(p)
		}
	})
	refused := make(chan bool, 2)
	c.w.room.add(g, func() { refused <- true })
	if s := <-said; !strings.Contains(s, "a sandbox waits for room in the object store") || !strings.Contains(s, "of 4194304 bytes") ||
		!strings.Contains(s, objectstore.CapacityFlag) {
		t.Errorf("it is told %q", s)
	}
	<-refused
	c.w.room.add(g, func() { refused <- true })
	<-refused // longer than it took to be told
	g.job.out.close()
	g.job.out = nil
	if len(said) != 0 {
		t.Errorf("it is told again: %q", <-said)
	}
	c.release(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}
