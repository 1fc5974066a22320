package durable_test

import (
	"math/rand/v2"
	"testing"

	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/statelog/statelogtest"
)

// FuzzOpen reads a record that may say anything: a commit, a kept reply, a note.
func FuzzOpen(f *testing.F) {
	w := newWorld(f, rand.New(rand.NewPCG(1, 1)))
	jobs, from := some()
	w.drive(jobs[:1], from[:1], nil)
	rec := w.actors[0].rec
	for k := range rec.Log().Kept {
		b, err := rec.Log().Blob(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(rec.Log().Last(), b, []byte{0xa1, 0x02, 0x80})
	}
	f.Fuzz(func(t *testing.T, commit, kept, note []byte) {
		d := &statelogtest.Disk{Until: -1, Rng: rand.New(rand.NewPCG(1, 1))}
		files := [2]statelog.File{d.NewFile(), d.NewFile()}
		log, err := statelog.Open(files, statelog.Identity{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Commit(statelog.Change{Payload: commit, Keep: []statelog.Blob{{Key: statelog.Key{1}, Data: func() ([]byte, error) { return kept, nil }}}}); err != nil {
			t.Fatal(err)
		}
		if err := log.Note(note); err != nil {
			t.Fatal(err)
		}
		r, err := durable.Open(log, durable.UID{})
		if err != nil {
			return
		}
		_, q := r.Unfinished()
		_, _, _ = r.Repeat(&q)
		r.Begin(q, durable.Start{})
		_, _ = r.Next()
		_, _, _ = r.Effect(durable.Digest{})
		if err := r.Persist(func() ([]byte, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		if err := r.Commit(nil, nil, nil); err != nil {
			t.Fatal(err)
		}
	})
}
