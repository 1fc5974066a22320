package statelog_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wray-project/wray/host/statelog"
)

var (
	seed   = flag.Uint64("statelog.seed", 0, "seed of the histories; 0: of the clock")
	rounds = flag.Int("statelog.rounds", 300, "histories")
)

var id = statelog.Identity{Module: "m0123456789abcdef", Class: "counter", Name: "tally"}

// disk is where files lie that lose, when the power fails, any part of what was
// not synced.
type disk struct {
	rng   *rand.Rand
	until int // operations until the power fails; < 0: never
	off   bool
	full  bool // the next write does not fit
}

var (
	errPower = errors.New("the power failed")
	errFull  = errors.New("no space left on device")
)

func (d *disk) step() error {
	if d.off {
		return errPower
	}
	if d.until == 0 {
		d.off = true
		return errPower
	}
	d.until--
	return nil
}

// file is one of a disk.
type file struct {
	d      *disk
	now    []byte // what a reader sees
	synced []byte // what is on the disk for sure
	dirty  []change
}

// change is a write, or, where p is nil, a truncation.
type change struct {
	off int64
	p   []byte
}

func (c change) apply(b []byte) []byte {
	if c.p == nil {
		if c.off <= int64(len(b)) {
			return b[:c.off:c.off]
		}
		return append(b, make([]byte, c.off-int64(len(b)))...)
	}
	if end := c.off + int64(len(c.p)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[c.off:], c.p)
	return b
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.now).ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.step(); err != nil {
		f.dirty = append(f.dirty, change{off, bytes.Clone(p)}) // some of it may get there
		return 0, err
	}
	n := len(p)
	var err error
	if f.d.full {
		f.d.full = false
		n, err = f.d.rng.IntN(len(p)), errFull
	}
	c := change{off, append([]byte{}, p[:n]...)}
	f.now, f.dirty = c.apply(f.now), append(f.dirty, c)
	return n, err
}

func (f *file) Truncate(size int64) error {
	c := change{off: size}
	f.dirty = append(f.dirty, c)
	if err := f.d.step(); err != nil {
		return err
	}
	f.now = c.apply(bytes.Clone(f.now))
	return nil
}

func (f *file) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.synced, f.dirty = bytes.Clone(f.now), nil
	return nil
}

func (f *file) Close() error { return nil }

// restart returns the file as a machine finds it that comes up again: of what
// was not synced any sectors are there.
func (f *file) restart(d *disk) *file {
	const sector = 64
	b := bytes.Clone(f.synced)
	for _, c := range f.dirty {
		if c.p == nil {
			if d.rng.IntN(2) == 0 {
				b = c.apply(b)
			}
			continue
		}
		for i := 0; i < len(c.p); i += sector {
			if d.rng.IntN(3) > 0 {
				b = change{c.off + int64(i), c.p[i:min(i+sector, len(c.p))]}.apply(b)
			}
		}
	}
	return &file{d: d, now: b, synced: bytes.Clone(b)}
}

func blob(n uint64) statelog.Blob {
	k := statelog.Key{}
	copy(k[:], fmt.Sprintf("blob %d", n))
	return statelog.Blob{Key: k, Data: func() ([]byte, error) { return bytes.Repeat([]byte{byte(n)}, int(n%7)*100), nil }}
}

// TestHistories commits, with a power failure at some operation, opens what is
// left, and goes on. What was committed is there, and nothing older.
func TestHistories(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./host/statelog -run TestHistories -statelog.seed %d", s)
	statelog.RewriteAt(t, 3000)
	for round := range *rounds {
		rng := rand.New(rand.NewPCG(s, uint64(round)))
		d := &disk{rng: rng, until: -1}
		files := [2]*file{{d: d}, {d: d}}
		acked, tried := uint64(0), uint64(0) // numbers of commits
		var epoch uint64
		ended := false // an end was tried, or done
		for range 6 {
			d.until = rng.IntN(60)
			l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
			if err != nil && !errors.Is(err, errPower) {
				t.Fatalf("round %d: %v", round, err)
			}
			if err == nil {
				if l.Epoch() <= epoch && acked > 0 {
					t.Fatalf("round %d: epoch %d after %d", round, l.Epoch(), epoch)
				}
				epoch = l.Epoch()
				got := uint64(0)
				if last := l.Last(); last != nil {
					fmt.Sscanf(string(last), "commit %d", &got)
				}
				if got < acked && !ended || got > tried {
					t.Fatalf("round %d: commit %d is there, of %d that were acknowledged and %d tried", round, got, acked, tried)
				}
				if got > 0 {
					for i := range got % 4 {
						want, _ := blob(got/3 + i).Data()
						if b, err := l.Blob(blob(got/3 + i).Key); err != nil || !bytes.Equal(b, want) {
							t.Fatalf("round %d: blob %d: %d bytes, %v", round, got/3+i, len(b), err)
						}
					}
				}
				acked, ended = got, false
				for !d.off {
					if rng.IntN(40) == 0 {
						ended = true
						if l.End() == nil {
							acked = 0
						}
						break
					}
					d.full = rng.IntN(10) == 0
					tried++
					blobs := []statelog.Blob{}
					for i := range tried % 4 {
						blobs = append(blobs, blob(tried/3+i))
					}
					err := l.Commit(fmt.Appendf(nil, "commit %d %s", tried, make([]byte, rng.IntN(300))), blobs)
					d.full = false
					switch {
					case err == nil:
						acked = tried
					case errors.Is(err, errPower), errors.Is(err, errFull):
					default:
						t.Fatalf("round %d: %v", round, err)
					}
				}
			}
			d = &disk{rng: rng, until: -1}
			files = [2]*file{files[0].restart(d), files[1].restart(d)}
		}
	}
}

