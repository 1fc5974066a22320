//go:build linux

package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// pair returns both ends in this process.
func pair(t testing.TB, opt Options) (a, b *Conn) {
	t.Helper()
	a, file, err := Pair(opt)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = FromFile(file, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// serve runs c.Serve and returns its result when the test ends or wait is called.
func serve(t testing.TB, c *Conn, h Handler) (wait func() error) {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- c.Serve(context.Background(), h) }()
	wait = sync.OnceValue(func() error { return <-result })
	t.Cleanup(func() { c.Close(); wait() })
	return wait
}

func refuse(_ context.Context, m Message) (Message, error) {
	return Message{}, fmt.Errorf("unexpected message kind %d", m.Kind)
}

func openFds(t testing.TB) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

func tempFile(t testing.TB, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNotices(t *testing.T) {
	a, b := pair(t, Options{})
	big := bytes.Repeat([]byte("wray"), 1<<20) // larger than any socket buffer
	sent := make(chan error, 1)
	go func() {
		for i, body := range [][]byte{nil, []byte("x"), big} {
			m := Message{Kind: Kind(i), Body: body}
			for j := range i {
				m.Files = append(m.Files, tempFile(t, fmt.Sprintf("file %d", j)))
			}
			if err := a.Send(m); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, want := range [][]byte{nil, []byte("x"), big} {
		m, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != Kind(i) || !bytes.Equal(m.Body, want) || len(m.Files) != i {
			t.Fatalf("message %d: kind %d, %d bytes, %d files", i, m.Kind, len(m.Body), len(m.Files))
		}
		for j, f := range m.Files {
			text, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
			if err != nil || string(text) != fmt.Sprintf("file %d", j) {
				t.Fatalf("file %d reads %q, %v", j, text, err)
			}
		}
		m.CloseFiles()
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := b.Recv(); !errors.Is(err, ErrClosed) || errors.Is(err, ErrProtocol) {
		t.Fatalf("after close: %v", err)
	}
}

// TestHammer makes calls both ways at once, with files, failures and cancels.
func TestHammer(t *testing.T) {
	before := openFds(t)
	a, b := pair(t, Options{MaxCalls: 8, MaxCallBytes: 1 << 20, MaxBody: 256 << 10})
	echo := func(ctx context.Context, m Message) (Message, error) {
		defer m.CloseFiles()
		switch m.Kind {
		case 1:
			return Message{}, &wray.Error{Code: wray.CodeStoreFull, Message: string(m.Body[:8])}
		case 2:
			<-ctx.Done()
			return Message{}, ctx.Err()
		}
		reply := Message{Body: m.Body}
		for range m.Files {
			f, err := os.Open("/dev/null")
			if err != nil {
				return Message{}, err
			}
			reply.Files = append(reply.Files, f)
		}
		return reply, nil
	}
	waitA, waitB := serve(t, a, echo), serve(t, b, echo)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 16 {
		c := []*Conn{a, b}[g%2]
		wg.Go(func() {
			for i := range 60 {
				body := bytes.Repeat([]byte{byte(g), byte(i), 1, 2, 3, 4, 5, 6}, 1+(i*i*37)%(16<<10))
				ctx, cancel := context.WithCancel(context.Background())
				m := Message{Kind: Kind(i % 3), Body: body}
				if i%5 == 0 {
					m.Files = []*os.File{null, null}
				}
				if m.Kind == 2 {
					time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
				}
				r, err := c.Call(ctx, m)
				cancel()
				switch m.Kind {
				case 0:
					if err != nil || !bytes.Equal(r.Body, body) || len(r.Files) != len(m.Files) {
						t.Errorf("call: %d bytes, %d files, %v", len(r.Body), len(r.Files), err)
					}
				case 1:
					var e *wray.Error
					if !errors.As(err, &e) || e.Code != wray.CodeStoreFull {
						t.Errorf("failing call: %v", err)
					}
				case 2:
					if !errors.Is(err, context.Canceled) && !errors.Is(err, wray.ErrCanceled) {
						t.Errorf("canceled call: %v", err)
					}
				}
				r.CloseFiles()
			}
		})
	}
	wg.Wait()
	// Every credit comes back: all can be taken at once. A lost one would hang.
	for _, c := range []*Conn{a, b} {
		for range c.opt.MaxCalls {
			if err := c.out.acquire(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	null.Close()
	a.Close()
	b.Close()
	if err := errors.Join(waitA(), waitB()); err != nil {
		t.Fatal(err)
	}
	if after := openFds(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestCancelReachesHandler(t *testing.T) {
	late := tempFile(t, "late")
	before := openFds(t)
	a, b := pair(t, Options{MaxCalls: 1})
	started, canceled := make(chan struct{}), make(chan struct{})
	serve(t, a, refuse)
	serve(t, b, func(ctx context.Context, m Message) (Message, error) {
		if m.Kind == 1 {
			return Message{Body: []byte("done")}, nil
		}
		close(started)
		<-ctx.Done()
		close(canceled)
		return Message{Files: []*os.File{late}}, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := a.Call(ctx, Message{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-canceled
	// The one credit comes back with the late reply.
	r, err := a.Call(t.Context(), Message{Kind: 1})
	if err != nil || string(r.Body) != "done" {
		t.Fatalf("%q, %v", r.Body, err)
	}
	// The late file was closed on arrival, and by the handler's end once sent.
	a.Close()
	b.Close()
	if after := openFds(t); after >= before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestFailures(t *testing.T) {
	a, b := pair(t, Options{MaxBody: 64 << 10})
	deep := &wray.Error{Code: wray.CodeDependencyFailed, Message: "bottom"}
	for range 100 {
		deep = &wray.Error{Code: wray.CodeDependencyFailed, Cause: deep}
	}
	full := &wray.Error{
		Code: wray.CodeLimitExceeded, Message: "m\xff", Task: "t", Attempt: 2, Node: "n", Trace: "tr", Hint: "h",
		Sentinels: []string{"a", "b"}, Limit: &wray.Limit{Name: "memory", Value: 1 << 40, Unit: "bytes", Flag: "--memory"},
		ExitCode: 3, Cause: &wray.Error{Code: wray.CodePanic},
	}
	serve(t, a, refuse)
	serve(t, b, func(_ context.Context, m Message) (Message, error) {
		switch m.Kind {
		case 0:
			return Message{}, fmt.Errorf("wrapped: %w", full)
		case 1:
			return Message{}, deep
		case 2:
			panic("handler broke")
		case 3:
			return Message{Body: make([]byte, 100<<10)}, nil
		case 4:
			return Message{}, errors.New("plain")
		case 5:
			return Message{}, &wray.Error{Message: strings.Repeat("x", 1<<20), Trace: strings.Repeat("y", 1<<20)}
		case 6:
			closed := tempFile(t, "")
			closed.Close()
			return Message{Files: []*os.File{closed}}, nil
		}
		return Message{}, nil
	})
	for kind, want := range []string{
		"LimitExceeded: m? (limit memory = 1024 GiB, raise it with --memory)",
		"DependencyFailed", "handler broke", "too large", "Internal: plain", "Internal: xxx", "not sent",
	} {
		_, err := a.Call(t.Context(), Message{Kind: Kind(kind)})
		var e *wray.Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), want) {
			t.Errorf("kind %d: %.200v, want %q", kind, err, want)
			continue
		}
		if kind == 0 && (e.Sentinels[1] != "b" || e.Limit.Flag != "--memory" || e.ExitCode != 3 || e.Cause.Code != wray.CodePanic || e.Trace != "tr") {
			t.Errorf("lost fields: %+v", e)
		}
	}
	if _, err := a.Call(t.Context(), Message{Kind: 7}); err != nil {
		t.Fatal("the link did not survive:", err)
	}
	if _, err := a.Call(t.Context(), Message{Body: make([]byte, 65<<10)}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestCloseAwaitsAndFailsEverything(t *testing.T) {
	a, b := pair(t, Options{MaxCalls: 4})
	var running atomic.Int32
	entered := make(chan struct{}, 16)
	waitA := serve(t, a, refuse)
	waitB := serve(t, b, func(ctx context.Context, _ Message) (Message, error) {
		running.Add(1)
		defer running.Add(-1)
		entered <- struct{}{}
		<-ctx.Done()
		return Message{}, ctx.Err()
	})
	errs := make(chan error, 8)
	for range 8 { // four in flight, four wait for credit
		go func() {
			_, err := a.Call(context.Background(), Message{})
			errs <- err
		}()
	}
	for range 4 {
		<-entered
	}
	for range 3 {
		go b.Close()
	}
	b.Close()
	if n := running.Load(); n != 0 {
		t.Errorf("%d handlers still run after Close", n)
	}
	for range 8 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	if err := errors.Join(waitA(), waitB()); err != nil {
		t.Error(err)
	}
	a.Close()
	a.Close()
	if err := a.Send(Message{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := a.Call(t.Context(), Message{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	<-a.Done()
}

func TestServeEndsWithContext(t *testing.T) {
	a, b := pair(t, Options{})
	waitB := serve(t, b, refuse)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- a.Serve(ctx, refuse) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := waitB(); err != nil {
		t.Error(err)
	}
}

func TestNoticeErrorEndsLink(t *testing.T) {
	a, b := pair(t, Options{})
	wait := serve(t, b, refuse)
	if err := a.Send(Message{Kind: 9}); err != nil {
		t.Fatal(err)
	}
	if err := wait(); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "kind 9") {
		t.Error(err)
	}
}

// TestStuckPeer holds that a peer which does not read ends the link, not the
// sender.
func TestStuckPeer(t *testing.T) {
	a, _ := pair(t, Options{WriteTimeout: 20 * time.Millisecond})
	var err error
	for err == nil {
		err = a.Send(Message{Body: make([]byte, 1<<20)})
	}
	if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "has read nothing") {
		t.Error(err)
	}
}

func TestCloseEndsBlockedSend(t *testing.T) {
	a, _ := pair(t, Options{})
	result := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			err = a.Send(Message{Body: make([]byte, 1<<20)})
			if i == 0 {
				close(first)
			}
		}
		result <- err
	}()
	runtime.Gosched()
	select {
	case <-first:
	case <-time.After(10 * time.Millisecond): // already blocked in the first
	}
	a.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestUnmarshalIsStrict(t *testing.T) {
	type T struct {
		A int      `cbor:"1,keyasint"`
		B []string `cbor:"2,keyasint,omitempty"`
		C any      `cbor:"3,keyasint,omitempty"`
	}
	good, err := Marshal(T{A: 1, B: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := Unmarshal(good, &v); err != nil || v.A != 1 || v.B[0] != "x" {
		t.Fatal(v, err)
	}
	for name, body := range map[string]string{
		"empty":          "",
		"trailing":       string(good) + "\x00",
		"unknown field":  "\xa1\x09\x01",
		"repeated field": "\xa2\x01\x01\x01\x02",
		"indefinite":     "\xbf\x01\x01\xff",
		"tag":            "\xa1\x01\xc1\x01",
		"bad UTF-8":      "\xa1\x02\x81\x61\xff",
		"wrong type":     "\xa1\x01\x61x",
		"deep":           "\xa1\x03" + strings.Repeat("\x81", 40) + "\x00",
		"wide":           "\xa1\x03\x9a\x00\x02\x00\x01" + strings.Repeat("\x00", 1<<17+1),
		"claimed length": "\xa1\x03\x9a\x7f\xff\xff\xff",
		"float for int":  "\xa1\x01\xf9\x3c\x01",
	} {
		var v T
		if err := Unmarshal([]byte(body), &v); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{0, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			x, y := pair(b, Options{})
			serve(b, x, refuse)
			serve(b, y, func(_ context.Context, m Message) (Message, error) { return Message{}, nil })
			body := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := x.Call(context.Background(), Message{Body: body}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
