package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// commands of a client, as they travel.
type commands []byte

func (c *commands) add(op clientwire.Op, a, b uint32, mem []byte) *commands {
	*c = clientwire.Append(*c, op, a, b, mem)
	return c
}

func le(xs ...uint32) []byte {
	b := make([]byte, 4*len(xs))
	for i, x := range xs {
		putU32(b, 4*i, x)
	}
	return b
}

// clientValue is a struct value and its payload, as a record's memory.
func clientValue(e abi.Encoding, p []byte, refs ...uint32) []byte {
	at := uint32(abi.ValueSize + len(p))
	return append(append(le(uint32(e), 0, abi.ValueSize, uint32(len(p)), at, uint32(len(refs))), p...), le(refs...)...)
}

// spec is a submission of function 1 of the tiny guest.
func spec(result uint32, args ...uint32) []byte {
	b := make([]byte, abi.SpecSize)
	putU32(b, abi.SpecFn, 1)
	putU32(b, abi.SpecNresults, 1)
	putU32(b, abi.SpecResultsPtr, abi.SpecSize)
	putU32(b, abi.SpecArgsPtr, abi.SpecSize+4)
	putU32(b, abi.SpecNargs, uint32(len(args)))
	b = append(b, le(result)...)
	for _, h := range args {
		a := make([]byte, abi.ArgSize)
		putU32(a, abi.ArgKind, abi.ArgKindHandle)
		putU32(a, abi.ArgHandle, h)
		b = append(b, a...)
	}
	return b
}

// session is a client's end of a session of the tiny guest's job.
type session struct {
	t    *testing.T
	conn *link.Conn
	got  []clientwire.Record
	done chan error
}

func (h *jobs) session(t *testing.T) (*session, func() error) {
	g, stop := h.start(t)
	g.close()
	conn, file, err := link.Pair(clientwire.SessionOptions())
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: conn, done: make(chan error, 1)}
	go func() { s.done <- g.job.runClient(context.Background(), file) }()
	if r := s.answer(); r.Op != clientwire.OpWelcome {
		t.Fatalf("the first answer is %+v", r)
	}
	return s, func() error {
		g.job.driver.Store(nil)
		return stop()
	}
}

func (s *session) send(c *commands, files ...*os.File) {
	s.t.Helper()
	if err := s.conn.Send(link.Message{Kind: clientwire.KindCommands, Body: *c, Files: files}); err != nil {
		s.t.Fatal(err)
	}
}

// answer returns the next answer; of a file that came with it, only that one
// did.
func (s *session) answer() clientwire.Record {
	s.t.Helper()
	for len(s.got) == 0 {
		m, err := s.conn.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		m.CloseFiles()
		for b := m.Body; len(b) > 0; {
			r, rest, err := clientwire.Next(b)
			if err != nil {
				s.t.Fatal(err)
			}
			s.got, b = append(s.got, r), rest
		}
	}
	r := s.got[0]
	s.got = s.got[1:]
	return r
}

// TestClient puts, names, submits and reads in one batch, and leaves with all of
// it held.
func TestClient(t *testing.T) {
	h := newJobs(t, tinyGuest())
	s, stop := h.session(t)
	var c commands
	c.add(clientwire.OpFunction, 0, 1, clientwire.AppendText(clientwire.AppendText(nil, ""), "f"))
	c.add(clientwire.OpPut, 7, 0, clientValue(abi.EncodingRaw, []byte("seven")))
	c.add(clientwire.OpPut, 3, 0, clientValue(abi.EncodingCBOR, []byte{0xa0}, 7, 7))
	c.add(clientwire.OpGet, 7, 2, nil)
	c.add(clientwire.OpRefs, 3, 2, le(20, 21))
	c.add(clientwire.OpGet, 21, 3, nil)
	c.add(clientwire.OpSubmit, 0, 0, spec(30, 3))
	c.add(clientwire.OpSubmit, 0, 0, spec(31, 99)) // of no handle
	c.add(clientwire.OpDrop, 0, 1, le(7))
	c.add(clientwire.OpPut, 7, 0, clientValue(abi.EncodingRaw, nil))
	c.add(clientwire.OpGet, 30, 4, nil)
	c.add(clientwire.OpGet, 31, 5, nil)
	c.add(clientwire.OpPing, 0, 6, nil)
	s.send(&c)
	seen := map[uint32]clientwire.Record{}
	for len(seen) < 6 {
		r := s.answer()
		seen[r.B] = r
	}
	if r := seen[1]; r.Op != clientwire.OpDone || r.A != 1 || u32(r.Mem, 0) != 0 {
		t.Errorf("function: %+v", r)
	}
	for _, b := range []uint32{2, 3} {
		if r := seen[b]; r.Op != clientwire.OpValue || !bytes.HasPrefix(r.Mem[abi.InfoSize:], []byte("seven")) {
			t.Errorf("value %d: %+v", b, r)
		}
	}
	// The tiny guest gives no result, and handle 99 is none.
	for _, b := range []uint32{4, 5} {
		if r := seen[b]; r.Op != clientwire.OpValue || abi.Encoding(u32(r.Mem, 0)) != abi.EncodingError {
			t.Errorf("failure %d: %+v", b, r)
		}
	}
	m := h.w.Memory(clientwire.MemoryBody{})
	held := int64(0)
	for _, o := range m.Objects {
		for _, l := range o.Holders {
			if l.Kind == clientwire.HolderClient {
				held += l.Count
			}
		}
	}
	if held != 6 || m.Leaked != 0 { // 3, 7, 20, 21, 30, 31
		t.Errorf("the client holds %d: %+v", held, m)
	}
	s.conn.Close()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if m := h.w.Memory(clientwire.MemoryBody{}); m.Count != 0 {
		t.Errorf("left behind: %+v", m)
	}
}

