package storetest

import (
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

var seedFlag = flag.Uint64("storetest.seed", 0, "seed of the random operations; 0: by the clock")

// twin is what an object is to be.
type twin struct {
	o        *objectstore.Object
	seed     uint64
	n        int
	state    objectstore.State
	external int // references the test holds
	internal int // references from living objects and watches
	refs     []*twin
	watches  []*objectstore.Watch
}

// pinned is a window that the test has.
type pinned struct {
	w     *objectstore.Window
	b     []byte
	unmap func()
	seed  uint64
	n     int
}

// model runs random operations against a store and a description of what they
// must do.
type model struct {
	t       *testing.T
	s       Suite
	st      *objectstore.Store
	rng     *rand.Rand
	live    []*twin // with a reference of the test's
	count   int     // objects alive
	windows []pinned
	told    int
	expect  int // notifications
}

const modelCapacity = 16 * mib

// testRandom: any order of operations leaves the objects, their contents and
// the counts as a plain description says.
func testRandom(t *testing.T, s Suite) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; again with -storetest.seed=%[1]d", seed)
	steps := 10_000
	if testing.Short() {
		steps = 4_000
	}
	m := &model{t: t, s: s, rng: rand.New(rand.NewPCG(seed, 1)), st: s.open(t, capacity(modelCapacity))}
	for i := range steps {
		m.step()
		if i%256 == 0 {
			m.check()
		}
		if t.Failed() {
			t.Fatalf("at step %d of seed %d", i, seed)
		}
	}
	for len(m.windows) > 0 {
		m.unpin(0)
	}
	for len(m.live) > 0 {
		for len(m.live[0].watches) > 0 {
			m.cancelWatch(m.live[0])
		}
		m.release(0)
	}
	m.check()
}

func (m *model) step() {
	pick := -1
	if len(m.live) > 0 {
		pick = m.rng.IntN(len(m.live))
	}
	switch op := m.rng.IntN(100); {
	case op < 22:
		m.put()
	case op < 30:
		m.declare()
	case pick < 0:
	case op < 38:
		m.seal(m.live[pick])
	case op < 40:
		m.fail(m.live[pick])
	case op < 46:
		m.live[pick].o.Retain()
		m.live[pick].external++
	case op < 72:
		m.release(pick)
	case op < 78:
		m.watch(m.live[pick])
	case op < 81:
		m.cancelWatch(m.live[pick])
	case op < 86:
		m.pin(m.live[pick])
	case op < 92:
		if len(m.windows) > 0 {
			m.unpin(m.rng.IntN(len(m.windows)))
		}
	case op < 96:
		m.read(m.live[pick])
	case op < 98:
		x := m.live[pick]
		if got := m.st.Lookup(x.o.ID()); got != x.o {
			m.t.Errorf("lookup of a live object gives %v", got)
		} else {
			got.Release()
		}
	case op < 99:
		if r, err := m.st.TryReserve(objectstore.Size{Payload: m.length()}); err == nil {
			if m.rng.IntN(2) == 0 {
				r.Buffer().Discard()
			}
			r.Cancel()
		}
	default:
		m.st.Trim()
	}
}

// length draws a payload's length: mostly small, often around a bound.
func (m *model) length() int64 {
	switch m.rng.IntN(10) {
	case 0:
		return int64(objectstore.InlineMax - 2 + m.rng.IntN(4))
	case 1, 2:
		return m.rng.Int64N(mib)
	case 3:
		return m.rng.Int64N(4 * mib)
	}
	return m.rng.Int64N(200)
}

func (m *model) value() (x *twin, v objectstore.Value) {
	x = &twin{seed: m.rng.Uint64(), n: int(m.length()), state: objectstore.Sealed, external: 1}
	v = raw(pattern(x.seed, x.n))
	for range m.rng.IntN(4) {
		if len(m.live) > 0 {
			r := m.live[m.rng.IntN(len(m.live))]
			x.refs = append(x.refs, r)
			v.Refs = append(v.Refs, r.o)
		}
	}
	return x, v
}

// refused reports whether err is the store's right to say that it is full.
func (m *model) refused(err error) bool {
	if errors.Is(err, objectstore.ErrFull) {
		if m.st.Stats().Used < modelCapacity/8 {
			m.t.Errorf("full at %+v", m.st.Stats())
		}
		return true
	}
	if err != nil {
		m.t.Error(err)
		return true
	}
	return false
}

func (m *model) put() {
	x, v := m.value()
	var err error
	if m.rng.IntN(3) > 0 {
		x.o, err = m.st.TryPut(newID(), v)
	} else {
		var r *objectstore.Reservation
		if r, err = m.st.TryReserve(v.Size()); err == nil {
			b := r.Buffer()
			copy(b.Bytes(), v.Payload)
			x.o, err = b.Put(newID(), abi.EncodingRaw, 0, v.Refs)
		}
	}
	if m.refused(err) {
		return
	}
	m.born(x)
}

