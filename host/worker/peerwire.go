package worker

import (
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// What the workers of one tenant on different nodes say to each other. To the
// nodes it is bytes. A worker takes its peers' messages for hostile: they are
// decoded strictly and bounded, every field is checked where it is used, and a
// peer that speaks nonsense is treated as one that died.

// MaxPeerMessage bounds the bytes of a message between two workers.
const MaxPeerMessage = 64 << 20

// peerMessage is one message: whichever of its parts are set, in this order.
type peerMessage struct {
	Hello    *helloBody   `cbor:"1,keyasint,omitempty"`
	Load     *loadBody    `cbor:"2,keyasint,omitempty"`
	Job      *jobBody     `cbor:"3,keyasint,omitempty"`
	Lend     *lendBody    `cbor:"4,keyasint,omitempty"`
	Reply    *replyBody   `cbor:"5,keyasint,omitempty"`
	Stop     *stopBody    `cbor:"6,keyasint,omitempty"`
	EndJob   *idBody      `cbor:"7,keyasint,omitempty"`
	Output   *printedBody `cbor:"8,keyasint,omitempty"`
	Printed  *idBody      `cbor:"9,keyasint,omitempty"`  // Output of that job was taken: the next may come
	Value    *objectBody  `cbor:"10,keyasint,omitempty"` // what was awaited
	Await    []idBody     `cbor:"11,keyasint,omitempty"` // tell their values when they are there
	Borrow   *idBody      `cbor:"12,keyasint,omitempty"` // I was given a reference to an object of yours by another
	Borrowed *grantBody   `cbor:"13,keyasint,omitempty"` // it counts Grants, 1 or, where the object is gone, 0
	Kept     []uint64     `cbor:"14,keyasint,omitempty"` // references that you passed on to me count with their owner
	Release  []grantBody  `cbor:"15,keyasint,omitempty"`
	Cancel   *idBody      `cbor:"16,keyasint,omitempty"` // the task that makes an object of yours
	Ask      *askBody     `cbor:"17,keyasint,omitempty"` // of a job of yours: see askBody
	Answer   *answerBody  `cbor:"18,keyasint,omitempty"`
	Group    *groupBody   `cbor:"19,keyasint,omitempty"` // of a placement group
	Saved    *savedBody   `cbor:"20,keyasint,omitempty"` // a checkpoint of an actor of yours
	Leaving  uint8        `cbor:"30,keyasint,omitempty"` // a stage: I go
	Took     *tookBody    `cbor:"31,keyasint,omitempty"` // answers a stage
}

type idBody struct {
	Owner uint64 `cbor:"1,keyasint"`
	Seq   uint64 `cbor:"2,keyasint"`
}

func bodyOf(id wray.ID) idBody { return idBody{id.Owner, id.Seq} }
func (b idBody) id() wray.ID   { return wray.ID{Owner: b.Owner, Seq: b.Seq} }

// grantBody gives back references that came in messages.
type grantBody struct {
	ID     idBody `cbor:"1,keyasint"`
	Grants int64  `cbor:"2,keyasint"`
}

// helloBody is what a worker says of itself.
type helloBody struct {
	CPU    int64        `cbor:"1,keyasint"`
	Memory int64        `cbor:"2,keyasint"`
	Custom []CustomBody `cbor:"3,keyasint,omitempty"`
	Labels []LabelBody  `cbor:"4,keyasint,omitempty"`
}

// LabelBody is a label of a node.
type LabelBody struct {
	Key   string `cbor:"1,keyasint"`
	Value string `cbor:"2,keyasint"`
}

// loadBody is what a worker holds for others than the one it says so to.
type loadBody struct {
	CPU    int64        `cbor:"1,keyasint"`
	Memory int64        `cbor:"2,keyasint"`
	Custom []CustomBody `cbor:"3,keyasint,omitempty"`
}

// jobBody is a job of which attempts will be lent.
type jobBody struct {
	ID      idBody      `cbor:"1,keyasint"`
	Name    string      `cbor:"2,keyasint"`
	Modules []jobModule `cbor:"3,keyasint"`
	Args    []string    `cbor:"4,keyasint,omitempty"`
	Env     []string    `cbor:"5,keyasint,omitempty"`
	Dirs    []DirBody   `cbor:"6,keyasint,omitempty"`
	Limits  jobLimits   `cbor:"7,keyasint"`
	Output  bool        `cbor:"8,keyasint,omitempty"`
}

type jobModule struct {
	Name string `cbor:"1,keyasint"`
	Hash string `cbor:"2,keyasint"` // of the content
}

type jobLimits struct {
	Memory  int64 `cbor:"1,keyasint,omitempty"`
	Stack   int32 `cbor:"2,keyasint,omitempty"`
	Files   int   `cbor:"3,keyasint,omitempty"`
	Handles int   `cbor:"4,keyasint,omitempty"`
	Windows int   `cbor:"5,keyasint,omitempty"`
	LogRate int64 `cbor:"6,keyasint,omitempty"`
}

// lendBody is an attempt to run.
type lendBody struct {
	Job     idBody       `cbor:"1,keyasint"`
	Task    idBody       `cbor:"2,keyasint"`
	Attempt int          `cbor:"3,keyasint"`
	Name    string       `cbor:"4,keyasint"`
	Module  string       `cbor:"5,keyasint"`
	Func    string       `cbor:"6,keyasint"`
	CPU     int64        `cbor:"7,keyasint"`
	Memory  int64        `cbor:"8,keyasint"`
	Custom  []CustomBody `cbor:"9,keyasint,omitempty"`
	Flags   uint32       `cbor:"10,keyasint,omitempty"`
	Timeout int64        `cbor:"11,keyasint,omitempty"`
	Args    []argBody    `cbor:"12,keyasint,omitempty"`
	Results int          `cbor:"13,keyasint"`
	Make    *makeBody    `cbor:"14,keyasint,omitempty"` // it makes an actor, and lasts as long as that
	Call    *callBody    `cbor:"15,keyasint,omitempty"` // it is a call of an actor
	Group   *refBody     `cbor:"16,keyasint,omitempty"` // it runs in this placement group
	Bundle  int          `cbor:"17,keyasint,omitempty"` // of that; of a Make, wray.AnyBundle: any
}

// argBody is an argument: a small value without references, or an object with
// its value. Of a call the object may have none yet: it follows.
type argBody struct {
	Value valueBody `cbor:"1,keyasint"`
	Ref   *refBody  `cbor:"2,keyasint,omitempty"`
}

// refBody is a reference that travels. Where the object is the sender's, it is
// one that the sender counts; where it is the receiver's, none need be counted;
// of a third worker's the sender keeps its own, under the number Transit, until
// it is told Kept.
type refBody struct {
	ID      idBody `cbor:"1,keyasint"`
	Transit uint64 `cbor:"2,keyasint,omitempty"`
	Actor   bool   `cbor:"3,keyasint,omitempty"` // it stands for an actor
	Group   bool   `cbor:"4,keyasint,omitempty"` // it stands for a placement group
}

// valueBody is what an object is. Payloads of objectstore.InlineMax and more
// stay where they are: Away.
type valueBody struct {
	Encoding uint32    `cbor:"1,keyasint"`
	Meta     uint32    `cbor:"2,keyasint,omitempty"`
	Payload  []byte    `cbor:"3,keyasint,omitempty"`
	Refs     []refBody `cbor:"4,keyasint,omitempty"`
	Away     int64     `cbor:"5,keyasint,omitempty"` // its length
}

// objectBody is an object with its value.
type objectBody struct {
	ID    idBody    `cbor:"1,keyasint"`
	Value valueBody `cbor:"2,keyasint"`
}

// replyKind says how a lent attempt ended.
type replyKind uint8

const (
	replyDone    replyKind = iota + 1 // with Results or Err
	replyRefused                      // there is no room
	replyHome                         // it needs what only its job's node has; Err, where it is there, says what
	replyLives                        // of an actor: its constructor has ended; the attempt goes on
	replyUnbegun                      // of a call: the actor was gone before it began
	replyGone                         // of a call: the actor was lost in it, with Err
	replyAbsent                       // its job is not here, or not any more, or could not be loaded: Err, where it is there, says why
)

// replyBody ends a lent attempt.
type replyBody struct {
	Task    idBody       `cbor:"1,keyasint"`
	Attempt int          `cbor:"2,keyasint"`
	Kind    replyKind    `cbor:"3,keyasint"`
	Err     []byte       `cbor:"4,keyasint,omitempty"` // objectstore.EncodeFailure
	Results []resultBody `cbor:"5,keyasint,omitempty"`
	Load    loadBody     `cbor:"6,keyasint"`
	Saved   uint64       `cbor:"7,keyasint,omitempty"` // of a call: the number of the checkpoint that has what it did
}

// resultBody is a result: small, or an object that stays at the sender.
type resultBody struct {
	Value valueBody `cbor:"1,keyasint"`
	Ref   *refBody  `cbor:"2,keyasint,omitempty"`
}

// stopBody ends an attempt that was lent.
type stopBody struct {
	Task    idBody `cbor:"1,keyasint"`
	Attempt int    `cbor:"2,keyasint"`
	Code    uint32 `cbor:"3,keyasint"`
}

// printedBody is what tasks of a job printed.
type printedBody struct {
	Job    idBody `cbor:"1,keyasint"`
	Task   string `cbor:"2,keyasint"`
	Stream Stream `cbor:"3,keyasint"`
	Data   []byte `cbor:"4,keyasint"`
}

// Bounds of what a message may name, beside those of its decoding.
const (
	maxPeerRefs    = 1 << 16 // references of one message
	maxPeerResults = maxResults
)

// decodePeer reads a message and checks what can be checked without knowing
// more than the message.
func decodePeer(b []byte) (*peerMessage, error) {
	if len(b) > MaxPeerMessage {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", len(b), MaxPeerMessage)
	}
	var m peerMessage
	if err := link.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return &m, m.check()
}

func (m *peerMessage) check() error {
	refs := 0
	value := func(v *valueBody) error {
		refs += len(v.Refs)
		switch {
		case v.Away != 0 && (v.Away < objectstore.InlineMax || v.Away > objectstore.MaxPayload || len(v.Payload) > 0):
			return fmt.Errorf("a payload of %d bytes elsewhere", v.Away)
		case len(v.Payload) > objectstore.InlineMax:
			return fmt.Errorf("a payload of %d bytes in a message", len(v.Payload))
		case v.Away != 0 && v.Encoding == uint32(abi.EncodingError):
			return errors.New("an error elsewhere")
		case v.Encoding > uint32(abi.EncodingError):
			return fmt.Errorf("an encoding of %d", v.Encoding)
		}
		return nil
	}
	if b := m.Lend; b != nil {
		n, err := b.check(value)
		if refs += n; err != nil {
			return err
		}
	}
	if b := m.Group; b != nil {
		if err := b.check(); err != nil {
			return err
		}
	}
	if b := m.Ask; b != nil {
		n, err := b.check(value)
		if refs += n; err != nil {
			return err
		}
	}
	if b := m.Saved; b != nil {
		n, err := b.check(value)
		if refs += n; err != nil {
			return err
		}
	}
	if b := m.Reply; b != nil {
		if b.Kind < replyDone || b.Kind > replyAbsent || len(b.Results) > maxPeerResults {
			return fmt.Errorf("a reply that makes no sense: %d, %d results", b.Kind, len(b.Results))
		}
		for i := range b.Results {
			if err := value(&b.Results[i].Value); err != nil {
				return err
			}
			if b.Results[i].Ref != nil {
				refs++
			} else if b.Results[i].Value.Away != 0 {
				return fmt.Errorf("result %d is nowhere", i)
			}
		}
	}
	if b := m.Value; b != nil {
		if err := value(&b.Value); err != nil {
			return err
		}
	}
	if b := m.Took; m.Leaving > leaveBye || b != nil && (b.Fetched < 0 || b.Lost < 0) {
		return fmt.Errorf("a leave that makes no sense: %d", m.Leaving)
	}
	if refs > maxPeerRefs {
		return fmt.Errorf("%d references in one message", refs)
	}
	if b := m.Job; b != nil && (len(b.Modules) == 0 || b.Limits.Handles < 0 || b.Limits.Windows < 0) {
		return fmt.Errorf("a job without modules, or with a limit below nothing")
	}
	if b := m.Output; b != nil && (b.Stream < Stdout || b.Stream > Notice || len(b.Data) > maxPrinted || len(b.Task) > maxName) {
		return fmt.Errorf("output of %d bytes to %d", len(b.Data), b.Stream)
	}
	if b := m.Borrowed; b != nil && b.Grants != 0 && b.Grants != 1 {
		return fmt.Errorf("%d references borrowed", b.Grants)
	}
	for _, g := range m.Release {
		if g.Grants <= 0 {
			return fmt.Errorf("%d references given back", g.Grants)
		}
	}
	return nil
}

func (b *loadBody) load() scheduler.Load {
	return scheduler.Load{Held: wray.Resources{CPU: wray.CPU(b.CPU), Memory: b.Memory}, Custom: customOf(b.Custom)}
}