// fresh returns a log of n commits, and its files.
func fresh(t testing.TB, n int) (*statelog.Log, [2]*file) {
	d := &disk{until: -1, rng: rand.New(rand.NewPCG(1, 1))}
	files := [2]*file{{d: d}, {d: d}}
	l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := l.Commit(fmt.Appendf(nil, "commit %d", i), []statelog.Blob{blob(uint64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	return l, files
}

// TestDamage flips each byte of a log in turn: what was acknowledged is there,
// or the damage is told. The last record alone cannot be told from a torn one.
func TestDamage(t *testing.T) {
	_, files := fresh(t, 4)
	whole := files[0].now
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		d := &disk{until: -1}
		l, err := statelog.Open([2]statelog.File{&file{d: d, now: b}, &file{d: d}}, id)
		if err != nil {
			if !errors.Is(err, statelog.ErrDamaged) && !errors.Is(err, statelog.ErrForeign) {
				t.Fatalf("byte %d: %v", i, err)
			}
			continue
		}
		if last := string(l.Last()); last != "commit 3" && last != "commit 2" {
			t.Fatalf("byte %d is damaged, and the log says %q without a word", i, last)
		}
	}
}

func TestForeign(t *testing.T) {
	_, files := fresh(t, 1)
	other := id
	other.Module = "another"
	_, err := statelog.Open([2]statelog.File{files[0], files[1]}, other)
	if !errors.Is(err, statelog.ErrForeign) {
		t.Fatalf("opened with another program: %v", err)
	}
}

// TestOldEpoch has one who was taken for dead write after another has opened
// the log: it may not.
func TestOldEpoch(t *testing.T) {
	old, files := fresh(t, 2)
	l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Commit([]byte("new"), nil); err != nil {
		t.Fatal(err)
	}
	if err := old.Commit([]byte("old"), nil); !errors.Is(err, statelog.ErrFenced) {
		t.Fatalf("an old epoch committed: %v", err)
	}
	if l, err = statelog.Open([2]statelog.File{files[0], files[1]}, id); err != nil || string(l.Last()) != "new" {
		t.Fatalf("the log says %q, %v", l.Last(), err)
	}
}

func TestEnd(t *testing.T) {
	l, files := fresh(t, 3)
	if err := l.End(); err != nil {
		t.Fatal(err)
	}
	l, err := statelog.Open([2]statelog.File{files[0], files[1]}, statelog.Identity{Name: "somebody else"})
	if err != nil || l.Last() != nil {
		t.Fatalf("after its end the log says %q, %v", l.Last(), err)
	}
	if err := l.Commit([]byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	l, err = statelog.Open([2]statelog.File{files[0], files[1]}, statelog.Identity{Name: "somebody else"})
	if err != nil || string(l.Last()) != "x" {
		t.Fatalf("the next one's log says %q, %v", l.Last(), err)
	}
}

// FuzzOpen reads anything.
func FuzzOpen(f *testing.F) {
	_, files := fresh(f, 3)
	f.Add(files[0].now, []byte{})
	f.Add(files[0].now[:50], files[0].now)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := &disk{until: -1, rng: rand.New(rand.NewPCG(1, 1))}
		l, err := statelog.Open([2]statelog.File{&file{d: d, now: a}, &file{d: d, now: b}}, id)
		if err != nil {
			return
		}
		if err := l.Commit([]byte("next"), []statelog.Blob{blob(5)}); err != nil {
			t.Fatal(err)
		}
	})
}

var _ io.ReaderAt = (*file)(nil)
