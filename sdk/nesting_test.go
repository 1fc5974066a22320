package sdk

import (
	"errors"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

type list []list

type tree struct {
	Name     string
	Children []*tree
	parent   *tree
	Up       *tree `cbor:"-"`
	Made     time.Time
	More     any
}

// itsOwn encodes itself, whatever is inside.
type itsOwn struct{ next *itsOwn }

func (o *itsOwn) MarshalCBOR() ([]byte, error) { return []byte{0xf6}, nil }

func deepList(n int) list {
	var l list
	for range n {
		l = list{l}
	}
	return l
}

// TestNesting holds that what can be sent can be read, and that what nests too
// deep, or has itself inside, is an error: encoding it would take the stack of
// the whole sandbox.
func TestNesting(t *testing.T) {
	root := &tree{Name: "root"}
	for range 3 {
		child := &tree{Name: "child", parent: root, Up: root, Made: time.Now()}
		root.Children = append(root.Children, child)
	}
	own := &itsOwn{}
	own.next = own
	circle := map[string]any{}
	circle["itself"] = circle
	var p any
	p = &p
	knot := &tree{}
	knot.More = []*tree{knot}
	var deepAny any = 1
	for range 100_000 {
		deepAny = []any{deepAny}
	}
	for name, c := range map[string]struct {
		send func() error
		ok   bool
	}{
		"255 lists":           {func() error { return there(deepList(255)) }, true},
		"100,000 lists":       {func() error { return there(deepList(100_000)) }, false},
		"a tree":              {func() error { return there(root) }, true},
		"its own":             {func() error { return there(struct{ A any }{own}) }, true},
		"a map in itself":     {func() error { return there(circle) }, false},
		"a pointer to itself": {func() error { return there(p) }, false},
		"a knot":              {func() error { return there(knot) }, false},
		"100,000 any":         {func() error { return there(deepAny) }, false},
	} {
		err := c.send()
		var e *wray.Error
		if ok := err == nil; ok != c.ok || !ok && (!errors.As(err, &e) || e.Code != wray.CodeBadArgument || e.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is the most that can be sent can be read.
	for n := 250; ; n++ {
		err := there(deepList(n))
		var e *wray.Error
		if errors.As(err, &e) && e.Hint != "" {
			break
		}
		if err != nil || n > 2*maxNesting {
			t.Fatalf("%d lists: %v", n, err)
		}
	}
}

// there encodes v and decodes it.
func there[T any](v T) error {
	var out rt.Value
	if _, err := encode(&v, nil, &out); err != nil {
		return err
	}
	var back T
	return decode(&out, &back)
}

// TestBuilderSize holds that a length which no value has is said to be so.
func TestBuilderSize(t *testing.T) {
	for _, n := range []int64{-1, abi.MaxPayload + 1, 1 << 62} {
		b, err := NewBuilder(t.Context(), n)
		var e *wray.Error
		if b != nil || !errors.As(err, &e) || e.Code != wray.CodeBadArgument || e.Hint == "" {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
