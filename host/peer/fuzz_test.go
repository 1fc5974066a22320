package peer

import (
	"bytes"
	"testing"
	"time"
)

// FuzzReceive feeds frames of a stranger's choice to a machine, on a connection
// that is new, greeted or open: it does not fail, and takes no more than its
// window.
func FuzzReceive(f *testing.F) {
	hello := helloFrame{from: Node{"b", 1}, to: 1, epoch: 1}.append(nil)
	f.Add(hello, appendMessage(appendDataHead(nil, 0, 1), []byte("x")), true)
	f.Add(hello, appendDataHead(nil, 1, 1), false)
	f.Add(byeFrame{code: byeIncarnation, incarnation: 2, why: "y"}.append(nil), hello, true)
	f.Fuzz(func(t *testing.T, one, two []byte, dialed bool) {
		c := Config{Messages: 4}
		m := NewMachine(c, Node{"a", 1}, "b")
		m.Learn(0, 1)
		m.Send(0, 1, []byte("m"))
		m.Opened(0, 1, dialed)
		for _, frame := range [][]byte{one, two, two} {
			for _, a := range m.Receive(time.Second, 1, bytes.Clone(frame)) {
				if d, ok := a.(Deliver); ok && len(d.Messages) > 4 {
					t.Errorf("%d messages were delivered", len(d.Messages))
				}
			}
			for i := 0; m.Due(time.Second); i++ {
				if b := m.Frame(time.Second, nil); len(b) == 0 || i > 2 {
					t.Fatal("frames have no end")
				}
			}
			if m.received-m.consumed > 4 {
				t.Errorf("%d messages wait", m.received-m.consumed)
			}
		}
	})
}

// TestFrames holds that what is encoded decodes to itself.
func TestFrames(t *testing.T) {
	h := helloFrame{from: Node{"node", 1 << 60}, to: 3, epoch: 1 << 40, received: 7}
	if got, err := decodeHello(&reader{b: h.append(nil)[1:]}); err != nil || got != h {
		t.Errorf("%v %v", got, err)
	}
	y := byeFrame{code: byeOther, incarnation: 9, why: "because"}
	if got, err := decodeBye(&reader{b: y.append(nil)[1:]}); err != nil || got != y {
		t.Errorf("%v %v", got, err)
	}
	b := appendDataHead(nil, 5, 6)
	for _, m := range []string{"", "a", string(make([]byte, 300))} {
		b = appendMessage(b, []byte(m))
	}
	ack, first, messages, err := decodeData(&reader{b: b[1:]}, 3)
	if err != nil || ack != 5 || first != 6 || len(messages) != 3 || len(messages[2]) != 300 {
		t.Errorf("%d %d %q %v", ack, first, messages, err)
	}
	for n := range b[1:] {
		if n < 2 {
			continue
		}
		if _, _, m, err := decodeData(&reader{b: b[1 : 1+n]}, 3); err == nil && len(m) == 3 {
			t.Errorf("%d bytes of %d decode", n, len(b))
		}
	}
	if _, _, _, err := decodeData(&reader{b: b[1:]}, 2); err == nil {
		t.Error("more messages than are allowed")
	}
}

// TestWindowViolated holds that a peer which sends more than the window has is
// cut off.
func TestWindowViolated(t *testing.T) {
	m := NewMachine(Config{Messages: 4}, Node{"a", 1}, "b")
	m.Receive(0, 1, helloFrame{from: Node{"b", 1}, to: 1, epoch: 1}.append(nil))
	for i := range uint64(4) {
		if out := m.Receive(0, 1, appendMessage(appendDataHead(nil, 0, i+1), nil)); len(out) != 1 {
			t.Fatal(out)
		}
	}
	out := m.Receive(0, 1, appendMessage(appendDataHead(nil, 0, 5), nil))
	if c, ok := out[0].(Cut); !ok || m.received != 4 {
		t.Errorf("%v %v, received %d", c, ok, m.received)
	}
}