// TestClientStatAndFree asks for an object, a result that is not there and no
// object, frees them, and reads what was freed.
func TestClientStatAndFree(t *testing.T) {
	h := newJobs(t, tinyGuest())
	s, stop := h.session(t)
	var c commands
	c.add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingRaw, []byte("gone")))
	c.add(clientwire.OpStat, 1, 1, nil).add(clientwire.OpStat, 9, 2, nil)
	c.add(clientwire.OpFree, 1, 3, nil).add(clientwire.OpFree, 9, 4, nil)
	c.add(clientwire.OpStat, 1, 5, nil).add(clientwire.OpGet, 1, 6, nil)
	s.send(&c)
	errno := func(r clientwire.Record, op clientwire.Op, want abi.Errno) {
		t.Helper()
		if r.Op != op || op == clientwire.OpDone && abi.Errno(u32(r.Mem, 0)) != want {
			t.Errorf("answer %d: %+v, want %v", r.B, r, want)
		}
	}
	got := map[uint32]clientwire.Record{}
	for range 6 {
		r := s.answer()
		got[r.B] = r
	}
	errno(got[2], clientwire.OpDone, abi.EBADF)
	errno(got[3], clientwire.OpDone, abi.Success)
	errno(got[4], clientwire.OpDone, abi.EBADF)
	for b, want := range map[uint32]uint32{1: abi.StateSealed, 5: abi.StateFailed} {
		errno(got[b], clientwire.OpStatus, 0)
		if m := got[b].Mem; len(m) < abi.StatSize || b == 5 && u32(m, abi.StatState) != want {
			t.Errorf("stat %d: %+v, want state %d", b, got[b], want)
		}
	}
	if r := got[6]; r.Op != clientwire.OpValue || abi.Encoding(u32(r.Mem, 0)) != abi.EncodingError {
		t.Errorf("the value that was freed: %+v", r)
	}
	s.conn.Close()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if m := h.w.Memory(clientwire.MemoryBody{}); m.Count != 0 {
		t.Errorf("left behind: %+v", m)
	}
}

