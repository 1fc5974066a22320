package worker

import (
	"fmt"
	"unicode/utf8"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// What a message to a peer may hold. A sender keeps to what decodePeer takes: a
// peer that is sent more takes the sender for a broken one. So it is found out
// before references are counted, and what cannot travel is refused by itself.

const (
	maxCargo   = MaxPeerMessage - 1<<20 // bytes of values, and room for what is beside them
	refBytes   = 64                     // that a reference takes in a message, at most
	valueBytes = 128                    // that a value takes beside its payload and references
)

// cargo is what the values of one message come to.
type cargo struct {
	refs  int
	bytes int64
}

// small adds a value without references.
func (c *cargo) small(payload int) { c.bytes += int64(payload) + valueBytes }

// pending adds a reference to an object, whose value follows.
func (c *cargo) pending() {
	c.refs++
	c.bytes += valueBytes
}

// object adds what describe says of an object, which may be pending, and a
// reference to it.
func (c *cargo) object(o *objectstore.Object) {
	if !o.Ready() {
		c.pending()
		return
	}
	info := o.Info()
	c.refs += 1 + info.Refs
	c.bytes += valueBytes + refBytes*(1+int64(info.Refs))
	switch {
	case info.Encoding == abi.EncodingError:
		c.bytes += objectstore.InlineMax // no failure is longer
	case info.Len < objectstore.InlineMax:
		c.bytes += info.Len
	}
}

// tooMuch says what keeps it from travelling in one message; nil: nothing.
func (c *cargo) tooMuch(what string) *wray.Error {
	switch {
	case c.refs > maxPeerRefs:
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("%s cannot go to another node: %d references go with it", what, c.refs),
			Limit: &wray.Limit{Name: "references in a message between nodes", Value: maxPeerRefs},
			Hint:  "put them into several values, and pass references to those; or keep the task on the node that has them"}
	case c.bytes > maxCargo:
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("%s cannot go to another node: %d bytes of small values go with it", what, c.bytes),
			Limit: &wray.Limit{Name: "bytes of a message between nodes", Value: maxCargo, Unit: "bytes"},
			Hint:  "put small values together into one large one"}
	}
	return nil
}

// argsTravel says why a task or call cannot be sent to another node, with its
// arguments and the names that are to be there what they are here; nil: it can.
// It settles which of them go with the message (arg.later).
func argsTravel(fn *function, args []arg, names ...string) *wray.Error {
	for _, name := range append(names, fn.name, fn.module.name) {
		if !utf8.ValidString(name) {
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("function %q cannot run on another node: the name %q is not UTF-8", fn.name, name),
				Hint: "use a name that is text"}
		}
	}
	var c cargo
	for i := range args {
		a := &args[i]
		a.later = a.object != nil && !a.object.Ready()
		switch {
		case a.object == nil:
			c.small(len(a.payload))
		case a.later:
			c.pending()
		default:
			c.object(a.object)
		}
	}
	return c.tooMuch("the task")
}

// resultsTravel says why results cannot be told to a peer; nil: they can.
func resultsTravel(results []*objectstore.Object) *wray.Error {
	var c cargo
	for _, o := range results {
		c.object(o)
	}
	return c.tooMuch("what the task returned")
}
