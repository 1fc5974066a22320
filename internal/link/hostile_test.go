//go:build linux

package link

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostile is a peer that writes what it likes.
type hostile struct {
	t  *testing.T
	fd int
}

func newHostile(t *testing.T, opt Options) (*Conn, *hostile) {
	t.Helper()
	c, file, err := Pair(opt)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(file.Fd()))
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd); c.Close() })
	return c, &hostile{t, fd}
}

func (h *hostile) write(b []byte, files int) {
	h.t.Helper()
	var oob []byte
	if files > 0 {
		null, err := os.Open("/dev/null")
		if err != nil {
			h.t.Fatal(err)
		}
		defer null.Close()
		oob = unix.UnixRights(slices.Repeat([]int{int(null.Fd())}, files)...)
	}
	// The link may be cut while this is written.
	err := unix.Sendmsg(h.fd, b, oob, nil, unix.MSG_NOSIGNAL)
	if err != nil && err != unix.EPIPE && err != unix.ECONNRESET {
		h.t.Fatal(err)
	}
}

func head(length uint32, kind Kind, c class, files uint8, id uint64) []byte {
	b := make([]byte, headerSize)
	binary.LittleEndian.PutUint32(b, length)
	binary.LittleEndian.PutUint16(b[4:], uint16(kind))
	b[6], b[7] = byte(c), files
	binary.LittleEndian.PutUint64(b[8:], id)
	return b
}

// stay is the kind of a request that runs until its context ends.
const stay Kind = 1

// TestHostilePeer holds that every violation ends the link with ErrProtocol and
// leaves no descriptor behind.
func TestHostilePeer(t *testing.T) {
	opt := Options{MaxBody: 4096, MaxFiles: 4, MaxCalls: 2}
	for name, attack := range map[string]func(*hostile){
		"body too long":        func(h *hostile) { h.write(head(4097, 0, classNotice, 0, 0), 0) },
		"body of 4 GiB":        func(h *hostile) { h.write(head(1<<32-1, 0, classNotice, 0, 0), 0) },
		"unknown class":        func(h *hostile) { h.write(head(0, 0, numClasses, 0, 1), 0) },
		"notice with id":       func(h *hostile) { h.write(head(0, 0, classNotice, 0, 1), 0) },
		"request without id":   func(h *hostile) { h.write(head(0, 0, classRequest, 0, 0), 0) },
		"cancel with body":     func(h *hostile) { h.write(head(1, 0, classCancel, 0, 1), 0) },
		"too many files":       func(h *hostile) { h.write(head(0, 0, classNotice, 5, 0), 5) },
		"more files than came": func(h *hostile) { h.write(head(0, 0, classNotice, 2, 0), 1) },
		"fewer than came":      func(h *hostile) { h.write(head(0, 0, classNotice, 1, 0), 3) },
		"files nobody named":   func(h *hostile) { h.write(head(0, 0, classNotice, 0, 0), 1) },
		"files in a body": func(h *hostile) {
			h.write(head(3, 0, classNotice, 0, 0), 0)
			h.write([]byte("abc"), 2)
		},
		"files the kernel cut": func(h *hostile) { h.write(head(0, 0, classNotice, 1, 0), 250) },
		"files piled up": func(h *hostile) {
			h.write(head(4096, 0, classNotice, 0, 0), 0)
			for range 8 {
				h.write([]byte("x"), 100)
			}
		},
		"reply to no call":   func(h *hostile) { h.write(head(0, 0, classReply, 1, 7), 1) },
		"failure of no call": func(h *hostile) { h.write(head(0, 0, classFailure, 0, 7), 0) },
		"call twice": func(h *hostile) {
			h.write(head(0, stay, classRequest, 0, 7), 0)
			h.write(head(0, stay, classRequest, 1, 7), 1)
		},
		"calls beyond credit": func(h *hostile) {
			for id := range uint64(3) {
				h.write(head(0, stay, classRequest, 1, id+1), 1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := openFds(t)
			c, h := newHostile(t, opt)
			wait := serve(t, c, func(ctx context.Context, m Message) (Message, error) {
				m.CloseFiles()
				if m.Kind == stay {
					<-ctx.Done()
				}
				return Message{}, nil
			})
			attack(h)
			err := wait()
			if !errors.Is(err, ErrProtocol) || !errors.Is(err, ErrClosed) {
				t.Errorf("ended with %v", err)
			}
			unix.Close(h.fd)
			if after := openFds(t); after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			h.fd = -1
		})
	}
}

// TestHostileFailureBody holds that a failure which does not decode ends the
// link, at the caller, with a reason.
func TestHostileFailureBody(t *testing.T) {
	c, h := newHostile(t, Options{})
	serve(t, c, refuse)
	go func() {
		request := make([]byte, headerSize)
		if _, err := unix.Read(h.fd, request); err != nil {
			t.Error(err)
		}
		h.write(append(head(3, 0, classFailure, 0, 1), "bad"...), 0)
	}()
	if _, err := c.Call(t.Context(), Message{}); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestPeerDiesInsideMessage(t *testing.T) {
	c, h := newHostile(t, Options{})
	wait := serve(t, c, refuse)
	h.write(head(100, 0, classNotice, 1, 0), 1)
	unix.Close(h.fd)
	h.fd = -1
	if err := wait(); err == nil || !strings.Contains(err.Error(), "inside a message") {
		t.Error(err)
	}
}

func TestRecvRefusesCalls(t *testing.T) {
	c, h := newHostile(t, Options{})
	h.write(head(0, 0, classRequest, 1, 1), 1)
	if _, err := c.Recv(); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestFromFileRefusesOthers(t *testing.T) {
	before := openFds(t)
	if _, err := FromFile(tempFile(t, ""), Options{}); err == nil {
		t.Error("a regular file became a link")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := FromFile(r, Options{}); err == nil {
		t.Error("a pipe became a link")
	}
	if after := openFds(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
