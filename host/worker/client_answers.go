package worker

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// batchSize is the bytes from which a batch of answers is written.
const batchSize = 256 << 10

// flush writes the answers that are there. It returns when they are written or
// the connection has ended.
func (c *client) flush() {
	c.writing.Lock()
	defer c.writing.Unlock()
	var b batch
	for {
		c.out.Lock()
		queue := c.out.queue
		c.out.queue = nil
		c.out.Unlock()
		if len(queue) == 0 {
			b.send(c)
			return
		}
		for i := range queue {
			c.write(&b, &queue[i])
		}
	}
}

// batch is answers that are about to be written.
type batch struct {
	body  []byte
	files []*os.File
}

func (b *batch) send(c *client) {
	if len(b.body) > 0 {
		// An error has ended the connection, which the reader sees.
		_ = c.conn.Send(link.Message{Kind: clientwire.KindAnswers, Body: b.body, Files: b.files})
	}
	for _, f := range b.files {
		f.Close()
	}
	b.body, b.files = b.body[:0], b.files[:0]
}

// write appends one answer, and lets go of what it holds.
func (c *client) write(b *batch, a *answer) {
	if len(b.body) > batchSize || len(b.files) == clientwire.MaxFiles {
		b.send(c)
	}
	switch a.op {
	case clientwire.OpValue:
		if !c.writeValue(b, a) {
			return // it is on its way
		}
		a.release()
	case clientwire.OpReady:
		c.owed.Add(-1)
		b.body = clientwire.Append(b.body, a.op, a.a, a.b, nil)
	case clientwire.OpDone:
		c.owed.Add(-1)
		mem := binary.LittleEndian.AppendUint32(nil, uint32(a.errno))
		if a.err != nil {
			mem = clientwire.AppendText(mem, objectstore.EncodeFailure(a.err))
		}
		b.body = clientwire.Append(b.body, a.op, a.a, a.b, mem)
	case clientwire.OpStatus:
		c.owed.Add(-1)
		name := c.g.w.makerName(a.object)
		mem := make([]byte, abi.StatSize+len(name))
		writeStat(mem, a.object, name)
		putU64(mem, abi.StatReferences, uint64(a.object.References()-1)) // a's own does not count
		b.body = clientwire.Append(b.body, a.op, a.a, a.b, mem)
		a.release()
	case clientwire.OpItem:
		c.writeItem(b, a)
	case clientwire.OpEnd:
		b.body = clientwire.Append(b.body, a.op, 0, 0, clientwire.AppendText(nil, objectstore.EncodeFailure(a.err)))
	default:
		b.body = clientwire.Append(b.body, a.op, a.a, a.b, nil)
	}
}

// writeItem writes an item, or asks the stream for one again.
func (c *client) writeItem(b *batch, a *answer) {
	if st := a.stream; st != nil {
		c.mu.Lock()
		err := c.next(*a)
		c.mu.Unlock()
		if err != nil {
			c.conn.Close() // it has used the number for something else meanwhile
		}
		return
	}
	c.owed.Add(-1)
	o := a.object
	start := len(b.body)
	b.body = clientwire.Begin(b.body, a.op, a.a, a.b)
	if o != nil {
		// One on disk is read when the client asks for it.
		if v, err := o.View(); err == nil {
			if i := o.Info(); i.Len < clientwire.MaxInline {
				b.body = append(appendInfo(b.body, i), v.Bytes()...)
			}
			v.Close()
		}
		o.Release()
	}
	b.body = clientwire.End(b.body, start)
}

// appendInfo appends a struct info.
func appendInfo(b []byte, i objectstore.Info) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(i.Encoding))
	b = binary.LittleEndian.AppendUint32(b, i.Meta)
	b = binary.LittleEndian.AppendUint64(b, uint64(i.Len))
	b = binary.LittleEndian.AppendUint32(b, uint32(i.Refs))
	return append(b, make([]byte, abi.InfoSize-abi.InfoFlags)...)
}

// writeValue writes the value of a's object. False: it is on disk, and a is
// written again when it was read.
func (c *client) writeValue(b *batch, a *answer) bool {
	n, o := a.b, a.object
	refuse := func(e *wray.Error) bool {
		c.owed.Add(-1)
		b.body = clientwire.Append(b.body, clientwire.OpValue, clientwire.Refused, n, clientwire.AppendText(nil, objectstore.EncodeFailure(e)))
		return true
	}
	if a.err != nil {
		return refuse(a.err)
	}
	v, err := o.View()
	if err != nil {
		c.mu.Lock()
		c.awaitFetch(*a)
		c.mu.Unlock()
		return false
	}
	defer v.Close()
	i := o.Info()
	start := len(b.body)
	if i.Len < clientwire.MaxInline {
		c.owed.Add(-1)
		b.body = clientwire.Begin(b.body, clientwire.OpValue, clientwire.Inline, n)
		b.body = clientwire.End(append(appendInfo(b.body, i), v.Bytes()...), start)
		return true
	}
	how := uint32(clientwire.Copied)
	var f *os.File
	var why error
	if i.Mappable {
		how = clientwire.Mapped
		f, why = c.mapFile(n, o)
	} else {
		f, why = objectstore.Copy(v.Bytes())
	}
	if why != nil {
		return refuse(c.g.job.named(why, "", 0))
	}
	c.owed.Add(-1)
	b.files = append(b.files, f)
	b.body = clientwire.Append(b.body, clientwire.OpValue, how, n, appendInfo(nil, i))
	return true
}

// mapFile pins o for the client and returns the file to be sent.
func (c *client) mapFile(n uint32, o *objectstore.Object) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mapped) >= clientwire.MaxMapped || c.mapped[n] != nil {
		return nil, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("the client has %d values mapped", len(c.mapped)),
			Limit: &wray.Limit{Name: "mapped values", Value: clientwire.MaxMapped},
			Hint:  "let go of large values before getting others"}
	}
	pin, err := o.Pin()
	if err != nil {
		return nil, err
	}
	f, err := pin.File()
	if err != nil {
		pin.Unpin()
		return nil, err
	}
	c.mapped[n] = pin
	return f, nil
}
