package link

import (
	"encoding/binary"
	"os"
)

const headerSize = 16

// class says what part a frame plays in a call.
type class uint8

const (
	classNotice  class = iota // one way
	classRequest              // wants a reply
	classReply                // the result of a request
	classFailure              // the failure of a request; the body is a wray.Error
	classCancel               // the caller of a request no longer waits
	numClasses
)

// frame is a decoded header with its body and files.
type frame struct {
	class class
	id    uint64
	lost  bool // its files were, as there were no descriptors for them
	Message
}

func putHeader(b *[headerSize]byte, kind Kind, c class, files, body int, id uint64) {
	binary.LittleEndian.PutUint32(b[0:], uint32(body))
	binary.LittleEndian.PutUint16(b[4:], uint16(kind))
	b[6] = byte(c)
	b[7] = byte(files)
	binary.LittleEndian.PutUint64(b[8:], id)
}

// decoder cuts a stream of bytes and descriptors into frames. It holds no
// socket, so that a fuzzer can drive it. It owns the files given to feed until
// next hands them out or close closes them.
type decoder struct {
	maxBody, maxFiles int

	head   [headerSize]byte
	nhead  int // bytes of head seen
	body   []byte
	need   int // length of the body, once nhead == headerSize
	queued []*os.File
	taken  []*os.File // files of the frame being read
	lost   bool       // files of a frame that is to come were lost
	empty  bool       // those of the frame being read were
}

// bodyStep is how much room a body gets before its bytes have come: a peer
// that announces the largest body and sends none of it costs this much.
const bodyStep = 64 << 10

// feed decodes p, which it does not keep, and files, which it owns from here
// on, and calls emit for each whole frame. It stops at the first error, of the
// peer or of emit; the stream cannot be used afterwards.
func (d *decoder) feed(p []byte, files []*os.File, emit func(frame) error) error {
	d.queued = append(d.queued, files...)
	// One frame may be in progress and have its files taken; whatever else is
	// queued belongs to headers in p or just after it.
	if len(d.queued) > 2*maxFilesLimit {
		return protocolError("%d descriptors without a message", len(d.queued))
	}
	for {
		if d.nhead < headerSize {
			n := copy(d.head[d.nhead:], p)
			d.nhead += n
			p = p[n:]
			if d.nhead < headerSize {
				break
			}
			if err := d.header(); err != nil {
				return err
			}
		}
		n := min(d.need-len(d.body), len(p))
		d.grow(n)
		d.body = append(d.body, p[:n]...)
		p = p[n:]
		if len(d.body) < d.need {
			break
		}
		f := frame{
			class:   class(d.head[6]),
			id:      binary.LittleEndian.Uint64(d.head[8:]),
			Message: Message{Kind: Kind(binary.LittleEndian.Uint16(d.head[4:])), Body: d.body, Files: d.taken},
			lost:    d.empty,
		}
		d.nhead, d.body, d.taken, d.need, d.empty = 0, nil, nil, 0, false
		if err := emit(f); err != nil {
			return err
		}
	}
	// A descriptor arrives with the first byte of its header. With no header
	// begun, one that is left over was sent outside any message.
	if d.nhead == 0 && (len(d.queued) > 0 || d.lost) {
		return protocolError("%d descriptors outside a message", len(d.queued))
	}
	return nil
}

// header checks a complete header and takes the frame's files.
func (d *decoder) header() error {
	length := binary.LittleEndian.Uint32(d.head[0:])
	c, nfiles := class(d.head[6]), int(d.head[7])
	id := binary.LittleEndian.Uint64(d.head[8:])
	switch {
	case uint64(length) > uint64(d.maxBody):
		return protocolError("body of %d bytes, at most %d", length, d.maxBody)
	case c >= numClasses:
		return protocolError("class %d", c)
	case nfiles > d.maxFiles:
		return protocolError("%d descriptors, at most %d", nfiles, d.maxFiles)
	case (c == classNotice) != (id == 0):
		return protocolError("class %d with id %d", c, id)
	case c == classCancel && length != 0, c >= classFailure && nfiles != 0:
		return protocolError("class %d with a body of %d bytes and %d descriptors", c, length, nfiles)
	case nfiles > len(d.queued) && d.lost:
		d.lost, d.empty, nfiles = false, true, 0
	case nfiles > len(d.queued):
		return protocolError("%d descriptors announced, %d came", nfiles, len(d.queued))
	}
	d.need = int(length)
	if nfiles > 0 {
		d.taken = append([]*os.File(nil), d.queued[:nfiles]...)
		d.queued = append(d.queued[:0], d.queued[nfiles:]...)
	}
	return nil
}

// grow makes room for n more bytes that have come: exactly the body when it is
// small or whole, else doubling, so that memory follows what was received.
func (d *decoder) grow(n int) {
	want := len(d.body) + n
	if want <= cap(d.body) {
		return
	}
	size := d.need
	if d.need > bodyStep && want < d.need {
		size = min(d.need, max(bodyStep, 2*cap(d.body), want))
	}
	b := make([]byte, len(d.body), size)
	copy(b, d.body)
	d.body = b
}

// close closes the files that no frame has claimed.
func (d *decoder) close() {
	for _, f := range append(d.queued, d.taken...) {
		f.Close()
	}
	d.queued, d.taken = nil, nil
}