// TestClientMustMakeSense ends sessions of clients that send what none sends.
func TestClientMustMakeSense(t *testing.T) {
	h := newJobs(t, tinyGuest())
	for name, c := range map[string]*commands{
		"no handle":     new(commands).add(clientwire.OpGet, 1, 1, nil),
		"handle 0":      new(commands).add(clientwire.OpPut, 0, 0, clientValue(abi.EncodingRaw, nil)),
		"far handle":    new(commands).add(clientwire.OpPut, 1<<32-1, 0, clientValue(abi.EncodingRaw, nil)),
		"used handle":   new(commands).add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingRaw, nil)).add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingRaw, nil)),
		"no file":       new(commands).add(clientwire.OpPutFile, 1, 1, clientValue(abi.EncodingRaw, nil)),
		"no memory":     new(commands).add(clientwire.OpPut, 1, 0, nil),
		"payload":       new(commands).add(clientwire.OpPut, 1, 0, le(1, 0, 8, 1<<31, 0, 0)),
		"error value":   new(commands).add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingError, nil)),
		"no refs":       new(commands).add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingRaw, nil, 9)),
		"drop":          new(commands).add(clientwire.OpDrop, 0, 1, le(5)),
		"unmap":         new(commands).add(clientwire.OpUnmap, 0, 1, le(5)),
		"watch":         new(commands).add(clientwire.OpWatch, 0, 0, le(5, 5)),
		"stream":        new(commands).add(clientwire.OpPut, 1, 0, clientValue(abi.EncodingRaw, nil)).add(clientwire.OpNext, 1, 1, le(2)),
		"results":       new(commands).add(clientwire.OpSubmit, 0, 0, make([]byte, abi.SpecSize)),
		"short":         new(commands).add(clientwire.OpSubmit, 0, 0, nil),
		"name":          new(commands).add(clientwire.OpFunction, 0, 1, le(1<<31)),
		"unknown":       new(commands).add(99, 0, 0, nil),
		"header":        {1, 2, 3},
		"record length": {255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		s, stop := h.session(t)
		s.send(c)
		var e *wray.Error
		if err := <-s.done; !errors.As(err, &e) || e.Code != wray.CodeBadArgument {
			t.Errorf("%s: the session ended with %v", name, err)
		}
		if r := s.answer(); r.Op != clientwire.OpEnd {
			t.Errorf("%s: the last answer is %+v", name, r)
		}
		s.conn.Close()
		if err := stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClientPutsManyFiles has a client put large values into a full store until
// it may have no more wait. It is told so, and the worker has no more files.
func TestClientPutsManyFiles(t *testing.T) {
	h := newJobs(t, tinyGuest(), func(c *Config) { c.StoreBytes, c.FullAfter = 4<<20, time.Hour })
	s, stop := h.session(t)
	const n = clientwire.MaxInline
	payload, err := os.CreateTemp(t.TempDir(), "") // is looked at where there is room
	if err != nil {
		t.Fatal(err)
	}
	defer payload.Close()
	full, err := h.w.store.TryPut(h.w.newID(), objectstore.Value{Encoding: abi.EncodingRaw, Payload: make([]byte, 4<<20-64<<10)})
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	send := func(i uint32) error {
		value := make([]byte, abi.ValueSize)
		putU32(value, abi.ValueEncoding, uint32(abi.EncodingRaw))
		putU32(value, abi.ValuePtr, n)
		return s.conn.Send(link.Message{Kind: clientwire.KindCommands, Body: *new(commands).add(clientwire.OpPutFile, 100+i, i, value), Files: []*os.File{payload}})
	}
	go func() {
		var err error
		for i := uint32(0); i < maxLateFiles+3 && err == nil; i++ {
			err = send(i)
		}
		sent <- err
	}()
	for refused := 0; refused < 3; {
		switch r := s.answer(); {
		case r.Op != clientwire.OpDone: // that the store is full
		case r.B < maxLateFiles:
			t.Fatalf("value %d was answered with errno %d", r.B, r.A)
		default:
			refused++
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	s.conn.Close()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	full.Release()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// FuzzClient gives the worker any batch of a client. It carries it out or ends
// the session, and keeps nothing of it.
func FuzzClient(f *testing.F) {
	var c commands
	c.add(clientwire.OpPut, 7, 0, clientValue(abi.EncodingRaw, []byte("seven")))
	c.add(clientwire.OpPut, 3, 0, clientValue(abi.EncodingCBOR, []byte{0xa0}, 7, 7))
	c.add(clientwire.OpRefs, 3, 2, le(20, 21)).add(clientwire.OpGet, 7, 2, nil)
	c.add(clientwire.OpWatch, 0, 0, le(7, 9)).add(clientwire.OpDrop, 0, 1, le(7))
	f.Add([]byte(c))
	var d commands
	d.add(clientwire.OpSubmit, 0, 0, spec(30, 3)).add(clientwire.OpGet, 30, 1, nil).add(clientwire.OpCancel, 30, 0, nil)
	d.add(clientwire.OpKill, 30, 3, le(0)).add(clientwire.OpActor, 4, 4, clientwire.AppendText(nil, "x"))
	d.add(clientwire.OpStat, 30, 7, nil).add(clientwire.OpFree, 30, 8, nil).add(clientwire.OpStat, 99, 9, nil)
	d.add(clientwire.OpFunction, 0, 1, clientwire.AppendText(clientwire.AppendText(nil, ""), "f"))
	d.add(clientwire.OpNext, 1, 5, le(8)).add(clientwire.OpPing, 0, 6, nil).add(clientwire.OpBye, 0, 0, nil)
	f.Add([]byte(d))
	h := newJobs(f, tinyGuest())
	var mu sync.Mutex
	f.Fuzz(func(t *testing.T, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		g, stop := h.start(t)
		g.close()
		conn, file, err := link.Pair(clientwire.SessionOptions())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- g.job.runClient(context.Background(), file) }()
		go func() {
			_ = conn.Send(link.Message{Kind: clientwire.KindCommands, Body: body})
			_ = conn.Send(link.Message{Kind: clientwire.KindCommands, Body: clientwire.Append(nil, clientwire.OpBye, 0, 0, nil)})
		}()
		for {
			m, err := conn.Recv()
			m.CloseFiles()
			if err != nil {
				break
			}
		}
		var e *wray.Error
		if err := <-done; err != nil && !errors.As(err, &e) {
			t.Errorf("the session ended with %v", err)
		}
		conn.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
