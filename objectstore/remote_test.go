package objectstore_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// farAway is a payload at another node.
type farAway struct {
	payload []byte
	err     error
	reads   int
	dropped chan struct{}
}

func (f *farAway) Read(p []byte) error {
	f.reads++
	copy(p, f.payload)
	return f.err
}

func (f *farAway) Drop() { f.dropped <- struct{}{} }

// TestSealAway holds that a payload elsewhere is read once, when somebody wants
// it, that losing it is an error that says so, and that nothing is left.
func TestSealAway(t *testing.T) {
	ctx := context.Background()
	s, err := objectstore.New(objectstore.Config{Capacity: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 1<<20 + 8
	inner, err := s.TryPut(wray.ID{Owner: 1, Seq: 9}, objectstore.Value{Encoding: abi.EncodingRaw})
	if err != nil {
		t.Fatal(err)
	}
	for _, lost := range []error{nil, &wray.Error{Code: wray.CodeOwnerDied, Message: "node b is gone"}, errors.New("torn")} {
		o, err := s.Declare(wray.ID{Owner: 1, Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		from := &farAway{payload: bytes.Repeat([]byte("x"), n), err: lost, dropped: make(chan struct{}, 2)}
		if err := o.SealAway(objectstore.Value{Encoding: abi.EncodingRaw, Refs: []*objectstore.Object{inner}}, n, from); err != nil {
			t.Fatal(err)
		}
		if i := o.Info(); i.Len != n || i.Refs != 1 || !o.Remote() || from.reads != 0 || s.Stats().Used > 4096 {
			t.Errorf("away: %+v, %d reads, %+v", i, from.reads, s.Stats())
		}
		if err := o.SealAway(objectstore.Value{Encoding: abi.EncodingRaw}, n, from); !errors.Is(err, objectstore.ErrSealed) {
			t.Errorf("sealed twice: %v", err)
		}
		for range 2 {
			v, err := o.WaitView(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if lost == nil && !bytes.Equal(v.Bytes(), from.payload) {
				t.Error("another payload")
			}
			v.Close()
		}
		var e *wray.Error
		switch {
		case lost == nil && o.Err() != nil, lost != nil && o.Err() == nil, errors.As(lost, &e) && o.Err().Code != e.Code:
			t.Errorf("%v is read as %v", lost, o.Err())
		}
		if from.reads != 1 || o.Remote() {
			t.Errorf("%d reads", from.reads)
		}
		o.Release()
		<-from.dropped // the reader may give the last reference back
		if len(from.dropped) > 0 {
			t.Error("dropped twice")
		}
	}
	inner.Release()
	o, _ := s.Declare(wray.ID{Owner: 1, Seq: 2})
	for _, bad := range []struct {
		v objectstore.Value
		n int64
	}{{objectstore.Value{Encoding: abi.EncodingRaw}, 10}, {objectstore.Value{Encoding: abi.EncodingError}, n}, {objectstore.Value{Encoding: 99}, n}, {objectstore.Value{Encoding: abi.EncodingRaw}, 1 << 60}} {
		if err := o.SealAway(bad.v, bad.n, &farAway{}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	o.Release()
	s.Close() // the readers end before
	if st := s.Stats(); st.Objects != 0 || st.Used != 0 {
		t.Errorf("left: %+v", st)
	}
}