func (m *model) declare() {
	o, err := m.st.Declare(newID())
	if err != nil {
		m.t.Error(err)
		return
	}
	m.live = append(m.live, &twin{o: o, state: objectstore.Pending, external: 1})
	m.count++
}

func (m *model) born(x *twin) {
	for _, r := range x.refs {
		r.internal++
	}
	m.live = append(m.live, x)
	m.count++
}

// reaches reports whether y is x or held by it.
func reaches(x, y *twin) bool {
	return x == y || slices.ContainsFunc(x.refs, func(r *twin) bool { return reaches(r, y) })
}

func (m *model) seal(x *twin) {
	y, v := m.value()
	if slices.ContainsFunc(y.refs, func(r *twin) bool { return reaches(r, x) }) {
		return // a cycle, which programs cannot make but for the last pending one
	}
	err := x.o.TrySeal(v)
	if x.state != objectstore.Pending {
		if !errors.Is(err, objectstore.ErrSealed) {
			m.t.Errorf("seal of a %v object: %v", x.state, err)
		}
		return
	}
	if m.refused(err) {
		return
	}
	x.seed, x.n, x.refs, x.state = y.seed, y.n, y.refs, objectstore.Sealed
	for _, r := range x.refs {
		r.internal++
	}
	m.delivered(x)
}

func (m *model) fail(x *twin) {
	err := x.o.Fail(wray.Errorf(wray.CodeTrap, "seed %d", x.seed))
	if x.state != objectstore.Pending {
		if !errors.Is(err, objectstore.ErrSealed) {
			m.t.Errorf("failure of a %v object: %v", x.state, err)
		}
		return
	}
	if err != nil {
		m.t.Error(err)
	}
	x.state = objectstore.Failed
	m.delivered(x)
}

// delivered notes that the watches of x are over.
func (m *model) delivered(x *twin) {
	m.expect += len(x.watches)
	x.internal -= len(x.watches)
	x.watches = nil
}

func (m *model) watch(x *twin) {
	h := x.o.Watch(objectstore.WatcherFunc(func(o *objectstore.Object) {
		if o != x.o || !o.Ready() {
			m.t.Errorf("told of %v, which is %v", o.ID(), o.State())
		}
		m.told++
	}))
	if x.state != objectstore.Pending {
		m.expect++
		return
	}
	x.watches = append(x.watches, h)
	x.internal++
}

func (m *model) cancelWatch(x *twin) {
	if len(x.watches) == 0 {
		return
	}
	i := m.rng.IntN(len(x.watches))
	if !x.watches[i].Cancel() {
		m.t.Error("a pending watch could not be canceled")
	}
	x.watches = slices.Delete(x.watches, i, i+1)
	x.internal--
}

// release gives back a reference of the test's.
func (m *model) release(i int) {
	x := m.live[i]
	x.external--
	if x.external == 0 {
		if len(x.watches) > 0 {
			// Kept, so that the test can still end the watches.
			x.external++
			return
		}
		m.live = slices.Delete(m.live, i, i+1)
	}
	m.settle(x)
	x.o.Release()
}

// settle counts what goes when x has no reference left.
func (m *model) settle(x *twin) {
	if x.external+x.internal > 0 {
		return
	}
	m.count--
	for _, r := range x.refs {
		r.internal--
		m.settle(r)
	}
}

func (m *model) pin(x *twin) {
	if x.state != objectstore.Sealed {
		return
	}
	w, err := x.o.Pin()
	mappable := m.s.Map != nil && x.n >= objectstore.InlineMax
	if (err == nil) != mappable {
		m.t.Errorf("pin of %d bytes: %v", x.n, err)
	}
	if err != nil {
		return
	}
	b, unmap := m.s.Map(m.t, w)
	m.windows = append(m.windows, pinned{w, b, unmap, x.seed, x.n})
}

// unpin reads a window, which its object may have left long ago, and ends it.
func (m *model) unpin(i int) {
	p := m.windows[i]
	wantBytes(m.t, "window", p.b[:p.n], pattern(p.seed, p.n))
	p.unmap()
	p.w.Unpin()
	m.windows = slices.Delete(m.windows, i, i+1)
}

func (m *model) read(x *twin) {
	if got := x.o.State(); got != x.state {
		m.t.Errorf("state is %v: expected %v", got, x.state)
	}
	if x.state != objectstore.Sealed {
		return
	}
	wantBytes(m.t, "object", x.o.Bytes(), pattern(x.seed, x.n))
	for i, r := range x.o.Refs() {
		if r != x.refs[i].o {
			m.t.Errorf("reference %d is another object", i)
		}
	}
}

func (m *model) check() {
	f := m.st.Stats()
	// Failures are let in when the store is full: each takes less than 1 KiB.
	if f.Objects != m.count || f.Windows != int64(len(m.windows)) || f.Peak > modelCapacity+mib {
		m.t.Errorf("%+v: expected %d objects, %d windows", f, m.count, len(m.windows))
	}
	if m.told != m.expect {
		m.t.Errorf("%d notifications: expected %d", m.told, m.expect)
	}
	for _, x := range m.live {
		m.read(x)
	}
}
