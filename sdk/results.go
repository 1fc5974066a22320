package sdk

import (
	"context"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// multi is a result that consists of several objects.
type multi interface {
	parts() int
	encodePart(i int, buf []byte, v *rt.Value) ([]byte, error)
	decodePart(i int, v *rt.Value) error
}

// partsOf returns how many objects a result of type R is.
func partsOf[R any]() int {
	if m, ok := any((*R)(nil)).(multi); ok {
		return m.parts()
	}
	return 1
}

// getParts reads all objects of a result into out.
func getParts(ctx context.Context, parts []*rt.Ref, out any) error {
	m, ok := out.(multi)
	if !ok || m.parts() != len(parts) {
		return wray.Errorf(wray.CodeBadArgument, "%d results do not decode into %T", len(parts), out)
	}
	for i, p := range parts {
		var v rt.Value
		if err := p.Get(ctx, &v, parts[i+1:]); err != nil {
			return local("get", err)
		}
		if err := m.decodePart(i, &v); err != nil {
			return err
		}
	}
	return nil
}

// dependency is the failure of a task whose argument i will never be there.
func dependency(i int, err error) error {
	e, ok := err.(*wray.Error)
	if !ok {
		if e, ok = local("argument", err).(*wray.Error); !ok {
			e = wray.Errorf(wray.CodeInternal, "%v", err)
		}
	}
	return &wray.Error{Code: wray.CodeDependencyFailed, Message: fmt.Sprintf("argument %d failed", i), Cause: e}
}

// part returns object i of n that r stands for.
func part[T any](r *rt.Ref, i, n int) Ref[T] {
	if r == nil {
		return Ref[T]{}
	}
	if parts := r.Parts(); len(parts) == n {
		return Ref[T]{parts[i]}
	}
	if err := r.Err(); err != nil {
		return Ref[T]{rt.Failed(err)}
	}
	return Ref[T]{rt.Failed(wray.Errorf(wray.CodeBadArgument, "the reference does not stand for %d results", n))}
}

// Two is the result of a task that gives two objects:
//
//	var halves = sdk.Func("halves", func(ctx context.Context, b []byte) (sdk.Two[[]byte, []byte], error) {
//		return sdk.Two[[]byte, []byte]{b[:len(b)/2], b[len(b)/2:]}, nil
//	})
//
//	left, right := sdk.Split2(halves.Remote(ctx, text))
//
// Each is read, waited for and passed on by itself. A Ref[Two[A, B]] can be
// read as a whole, too; as an argument of a task it has to be split.
type Two[A, B any] struct {
	A A
	B B
}

func (*Two[A, B]) parts() int { return 2 }

func (t *Two[A, B]) encodePart(i int, buf []byte, v *rt.Value) ([]byte, error) {
	switch i {
	case 0:
		return encode(&t.A, buf, v)
	}
	return encode(&t.B, buf, v)
}

func (t *Two[A, B]) decodePart(i int, v *rt.Value) error {
	switch i {
	case 0:
		return decode(v, &t.A)
	}
	return decode(v, &t.B)
}

// Split2 returns references to the two results that r stands for.
func Split2[A, B any](r Ref[Two[A, B]]) (Ref[A], Ref[B]) {
	return part[A](r.p, 0, 2), part[B](r.p, 1, 2)
}

// Three is the result of a task that gives three objects; see [Two].
type Three[A, B, C any] struct {
	A A
	B B
	C C
}

func (*Three[A, B, C]) parts() int { return 3 }

func (t *Three[A, B, C]) encodePart(i int, buf []byte, v *rt.Value) ([]byte, error) {
	switch i {
	case 0:
		return encode(&t.A, buf, v)
	case 1:
		return encode(&t.B, buf, v)
	}
	return encode(&t.C, buf, v)
}

func (t *Three[A, B, C]) decodePart(i int, v *rt.Value) error {
	switch i {
	case 0:
		return decode(v, &t.A)
	case 1:
		return decode(v, &t.B)
	}
	return decode(v, &t.C)
}

// Split3 returns references to the three results that r stands for.
func Split3[A, B, C any](r Ref[Three[A, B, C]]) (Ref[A], Ref[B], Ref[C]) {
	return part[A](r.p, 0, 3), part[B](r.p, 1, 3), part[C](r.p, 2, 3)
}

// Four is the result of a task that gives four objects; see [Two].
type Four[A, B, C, D any] struct {
	A A
	B B
	C C
	D D
}

func (*Four[A, B, C, D]) parts() int { return 4 }

func (t *Four[A, B, C, D]) encodePart(i int, buf []byte, v *rt.Value) ([]byte, error) {
	switch i {
	case 0:
		return encode(&t.A, buf, v)
	case 1:
		return encode(&t.B, buf, v)
	case 2:
		return encode(&t.C, buf, v)
	}
	return encode(&t.D, buf, v)
}

func (t *Four[A, B, C, D]) decodePart(i int, v *rt.Value) error {
	switch i {
	case 0:
		return decode(v, &t.A)
	case 1:
		return decode(v, &t.B)
	case 2:
		return decode(v, &t.C)
	}
	return decode(v, &t.D)
}

// Split4 returns references to the four results that r stands for.
func Split4[A, B, C, D any](r Ref[Four[A, B, C, D]]) (Ref[A], Ref[B], Ref[C], Ref[D]) {
	return part[A](r.p, 0, 4), part[B](r.p, 1, 4), part[C](r.p, 2, 4), part[D](r.p, 3, 4)
}
