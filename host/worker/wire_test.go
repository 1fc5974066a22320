package worker

import (
	"bytes"
	"context"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// bodies has one filled body of every kind of message.
func bodies() []any {
	return []any{
		&StartBody{Node: "n", CacheDir: "/c", CPU: -1, Memory: math.MaxInt64, StoreBytes: math.MinInt64, Slots: 3, Custom: []CustomBody{{"gpu", 1}}},
		&StartedBody{Jail: "none", Peer: math.MaxUint64},
		&RunBody{Run: math.MaxUint64, Name: "j", Modules: []ModuleBody{{"m", "/c/m", ""}}, Args: []string{"", "a"}, Env: []string{"k=v"},
			Dirs: []DirBody{{"/d", true}}, Stdin: true, Memory: 1, Stack: math.MinInt32, Files: 2, Timeout: 3},
		&RanBody{ExitCode: -1},
		&StatsBody{Waiting: 1, Running: 2, Finished: 3, Failed: 4, Replaced: 5, OnDisk: 6, Spilled: math.MaxInt64, Restored: 8, Lost: 9,
			Resident: 10, Asleep: 11, AsleepBytes: 12, AsleepOnDisk: 13, Undrained: 14},
		&OutputBody{Run: 1, Task: "t", Stream: Stderr, Data: []byte{0, 0xff}},
		&FSBody{Run: 1, Dir: -1, Op: FSRename, Path: []byte{0xff, '/'}, Path2: []byte("b"), Flags: math.MaxUint32, Follow: true,
			Atim: wasi.OmitTime, Mtim: math.MaxInt64},
		&FSReply{Errno: math.MaxUint16, Stat: wasi.Filestat{Dev: 1, Ino: math.MaxUint64, Type: 255, Size: 2}, Text: []byte("t")},
		&PeerSendBody{Pieces: []PeerPiece{{Peer: 1, More: true, Data: []byte{1}}, {Peer: math.MaxUint64, Data: []byte{}}}},
		&PeerFetchBody{Peer: 1, Owner: math.MaxUint64, Seq: 3, Off: math.MinInt64, Len: math.MaxInt64},
		&clientwire.ExplainBody{What: "t", Most: math.MaxInt64},
		&ExplainedBody{Known: []KnownNode{{Name: "n", CPU: -1, Memory: math.MaxInt64}}, Explained: clientwire.Explained{Node: "n", MoreJobs: 1, More: 2,
			Unseen: 3, MoreCalls: 4, MoreOthers: 5, Idle: "idle", Others: []clientwire.OtherNode{{Node: "o", Why: "dead"}},
			Tasks: []clientwire.Wait{{Job: 1, Name: "t", Actor: true, State: clientwire.WaitQueued, Count: 9, Seconds: 8, Strategy: "spread", Labels: []string{"a=b"},
				Wants: []clientwire.Resource{{Name: "CPU", Total: 1}}, Never: true, MoreNodes: 7, MoreFor: 6, Why: "w", Again: true,
				Nodes: []clientwire.NodeVerdict{{Node: "n", Never: true, Why: "w", Fails: []clientwire.Fail{{Constraint: "cpu", Name: "x", Need: 3, Has: 2, Free: 1, Never: true}}}},
				For:   []clientwire.WaitFor{{Object: "o", Task: "t", Actor: "a", State: "s", Node: "n", Again: true}}}},
			Actors: []clientwire.ActorWait{{Calls: 3, Start: "queued", For: []clientwire.WaitFor{{Object: "o"}}}}}},
		&DemandBody{Most: 1, Set: true, Promises: []PromiseBody{{Name: "g", CPU: -1, Memory: math.MaxInt64, Custom: []CustomBody{{"x", 1}}, Labels: []LabelBody{{"k", "v"}}}}},
		&DemandsBody{Shapes: []ShapeBody{{CPU: 1, Memory: 2, Custom: []CustomBody{{"x", 1}}, Place: "spread\x00\x00", Count: 3}}, CPU: 4, Memory: 5, Custom: []CustomBody{{"x", 6}}, Tasks: 7},
		&PeerModuleBody{Peer: 1, Hash: "00"},
		&PeerEventsBody{Events: []PeerEvent{{Peer: 1, What: PeerIsUp, Node: "n"}, {Peer: 2, What: PeerSent, More: true, Data: []byte{2}}}},
	}
}

// FuzzBodies decodes any bytes as each kind of message. What is accepted can be
// sent again, and means the same.
func FuzzBodies(f *testing.F) {
	for i, v := range bodies() {
		b, err := link.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
		f.Add(uint8(i), b[:len(b)-1])
	}
	f.Add(uint8(2), []byte{0xa1, 4, 0x9b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}) // 2^32-1 arguments
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		all := bodies()
		of := reflect.TypeOf(all[int(kind)%len(all)]).Elem()
		v, again := reflect.New(of).Interface(), reflect.New(of).Interface()
		if err := link.Unmarshal(body, v); err != nil {
			if !errors.Is(err, link.ErrProtocol) {
				t.Errorf("an untyped error: %v", err)
			}
			return
		}
		b, err := link.Marshal(v)
		if err != nil {
			t.Fatalf("%+v cannot be sent: %v", v, err)
		}
		if err := link.Unmarshal(b, again); err != nil {
			t.Fatalf("%+v was sent as what nobody takes: %v", v, err)
		}
		if c, err := link.Marshal(again); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%+v became %+v", v, again)
		}
	})
}

// TestBodiesKeepEveryField catches two fields with one key.
func TestBodiesKeepEveryField(t *testing.T) {
	for _, v := range bodies() {
		b, err := link.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := link.Unmarshal(b, got); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%+v became %+v, %v", v, got, err)
		}
	}
}

// FuzzServe gives a worker any message before and after its start. It answers
// each, and never with a job that ran.
func FuzzServe(f *testing.F) {
	for i, v := range bodies() {
		b, err := link.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(i), b, false)
		f.Add(uint16(i), b, true)
	}
	f.Add(uint16(KindStats), []byte(nil), true)
	f.Add(uint16(KindMemory), []byte{0xf6}, true)
	f.Add(uint16(KindExplain), []byte{0xa0}, true)
	f.Add(uint16(KindExplain), []byte{0xa1, 1, 0x61, 'x'}, true) // of what is not there
	f.Add(uint16(KindDemand), []byte{0xa0}, true)
	f.Add(uint16(KindRun), []byte{0xa0}, true) // a job without modules
	w := newJobs(f, tinyGuest()).w
	f.Fuzz(func(t *testing.T, kind uint16, body []byte, started bool) {
		s := &server{}
		if started {
			s.w = w
		} else if link.Kind(kind) == KindStart {
			return // what a node says to a worker it starts is the node's
		}
		m, err := s.handle(context.Background(), link.Message{Kind: link.Kind(kind), Body: body})
		tells := link.Kind(kind) == KindStats || link.Kind(kind) == KindMemory || link.Kind(kind) == KindExplain || link.Kind(kind) == KindDemand
		if err == nil && !(tells && started) {
			t.Errorf("message %d, started %v, gave %x", kind, started, m.Body)
		}
	})
}
