//go:build !wasip1

package rt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/wasm/abi"
)

// read takes answers until the connection ends.
func (s *Session) read() {
	for {
		m, err := s.conn.Recv()
		if err == nil {
			err = s.answers(m)
			m.CloseFiles()
		}
		if err != nil {
			s.conn.Close()
			s.end(s.lostBecause(err))
			return
		}
	}
}

// lostBecause says why the connection has ended, which the node may know.
func (s *Session) lostBecause(err error) error {
	select {
	case <-s.ran:
		if s.ranErr != nil && !errors.Is(s.ranErr, link.ErrClosed) {
			return s.ranErr
		}
	case <-time.After(time.Second):
	}
	var e *wray.Error
	if errors.As(err, &e) {
		return e
	}
	return &wray.Error{Code: wray.CodeWorkerDied, Message: "the session was lost: " + err.Error(),
		Hint: "the node, or the worker in it, has ended; connect again"}
}

func (s *Session) answers(m link.Message) error {
	if m.Kind != clientwire.KindAnswers {
		return fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	files := m.Files
	for body := m.Body; len(body) > 0; {
		r, rest, err := clientwire.Next(body)
		if err != nil {
			return err
		}
		body = rest
		var file *os.File
		if r.Op == clientwire.OpValue && (r.A == clientwire.Mapped || r.A == clientwire.Copied) {
			if len(files) == 0 {
				return fmt.Errorf("%w: a value without its file", link.ErrProtocol)
			}
			file, files = files[0], files[1:]
		}
		if err := s.answer(r, file); err != nil {
			return err
		}
	}
	s.broadcast()
	return nil
}

func errorText(mem []byte) error {
	b, _, ok := clientwire.Text(mem)
	if !ok {
		return fmt.Errorf("%w: a failure without words", link.ErrProtocol)
	}
	e := new(wray.Error)
	if err := cbor.Unmarshal(b, e); err != nil {
		return fmt.Errorf("%w: a failure that does not decode: %w", link.ErrProtocol, err)
	}
	return e
}

// answer takes one answer. mu is held.
func (s *Session) answer(a clientwire.Record, file *os.File) error {
	switch a.Op {
	case clientwire.OpWelcome:
		s.limit, s.most = a.A, int(a.B)-1024
		if !s.welcame {
			s.welcame = true
			close(s.welcome)
		}
		return nil
	case clientwire.OpFull:
		s.full = a.A != 0
		return nil
	case clientwire.OpReclaim:
		collect()
		return nil
	case clientwire.OpEnd:
		return errorText(a.Mem)
	}
	r := s.calls[a.B]
	if r == nil {
		return fmt.Errorf("%w: an answer that nobody waits for", link.ErrProtocol)
	}
	delete(s.calls, a.B)
	switch a.Op {
	case clientwire.OpReady:
		r.h.ready = true
		return nil
	case clientwire.OpDone:
		if len(a.Mem) < 4 {
			return fmt.Errorf("%w: a short answer", link.ErrProtocol)
		}
		r.result, r.errno = a.A, abi.Errno(binary.LittleEndian.Uint32(a.Mem))
		if len(a.Mem) > 8 {
			r.err = errorText(a.Mem[4:])
		}
	case clientwire.OpStatus:
		if len(a.Mem) < abi.StatSize {
			return fmt.Errorf("%w: a short answer", link.ErrProtocol)
		}
		r.value.Data = bytes.Clone(a.Mem)
	case clientwire.OpValue:
		r.h.ready = true
		if a.A == clientwire.Refused {
			r.err = errorText(a.Mem)
		} else if err := s.value(r, a, file); err != nil {
			return err
		}
	case clientwire.OpItem:
		r.result = a.A
		if a.A != 0 {
			r.h = &handle{s: s, n: r.number, ready: true}
			if len(a.Mem) >= abi.InfoSize {
				v := &request{h: r.h}
				if err := s.value(v, clientwire.Record{Mem: a.Mem}, nil); err != nil {
					return err
				}
				if v.nrefs == 0 {
					r.h.kept = &v.value
				}
			}
		}
	default:
		return fmt.Errorf("%w: answer %d", link.ErrProtocol, a.Op)
	}
	if r.done != nil {
		close(r.done)
	}
	return nil
}

// value reads the value of an OpValue. mu is held.
func (s *Session) value(r *request, a clientwire.Record, file *os.File) error {
	if len(a.Mem) < abi.InfoSize {
		return fmt.Errorf("%w: a short value", link.ErrProtocol)
	}
	v := &r.value
	v.Encoding = abi.Encoding(binary.LittleEndian.Uint32(a.Mem[abi.InfoEncoding:]))
	v.Elem = abi.Elem(binary.LittleEndian.Uint32(a.Mem[abi.InfoMeta:]))
	v.Owned = true
	r.nrefs = binary.LittleEndian.Uint32(a.Mem[abi.InfoNrefs:])
	n := binary.LittleEndian.Uint64(a.Mem[abi.InfoLen:])
	if file == nil {
		if n > uint64(len(a.Mem)-abi.InfoSize) {
			return fmt.Errorf("%w: a value without its end", link.ErrProtocol)
		}
		v.Data = bytes.Clone(a.Mem[abi.InfoSize : abi.InfoSize+n])
		if v.Data == nil {
			v.Data = []byte{}
		}
		return nil
	}
	if n > 1<<40 {
		return fmt.Errorf("%w: a value of %d bytes", link.ErrProtocol, n)
	}
	number, isPinned := a.B, a.A == clientwire.Mapped
	data, base, err := mapFile(file, int(n), func() {
		if isPinned {
			s.unmapped(number)
		}
	})
	if err != nil {
		if isPinned {
			s.unmaps = append(s.unmaps, number)
			s.soonLocked()
		}
		r.err = &wray.Error{Code: wray.CodeOutOfMemory, Message: fmt.Sprintf("map a value of %d bytes: %v", n, err)}
		return nil
	}
	if isPinned {
		s.mapped++
	}
	v.Data = data
	r.h.window = base
	return nil
}
