package worker

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// deaf is a network in which nobody answers.
type deaf struct {
	mu   sync.Mutex
	sent [][]byte // guarded by mu
}

func (d *deaf) Send(_ scheduler.PeerID, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, p)
}

func (d *deaf) Fetch(context.Context, scheduler.PeerID, wray.ID, int64, []byte) error {
	return wray.Errorf(wray.CodeObjectLost, "nobody has it")
}

func (d *deaf) Fill(scheduler.PeerID, wray.ID, *os.File, int64) error {
	return errors.New("nobody has it")
}

func (d *deaf) Unsent(scheduler.PeerID) int64 { return 0 }

func (d *deaf) Sever(scheduler.PeerID, string) {}

func (d *deaf) Module(context.Context, scheduler.PeerID, string, string) (ModuleSpec, error) {
	return ModuleSpec{}, wray.Errorf(wray.CodeInternal, "nobody has it")
}

// FuzzPeerMessage has a subverted peer say anything: the worker may refuse it,
// and must neither crash nor keep anything when the peer is gone.
func FuzzPeerMessage(f *testing.F) {
	const peerID = 7
	id := func(owner, seq uint64) idBody { return idBody{owner, seq} }
	name := "it"
	value := valueBody{Encoding: uint32(abi.EncodingCBOR), Payload: []byte{1}, Refs: []refBody{{ID: id(peerID, 5)}, {ID: id(9, 5), Transit: 3}}}
	for _, m := range []peerMessage{
		{Hello: &helloBody{CPU: 20_000, Memory: 1 << 30, Custom: []CustomBody{{"gpu", 10_000}}, Labels: []LabelBody{{"zone", "west"}}}},
		{Load: &loadBody{CPU: -5, Memory: 5, Custom: []CustomBody{{"gpu", 1}}}},
		{Job: &jobBody{ID: id(peerID, 4096), Name: "j", Modules: []jobModule{{"m", "h"}}, Output: true}},
		{Lend: &lendBody{Job: id(peerID, 4096), Task: id(peerID, 8192), Attempt: 1, Name: "t", Module: "m", Func: "f", CPU: 10_000, Results: 1,
			Args: []argBody{{Value: valueBody{Encoding: 1, Payload: []byte("x")}}, {Value: value, Ref: &refBody{ID: id(peerID, 9)}},
				{Value: valueBody{Encoding: 1, Away: 1 << 20}, Ref: &refBody{ID: id(9, 9), Transit: 1}}}}},
		{Reply: &replyBody{Task: id(1, 4096), Attempt: 1, Kind: replyDone, Results: []resultBody{{Value: value, Ref: &refBody{ID: id(peerID, 77)}}}}},
		{Stop: &stopBody{Task: id(peerID, 8192), Attempt: 1, Code: 6}},
		{EndJob: &idBody{peerID, 4096}, Kept: []uint64{1, 2}, Release: []grantBody{{id(1, 1), 1}}},
		{Output: &printedBody{Job: id(1, 4096), Task: "t", Stream: Stdout, Data: []byte("hello")}},
		{Value: &objectBody{id(peerID, 5), value}, Await: []idBody{id(1, 1)}, Borrow: &idBody{1, 1}, Borrowed: &grantBody{id(9, 5), 1}},
		{Cancel: &idBody{1, 4097}},
		{Lend: &lendBody{Job: id(peerID, 4096), Task: id(peerID, 8192), Attempt: 1, Name: "a", Module: "m", Func: "f", Results: 1,
			Make: &makeBody{Width: 4, Idle: 5, Calls: 1}, Args: []argBody{{Ref: &refBody{ID: id(peerID, 9), Actor: true}}}}},
		{Lend: &lendBody{Job: id(peerID, 4096), Task: id(peerID, 12288), Attempt: 1, Name: "c", Module: "m", Func: "g", Results: 1,
			Call: &callBody{Actor: id(peerID, 8192), Attempt: 1, From: 3}, Args: []argBody{{Ref: &refBody{ID: id(9, 9), Transit: 4}}}}},
		{Lend: &lendBody{Job: id(1, 4096), Task: id(peerID, 16384), Attempt: 1, Name: "c", Module: "m", Func: "g", Results: 1,
			Call: &callBody{Actor: id(1, 1), From: 3, Key: "k"}}},
		{Reply: &replyBody{Task: id(1, 4096), Attempt: 1, Kind: replyLives}},
		{Reply: &replyBody{Task: id(1, 4096), Attempt: 1, Kind: replyGone, Err: []byte{0xa0}}},
		{Lend: &lendBody{Job: id(peerID, 4096), Task: id(peerID, 8192), Attempt: 2, Name: "a", Module: "m", Func: "f", Results: 1,
			Make: &makeBody{Calls: 1, Last: &argBody{Value: valueBody{Encoding: uint32(abi.EncodingRaw), Payload: []byte{0xa0}, Refs: value.Refs}, Ref: &refBody{ID: id(peerID, 9)}}}}},
		{Saved: &savedBody{Task: id(1, 4096), Attempt: 1, N: 1, State: argBody{Value: valueBody{Encoding: uint32(abi.EncodingRaw), Away: 1 << 20, Refs: value.Refs}, Ref: &refBody{ID: id(peerID, 9)}}}},
		{Reply: &replyBody{Task: id(1, 4096), Attempt: 1, Kind: replyDone, Saved: 1}},
		{Ask: &askBody{N: 1, Job: id(1, 4096), Find: &name}, Answer: &answerBody{N: 1, Ref: &refBody{ID: id(peerID, 8193), Actor: true}}},
		{Ask: &askBody{N: 2, Job: id(1, 4096), Kill: &killBody{Actor: id(1, 1)}}},
		{Ask: &askBody{N: 3, Job: id(1, 4096), Make: &lendBody{Job: id(1, 4096), Task: id(peerID, 4096), Attempt: 1, Name: "a", Module: "m", Func: "f",
			Results: 1, Make: &makeBody{Restarts: 3, Place: []byte("node\x00a\x00where\x00!spot\x00")}, Args: []argBody{{Value: value, Ref: &refBody{ID: id(peerID, 9)}}}}}},
		{Group: &groupBody{Kind: 1, Group: id(peerID, 4097), Job: id(peerID, 4096), Round: 1, Bundles: []int{0, 5},
			Spec: []byte("strategy\x00pack\x00bundle\x00\x00cpu\x000.5\x00bundle\x00\x00cpu\x009\x00")}},
		{Group: &groupBody{Kind: 2, Group: id(peerID, 4097), Job: id(peerID, 4096), Round: 1, At: []uint64{peerID, 3},
			Spec: []byte("strategy\x00spread\x00bundle\x00\x00cpu\x000.5\x00bundle\x00\x00resource\x001 gpu\x00")}},
		{Group: &groupBody{Kind: 8, Group: id(1, 4097), Job: id(1, 4096)}, Lend: &lendBody{Job: id(peerID, 4096), Task: id(peerID, 8192), Attempt: 1,
			Name: "t", Module: "m", Func: "f", Results: 1, Group: &refBody{ID: id(peerID, 4097), Group: true}, Bundle: 1}},
	} {
		b, err := link.Marshal(&m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	ctx := context.Background()
	w, err := New(ctx, Config{StoreBytes: 1 << 20, Slots: 1, Peering: &deaf{}, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := w.Close(ctx); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		w.PeerUp(peerID, "liar")
		for _, b := range [][]byte{first, second} {
			if err := w.PeerMessage(peerID, b); err != nil {
				break // it is down
			}
		}
		w.PeerDown(peerID)
		e := &twinEnd{node: "here", w: w}
		awaitNothing(t, e)
	})
}
