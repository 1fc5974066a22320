//go:build !wasip1

package rt

import (
	"testing"
	"time"

	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// TestFlusher holds that the flusher is woken once for all that is said before
// it comes, whoever sends that meanwhile, and that what nobody sends goes out
// when it has come, however seldom it comes by then.
func TestFlusher(t *testing.T) {
	conn, file, err := link.Pair(clientwire.SessionOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := link.FromFile(file, clientwire.SessionOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	s := &Session{conn: conn, wake: make(chan struct{}, 1), lost: make(chan struct{})}
	say := func(n uint32) {
		if err := s.say(func() error {
			s.out = clientwire.Append(s.out, clientwire.OpDrop, n, 0, nil)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(n uint32) {
		t.Helper()
		m, err := peer.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r, rest, err := clientwire.Next(m.Body); err != nil || r.A != n || len(rest) > 0 {
			t.Fatalf("received %+v and %d bytes (%v), want command %d alone", r, len(rest), err, n)
		}
	}
	say(0)
	select {
	case <-s.wake:
	default:
		t.Fatal("the first command woke nobody")
	}
	for n := range uint32(10) {
		s.flush() // as one does who waits for an answer
		receive(n)
		say(n + 1)
		select {
		case <-s.wake:
			t.Fatalf("command %d woke the flusher, which is on its way", n+1)
		default:
		}
	}
	s.wake <- struct{}{} // as the flusher found it
	s.wg.Go(s.flusher)
	for n := uint32(10); n < 20; n++ {
		receive(n)
		say(n + 1)
	}
	close(s.lost)
	s.wg.Wait()
}

// TestNextDelay holds that the flusher comes more seldom while there is nothing
// to send, up to a bound, and as usual when there was.
func TestNextDelay(t *testing.T) {
	d := flushDelay
	for range 100 {
		next := nextDelay(d, false)
		if next < d || next > seldom {
			t.Fatalf("after %v with nothing to send: %v", d, next)
		}
		d = next
	}
	if d != seldom || seldom > time.Millisecond {
		t.Errorf("the delay grows to %v", d)
	}
	if next := nextDelay(d, true); next != flushDelay {
		t.Errorf("after something to send the delay is %v, want %v", next, flushDelay)
	}
}
