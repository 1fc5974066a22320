//go:build !wasip1

package rt

import (
	"context"
	"fmt"
	"reflect"
	"time"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// checkpoints are an actor's: copies of what its state points to. Variables of
// the program are not among it, as they are in a sandbox. It belongs to the
// goroutine of live, but for what is guarded by the lock of the process.
type checkpoints struct {
	saved   any // nil: none
	has     bool
	unsaved int
	oldest  time.Time // of what is not saved
	since   map[context.Context]int
	lost    map[context.Context]int
	asked   bool // guarded by state
}

func (a *actor) saves() bool {
	s := &a.create.spec
	return s.Concurrency <= 1 && (s.CheckpointCalls > 0 || s.CheckpointEvery > 0) || a.dur.has
}

// save takes a checkpoint.
func (a *actor) save() {
	d := &a.dur
	saved := deepCopy(*a.state)
	state.Lock()
	d.saved, d.has = saved, true // a call that outlived its actor may ask
	state.Unlock()
	d.unsaved = 0
	clear(d.since)
}

// saveIfOld takes a checkpoint where one would have been taken before now.
func (a *actor) saveIfOld() {
	if every := a.create.spec.CheckpointEvery; a.saves() && every > 0 && a.dur.unsaved > 0 && time.Since(a.dur.oldest) >= every {
		a.save()
	}
}

// note counts a call that is about to be answered.
func (a *actor) note(c *task) {
	d := &a.dur
	state.Lock()
	asked := d.asked
	d.asked = false
	state.Unlock()
	if !asked && !a.saves() {
		return
	}
	if d.unsaved++; d.unsaved == 1 {
		d.oldest = time.Now()
	}
	if d.since == nil {
		d.since = map[context.Context]int{}
	}
	d.since[c.parent]++
	if n := a.create.spec.CheckpointCalls; asked || n > 0 && d.unsaved >= int(n) {
		a.save()
	}
}

// losing takes note that the calls since the last checkpoint are lost. The
// caller of c, where that is not nil, knows.
func (a *actor) losing(c *task) {
	d := &a.dur
	if d.lost == nil {
		d.lost = map[context.Context]int{}
	}
	for from, n := range d.since {
		if c == nil || c.parent != from {
			d.lost[from] += n
		}
	}
	clear(d.since)
	d.unsaved = 0
}

// lossOf returns what the caller of c is to be told before it goes on.
func (a *actor) lossOf(c *task) *wray.Error {
	n := a.dur.lost[c.parent]
	if n == 0 {
		return nil
	}
	delete(a.dur.lost, c.parent)
	from := "from its last checkpoint"
	if !a.dur.has {
		from = "from its constructor"
	}
	return &wray.Error{Code: wray.CodeActorRestarted, Lost: n,
		Message: fmt.Sprintf("the actor %s was started again %s, without the effects of %d calls that it had answered; this call was not run",
			a.create.name, from, n),
		Hint: "make the lost calls again, and have fewer of them with sdk.CheckpointEvery(1)"}
}

// errConcurrent is the failure of a checkpoint of an actor that is never between
// two calls.
var errConcurrent = &wray.Error{Code: wray.CodeBadArgument, Message: "in a native build an actor with MaxConcurrency takes no checkpoints"}

// answerCheckpoint answers a call that asks for a checkpoint.
func (a *actor) answerCheckpoint(c *task) *wray.Error {
	if a.create.spec.Concurrency > 1 {
		return errConcurrent
	}
	a.save()
	c.results[0].seal(Value{Encoding: abi.EncodingCBOR, Data: []byte{0xa0}})
	return nil
}

// holds reports whether the results of a call are given when it is over: what
// it did may have to be in a checkpoint by then.
func (a *actor) holds() bool {
	state.Lock()
	defer state.Unlock()
	return a.saves() || a.dur.asked
}

// give gives the results that were held.
func (t *task) give() {
	state.Lock()
	held := t.held
	t.held = nil
	state.Unlock()
	for i, v := range held {
		t.results[i].seal(v)
	}
}

// CheckpointHere has the actor whose call c is take a checkpoint before it
// answers.
func CheckpointHere(ctx context.Context) error {
	c, _ := ctx.Value(callKey{}).(*Call)
	if c == nil || c.task.actor == nil {
		return Errno(abi.EPERM)
	}
	if c.task.actor.create.spec.Concurrency > 1 {
		return Errno(abi.ENOTSUP)
	}
	state.Lock()
	defer state.Unlock()
	c.task.actor.dur.asked = true
	return nil
}

type callKey struct{}

// deepCopy copies what v points to. What is shared by nature is not copied:
// references and handles, channels, functions.
func deepCopy(v any) any {
	if v == nil {
		return nil
	}
	c := copier{}
	dst := reflect.New(reflect.TypeOf(v)).Elem()
	c.copy(dst, reflect.ValueOf(v))
	return dst.Interface()
}

// copier holds what was copied, by address, so that what was shared still is.
type copier map[copied]reflect.Value

type copied struct {
	p unsafe.Pointer
	t reflect.Type
	n int // of a slice
}

var refType = reflect.TypeFor[*Ref]()

// copy makes dst, which can be set, a copy of src.
func (c copier) copy(dst, src reflect.Value) {
	switch src.Kind() {
	case reflect.Pointer:
		if src.IsNil() || src.Type() == refType {
			dst.Set(src)
			return
		}
		k := copied{src.UnsafePointer(), src.Type(), 0}
		if have, ok := c[k]; ok {
			dst.Set(have)
			return
		}
		p := reflect.New(src.Type().Elem())
		c[k] = p.Convert(src.Type())
		c.copy(p.Elem(), src.Elem())
		dst.Set(c[k])
	case reflect.Slice:
		if src.IsNil() {
			dst.SetZero()
			return
		}
		k := copied{src.UnsafePointer(), src.Type(), src.Len()}
		if have, ok := c[k]; ok && src.Cap() > 0 {
			dst.Set(have)
			return
		}
		s := reflect.MakeSlice(src.Type(), src.Len(), src.Cap())
		c[k] = s
		for i := range src.Len() {
			c.copy(s.Index(i), open(src.Index(i)))
		}
		dst.Set(s)
	case reflect.Map:
		if src.IsNil() {
			dst.SetZero()
			return
		}
		k := copied{src.UnsafePointer(), src.Type(), 0}
		if have, ok := c[k]; ok {
			dst.Set(have)
			return
		}
		m := reflect.MakeMapWithSize(src.Type(), src.Len())
		c[k] = m
		for it := src.MapRange(); it.Next(); {
			key, val := reflect.New(src.Type().Key()).Elem(), reflect.New(src.Type().Elem()).Elem()
			c.copy(key, it.Key())
			c.copy(val, it.Value())
			m.SetMapIndex(key, val)
		}
		dst.Set(m)
	case reflect.Interface:
		if src.IsNil() {
			dst.SetZero()
			return
		}
		v := reflect.New(src.Elem().Type()).Elem()
		c.copy(v, src.Elem())
		dst.Set(v)
	case reflect.Array:
		for i := range src.Len() {
			c.copy(dst.Index(i), src.Index(i))
		}
	case reflect.Struct:
		if !src.CanAddr() { // fields can be read by address only
			p := reflect.New(src.Type()).Elem()
			p.Set(src)
			src = p
		}
		for i := range src.NumField() {
			c.copy(open(dst.Field(i)), open(src.Field(i)))
		}
	default:
		dst.Set(src)
	}
}

// open returns a field, which may not be exported, as one that can be used.
func open(v reflect.Value) reflect.Value {
	if !v.CanAddr() {
		return v
	}
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}
