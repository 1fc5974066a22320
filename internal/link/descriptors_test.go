//go:build linux

package link

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray"
	"golang.org/x/sys/unix"
)

// exhaust takes every descriptor that this process may have but n, until the
// function that it returns is called.
func exhaust(t *testing.T, n int) (free func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = uint64(openFds(t) + 64)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for range n {
		unix.Close(taken[len(taken)-1])
		taken = taken[:len(taken)-1]
	}
	return func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that has no descriptors left says so of the message that came with
// some, and takes the peer for no liar: the link goes on.
func TestNoDescriptors(t *testing.T) {
	var got atomic.Int32
	a, b := pair(t, Options{})
	serve(t, b, func(_ context.Context, m Message) (Message, error) {
		got.Add(1)
		m.CloseFiles()
		return Message{Body: m.Body}, nil
	})
	serve(t, a, refuse)
	f := tempFile(t, "x")
	files := []*os.File{f, f, f}
	for _, room := range []int{0, 2} {
		free := exhaust(t, room)
		_, err := a.Call(t.Context(), Message{Body: []byte("with files"), Files: files})
		_, plain := a.Call(t.Context(), Message{Body: []byte("without")})
		free()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit == nil || e.Limit.Name != "descriptors" {
			t.Errorf("with %d descriptors for 3 files: %v", room, err)
		}
		if plain != nil {
			t.Errorf("a call without files: %v", plain)
		}
	}
	if _, err := a.Call(t.Context(), Message{Files: files}); err != nil {
		t.Errorf("with descriptors again: %v", err)
	}
	if got := got.Load(); got != 3 {
		t.Errorf("%d calls were handled", got)
	}
}

// counted are descriptors of which there are so many.
type counted struct{ free chan struct{} }

func (c counted) Take(n int) error {
	for i := range n {
		select {
		case <-c.free:
		default:
			c.Give(i)
			return wray.Errorf(wray.CodeLimitExceeded, "no more")
		}
	}
	return nil
}

func (c counted) Give(n int) {
	for range n {
		c.free <- struct{}{}
	}
}

// Files of calls that have no answer are bounded, and closed where they pass the
// bound, as are those of answers; calls without files go on.
func TestDescriptorsOfCalls(t *testing.T) {
	d := counted{make(chan struct{}, 4)}
	d.Give(4)
	parent, child, err := Pair(Options{})
	if err != nil {
		t.Fatal(err)
	}
	served, err := FromFile(child, Options{Descriptors: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Close(); served.Close() })
	f := tempFile(t, "x")
	hold, held := make(chan struct{}), make(chan struct{}, 8)
	serve(t, served, func(_ context.Context, m Message) (Message, error) {
		if m.Kind == 2 {
			g, err := os.Open(f.Name())
			return Message{Files: []*os.File{g}}, err
		}
		defer m.CloseFiles()
		if len(m.Files) > 0 {
			held <- struct{}{}
			<-hold
		}
		return Message{}, nil
	})
	serve(t, parent, refuse)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := parent.Call(context.Background(), Message{Kind: 1, Files: []*os.File{f, f}})
			done <- err
		}()
		<-held
	}
	before := openFds(t)
	for _, m := range []Message{{Kind: 1, Files: []*os.File{f}}, {Kind: 2}} {
		if _, err := parent.Call(t.Context(), m); !errors.Is(err, wray.ErrLimitExceeded) {
			t.Errorf("a fifth file: %v", err)
		}
	}
	if n := openFds(t); n != before {
		t.Errorf("%d descriptors were open before what was refused, %d after", before, n)
	}
	if _, err := parent.Call(t.Context(), Message{Kind: 1}); err != nil {
		t.Errorf("without files: %v", err)
	}
	close(hold)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	m, err := parent.Call(t.Context(), Message{Kind: 2})
	if err != nil {
		t.Errorf("when they were given back: %v", err)
	}
	m.CloseFiles()
	parent.Close()
	served.Close()
	if len(d.free) != 4 {
		t.Errorf("%d of 4 came back", len(d.free))
	}
}
