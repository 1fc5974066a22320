package sdk

import (
	"encoding"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
)

// maxNesting is how deep values may nest lists, maps and structs. Deeper ones
// could be encoded as long as the stack holds, but nobody would decode them.
const maxNesting = 256

// maxHops bounds the steps from the outside of a value to its inside, with those
// by pointers and interfaces, which may lead back to where they came from.
const maxHops = 8 * maxNesting

// nestable has of types whether their values may nest without bound; nothing is
// ever removed.
var nestable sync.Map // reflect.Type to bool

// nests reports whether values of type t may nest without bound: an interface is
// in it, or t itself.
func nests(t reflect.Type) bool {
	if n, ok := nestable.Load(t); ok {
		return n.(bool)
	}
	n := nestsAgain(t, nil)
	nestable.Store(t, n)
	return n
}

func nestsAgain(t reflect.Type, within []reflect.Type) bool {
	for _, w := range within {
		if w == t {
			return true
		}
	}
	if encodesItself(t) {
		return false
	}
	within = append(within[:len(within):len(within)], t)
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return nestsAgain(t.Elem(), within)
	case reflect.Map:
		return nestsAgain(t.Key(), within) || nestsAgain(t.Elem(), within)
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); travels(f) && nestsAgain(f.Type, within) {
				return true
			}
		}
	}
	return false
}

var itself = []reflect.Type{reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler]()}

// encodesItself reports whether package cbor leaves values of type t to a method
// of theirs, or to one of its own, and does not look into them.
func encodesItself(t reflect.Type) bool {
	if t == reflect.TypeFor[time.Time]() {
		return true
	}
	if t.Kind() == reflect.Interface {
		return false
	}
	for _, m := range itself {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	return false
}

// travels reports whether package cbor encodes the field f.
func travels(f reflect.StructField) bool {
	tag, ok := f.Tag.Lookup("cbor")
	if !ok {
		tag = f.Tag.Get("json")
	}
	return tag != "-" && (f.IsExported() || f.Anonymous)
}

// checkDepth returns an error where v nests too deep. It looks only where it may.
func checkDepth(v reflect.Value) error {
	if depthOK(v, 0, 0) {
		return nil
	}
	return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("a value nests lists, maps and structs deeper than %d, or has itself inside", maxNesting),
		Hint: "make it flat, such as a list of nodes that name each other by index, or sdk.Put its parts and send references to them"}
}

func depthOK(v reflect.Value, depth, hops int) bool {
	if !v.IsValid() || !nests(v.Type()) {
		return true
	}
	hops++
	if hops > maxHops {
		return false
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return v.IsNil() || depthOK(v.Elem(), depth, hops)
	}
	if depth >= maxNesting {
		return false
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !depthOK(v.Index(i), depth+1, hops) {
				return false
			}
		}
	case reflect.Map:
		for m := v.MapRange(); m.Next(); {
			if !depthOK(m.Key(), depth+1, hops) || !depthOK(m.Value(), depth+1, hops) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if travels(v.Type().Field(i)) && !depthOK(v.Field(i), depth+1, hops) {
				return false
			}
		}
	}
	return true
}
