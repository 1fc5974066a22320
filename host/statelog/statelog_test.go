package statelog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/statelog/statelogtest"
)

var (
	seed   = flag.Uint64("statelog.seed", 0, "seed of the histories; 0: of the clock")
	rounds = flag.Int("statelog.rounds", 300, "histories")
)

var id = statelog.Identity{Module: "m0123456789abcdef", Class: "counter", Name: "tally"}

func blob(n uint64) statelog.Blob {
	k := statelog.Key{}
	copy(k[:], fmt.Sprintf("blob %d", n))
	return statelog.Blob{Key: k, Data: func() ([]byte, error) { return bytes.Repeat([]byte{byte(n)}, int(n%7)*100), nil }}
}

// keep is a blob whose content, 8 bytes and some, says which it is.
func keep(n uint64) statelog.Blob {
	k := statelog.Key{}
	copy(k[:], fmt.Sprintf("kept %d", n))
	return statelog.Blob{Key: k, Data: func() ([]byte, error) {
		return append(binary.LittleEndian.AppendUint64(nil, n), make([]byte, n%200)...), nil
	}}
}

func u64(b []byte) uint64 {
	if len(b) < 8 {
		return 1 << 63
	}
	return binary.LittleEndian.Uint64(b)
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
		d := &statelogtest.Disk{Rng: rng, Until: -1}
		files := [2]*statelogtest.File{d.NewFile(), d.NewFile()}
		acked, tried := uint64(0), uint64(0) // numbers of commits
		var epoch uint64
		ended := false                       // an end was tried, or done
		kept := map[uint64]map[uint64]bool{} // by commit, what it keeps
		notes, noted := uint64(0), uint64(0) // since the last commit: acknowledged, tried
		for range 6 {
			d.Until = rng.IntN(60)
			l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
			if err != nil && !errors.Is(err, statelogtest.ErrPower) {
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
				n := 0
				for k := range l.Kept {
					n++
					if b, err := l.Blob(k); err != nil || !kept[got][u64(b)] {
						t.Fatalf("round %d: commit %d keeps %x: %x, %v", round, got, k, b, err)
					}
				}
				if n != len(kept[got]) {
					t.Fatalf("round %d: commit %d keeps %d, and not %v", round, got, n, kept[got])
				}
				if n := uint64(len(l.Notes())); got == acked && !ended && (n < notes || n > noted) || got != acked && n > 0 {
					t.Fatalf("round %d: %d notes after commit %d, of %d that were acknowledged and %d tried after commit %d", round, n, got, notes, noted, acked)
				}
				for i, p := range l.Notes() {
					if string(p) != fmt.Sprintf("note %d of %d", i, got) {
						t.Fatalf("round %d: after commit %d note %d says %q", round, got, i, p)
					}
				}
				acked, ended = got, false
				notes = uint64(len(l.Notes()))
				noted = notes
				for !d.Off {
					if rng.IntN(40) == 0 {
						ended = true
						if l.End() == nil {
							acked, notes, noted = 0, 0, 0
						}
						break
					}
					d.Full = rng.IntN(10) == 0
					if acked > 0 && rng.IntN(3) == 0 {
						err := l.Note(fmt.Appendf(nil, "note %d of %d", notes, acked))
						d.Full = false
						noted = notes + 1
						if err == nil {
							notes++
						}
						continue
					}
					tried++
					kept[tried] = map[uint64]bool{}
					for n := range kept[acked] {
						kept[tried][n] = true
					}
					var c statelog.Change
					for n := range kept[acked] {
						if rng.IntN(4) == 0 {
							delete(kept[tried], n)
							c.Drop = append(c.Drop, keep(n).Key)
						}
					}
					for range rng.IntN(3) {
						n := tried*10 + rng.Uint64N(10)
						if rng.IntN(3) == 0 { // one that may have been there, and was dropped
							n = rng.Uint64N(20)
						}
						if !kept[acked][n] && !kept[tried][n] {
							kept[tried][n] = true
							c.Keep = append(c.Keep, keep(n))
						}
					}
					blobs := []statelog.Blob{}
					for i := range tried % 4 {
						blobs = append(blobs, blob(tried/3+i))
					}
					c.Payload, c.Blobs = fmt.Appendf(nil, "commit %d %s", tried, make([]byte, rng.IntN(300))), blobs
					err := l.Commit(c)
					d.Full = false
					switch {
					case err == nil:
						acked, notes, noted = tried, 0, 0
					case errors.Is(err, statelogtest.ErrPower), errors.Is(err, statelogtest.ErrFull):
					default:
						t.Fatalf("round %d: %v", round, err)
					}
				}
			}
			d = &statelogtest.Disk{Rng: rng, Until: -1}
			files = [2]*statelogtest.File{files[0].Restart(d), files[1].Restart(d)}
		}
	}
}

// fresh returns a log of n commits, and its files.
func fresh(t testing.TB, n int) (*statelog.Log, [2]*statelogtest.File) {
	d := &statelogtest.Disk{Until: -1, Rng: rand.New(rand.NewPCG(1, 1))}
	files := [2]*statelogtest.File{d.NewFile(), d.NewFile()}
	l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := l.Commit(statelog.Change{Payload: fmt.Appendf(nil, "commit %d", i), Blobs: []statelog.Blob{blob(uint64(i))}}); err != nil {
			t.Fatal(err)
		}
	}
	return l, files
}

// TestDamage flips each byte of a log in turn: what was acknowledged is there,
// or the damage is told. The last record alone cannot be told from a torn one.
func TestDamage(t *testing.T) {
	_, files := fresh(t, 4)
	whole := files[0].Bytes()
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		d := &statelogtest.Disk{Until: -1}
		l, err := statelog.Open([2]statelog.File{d.FileOf(b), d.NewFile()}, id)
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

// TestRewrites holds that a log is not longer than what it says is worth, however
// often that changes.
func TestRewrites(t *testing.T) {
	const long = 3000
	statelog.RewriteAt(t, long)
	l, files := fresh(t, 1)
	for i := range 1000 {
		if err := l.Commit(statelog.Change{Payload: fmt.Appendf(nil, "commit %d %s", i, make([]byte, 200)), Blobs: []statelog.Blob{blob(3)}}); err != nil {
			t.Fatal(err)
		}
		for k, f := range files {
			if len(f.Bytes()) > 2*long {
				t.Fatalf("after %d commits of 200 bytes file %d has %d bytes, want some %d", i+1, k, len(f.Bytes()), long)
			}
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
	if err := l.Commit(statelog.Change{Payload: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	if err := old.Commit(statelog.Change{Payload: []byte("old")}); !errors.Is(err, statelog.ErrFenced) {
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
	if err := l.Commit(statelog.Change{Payload: []byte("x")}); err != nil {
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
	f.Add(files[0].Bytes(), []byte{})
	f.Add(files[0].Bytes()[:50], files[0].Bytes())
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := &statelogtest.Disk{Until: -1, Rng: rand.New(rand.NewPCG(1, 1))}
		l, err := statelog.Open([2]statelog.File{d.FileOf(a), d.FileOf(b)}, id)
		if err != nil {
			return
		}
		if err := l.Commit(statelog.Change{Payload: []byte("next"), Blobs: []statelog.Blob{blob(5)}, Keep: []statelog.Blob{blob(6)}}); err != nil {
			t.Fatal(err)
		}
	})
}

var _ statelog.File = (*statelogtest.File)(nil)
