package objectstore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// fills is a payload at another node that is written into a file, or is not.
type fills struct {
	farAway
	fails bool
	wrote int64
}

func (s *fills) Fill(f *os.File, n int64) error {
	if s.fails {
		_, _ = f.WriteAt([]byte("half of it"), 0)
		return errors.New("lost on the way")
	}
	_, err := f.WriteAt(s.payload[:n], 0)
	s.wrote += n
	return err
}

// TestFill holds that a large payload is written into the object's memory where
// the source can, also into memory that was lent to readers before, and is read
// where it cannot.
func TestFill(t *testing.T) {
	ctx := context.Background()
	s, err := objectstore.New(objectstore.Config{Capacity: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seq := uint64(0)
	for _, test := range []struct {
		what   string
		n      int
		fails  bool
		sealed bool // the memory is of an object that a client has read
		reads  int
		wrote  int64
	}{
		{what: "large", n: objectstore.FillMin + 5, wrote: objectstore.FillMin + 5},
		{what: "small", n: objectstore.FillMin - 1, reads: 1},
		{what: "lost on the way", n: objectstore.FillMin, fails: true, reads: 1},
		{what: "in memory that others may read", n: 2 * objectstore.FillMin, sealed: true, wrote: 2 * objectstore.FillMin},
	} {
		t.Run(test.what, func(t *testing.T) {
			if test.sealed {
				seq++
				o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, objectstore.Value{Encoding: abi.EncodingRaw, Payload: make([]byte, test.n)})
				if err != nil {
					t.Fatal(err)
				}
				win, err := o.Pin()
				if err != nil {
					t.Fatal(err)
				}
				f, err := win.File()
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
				win.Unpin()
				o.Release()
			}
			seq++
			o, err := s.Declare(wray.ID{Owner: 1, Seq: seq})
			if err != nil {
				t.Fatal(err)
			}
			from := &fills{farAway: farAway{payload: bytes.Repeat([]byte("x"), test.n), dropped: make(chan struct{}, 1)}, fails: test.fails}
			if err := o.SealAway(objectstore.Value{Encoding: abi.EncodingRaw}, int64(test.n), from); err != nil {
				t.Fatal(err)
			}
			v, err := o.WaitView(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(v.Bytes(), from.payload) || from.reads != test.reads || from.wrote != test.wrote {
				t.Errorf("%d reads and %d bytes written: want %d and %d", from.reads, from.wrote, test.reads, test.wrote)
			}
			v.Close()
			win, err := o.Pin()
			if err != nil {
				t.Fatal(err)
			}
			f, err := win.Lend()
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, test.n)
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, from.payload) {
				t.Errorf("lent: %v", err)
			}
			f.Close()
			win.Unpin()
			o.Release()
			<-from.dropped
		})
	}
	s.Trim()
	if st := s.Stats(); st.Objects != 0 || st.Used != 0 || st.Pooled != 0 {
		t.Errorf("left: %+v", st)
	}
}
