package peer

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata: what a session does, to be read. After a wanted
// change run
//
//	go test ./host/peer -run TestScripts -rewrite
//
// and read the diff. Two nodes, a and b, are on a network on which nothing moves
// by itself. Each line of a command's input is an event:
//
//	new NODE INC              an incarnation starts, with no memory
//	learn NODE PEER INC       NODE is told that PEER is there as INC
//	connect NODE PEER         NODE is to have a connection
//	send NODE PEER INC TEXT…  messages, one for each word
//	dialed NODE PEER          the connection NODE asked for is there
//	failed NODE PEER          it could not be made
//	flush NODE                frames that are due are put on the way, shown
//	deliver NODE              what is on the way to NODE arrives
//	lose NODE, double NODE    what is on the way to NODE is lost, or is there twice
//	consume NODE              the handler of NODE has returned
//	cut NODE                  the connections of NODE are lost, to both
//	miss NODE                 the connections of NODE are lost, to it alone
//	dead NODE PEER INC        NODE is told that PEER is dead
//	wait DURATION             time passes, with ticks
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		e := &env{nodes: map[string]*side{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			e.out.Reset()
			for line := range strings.Lines(d.Input) {
				if f := strings.Fields(line); len(f) > 0 {
					e.line(t, f)
				}
			}
			if e.out.Len() == 0 {
				return "nothing\n"
			}
			return e.out.String()
		})
	})
}

// side is one of the two nodes, with its machine for the other.
type side struct {
	m       *Machine
	self    Node
	dialed  bool            // a Dial is to be answered
	conns   map[ConnID]bool // open here
	coming  []flight
	consume []Deliver
}

type flight struct {
	conn  ConnID
	frame []byte
}

type env struct {
	now   time.Duration
	nodes map[string]*side
	conn  ConnID
	out   strings.Builder
}

func (e *env) say(format string, args ...any) {
	fmt.Fprintf(&e.out, "%v: ", e.now)
	fmt.Fprintf(&e.out, format+"\n", args...)
}

func other(name string) string {
	if name == "a" {
		return "b"
	}
	return "a"
}

func (e *env) line(t *testing.T, f []string) {
	num := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		return n
	}
	var s *side
	if f[0] != "wait" && f[0] != "new" {
		s = e.nodes[f[1]]
	}
	switch f[0] {
	case "new":
		self := Node{f[1], num(2)}
		e.nodes[f[1]] = &side{m: NewMachine(Config{Messages: 8}, self, other(f[1])), self: self, conns: map[ConnID]bool{}}
	case "learn":
		e.do(s, s.m.Learn(e.now, num(3)))
	case "connect":
		e.do(s, s.m.Connect(e.now))
	case "dead":
		e.do(s, s.m.Dead(e.now, num(3), "it is dead"))
	case "send":
		for _, w := range f[4:] {
			out, err := s.m.Send(e.now, num(3), []byte(w))
			if err != nil {
				e.say("%s cannot send %s: %v", f[1], w, err)
			}
			e.do(s, out)
		}
	case "dialed":
		if !s.dialed {
			t.Fatalf("%s did not dial", f[1])
		}
		s.dialed = false
		e.conn++
		s.conns[e.conn], e.nodes[f[2]].conns[e.conn] = true, true
		e.do(s, s.m.Opened(e.now, e.conn, true))
		e.do(e.nodes[f[2]], e.nodes[f[2]].m.Opened(e.now, e.conn, false))
	case "failed":
		s.dialed = false
		e.do(s, s.m.DialFailed(e.now))
	case "flush":
		for s.m.Due(e.now) {
			conn := s.m.Conn()
			frame := s.m.Frame(e.now, nil)
			e.send(s, conn, frame)
		}
	case "deliver":
		for len(s.coming) > 0 {
			c := s.coming[0]
			s.coming = s.coming[1:]
			if s.conns[c.conn] {
				e.do(s, s.m.Receive(e.now, c.conn, c.frame))
			}
		}
	case "lose":
		s.coming = nil
	case "double":
		s.coming = append(s.coming, s.coming...)
	case "consume":
		for _, d := range s.consume {
			n := 0
			for _, b := range d.Messages {
				n += len(b)
			}
			s.m.Consumed(d.From, len(d.Messages), n)
		}
		s.consume = nil
	case "cut":
		for _, c := range sortedConns(s) {
			e.close(s, c, "it was cut")
			e.close(e.nodes[other(s.self.Name)], c, "it was cut")
		}
	case "miss":
		for _, c := range sortedConns(s) {
			e.close(s, c, "it was cut")
		}
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		for end := e.now + d; e.now < end; {
			e.now += 10 * time.Millisecond
			for _, n := range []string{"a", "b"} {
				if s := e.nodes[n]; s != nil {
					e.do(s, s.m.Tick(e.now))
				}
			}
		}
	default:
		t.Fatalf("no such event: %v", f)
	}
}

func sortedConns(s *side) []ConnID {
	var out []ConnID
	for c := range s.conns {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

func (e *env) close(s *side, c ConnID, why string) {
	if s.conns[c] {
		delete(s.conns, c)
		e.do(s, s.m.Closed(e.now, c, why))
	}
}

// send puts a frame on its way, and shows it.
func (e *env) send(s *side, conn ConnID, frame []byte) {
	e.say("%s -> %s on %d: %s", s.self.Name, other(s.self.Name), conn, describe(frame))
	o := e.nodes[other(s.self.Name)]
	o.coming = append(o.coming, flight{conn, frame})
}

func describe(frame []byte) string {
	r := &reader{b: frame[1:]}
	switch frame[0] {
	case kindHello:
		h, _ := decodeHello(r)
		return fmt.Sprintf("hello of %v to #%d, epoch %d, received %d", h.from, h.to, h.epoch, h.received)
	case kindBye:
		f, _ := decodeBye(r)
		return fmt.Sprintf("bye of #%d: %s", f.incarnation, f.why)
	}
	ack, first, messages, err := decodeData(r, 1000)
	if err != nil {
		return err.Error()
	}
	var words []string
	for _, m := range messages {
		words = append(words, string(m))
	}
	return fmt.Sprintf("acknowledges %d, from %d on: [%s]", ack, first, strings.Join(words, " "))
}

func (e *env) do(s *side, actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Dial:
			e.say("%s dials", s.self.Name)
			s.dialed = true
		case Cut:
			e.say("%s cuts %d: %s", s.self.Name, a.Conn, a.Why)
			if a.Last != nil {
				e.send(s, a.Conn, a.Last)
			}
			delete(s.conns, a.Conn)
			if a.Last == nil {
				e.close(e.nodes[other(s.self.Name)], a.Conn, "the other cut it")
			}
		case Deliver:
			var words []string
			for _, m := range a.Messages {
				words = append(words, string(m))
			}
			e.say("%s receives of %v: %s", s.self.Name, a.From, strings.Join(words, " "))
			s.consume = append(s.consume, a)
		case Change:
			e.say("%s has %v for %v: %s", s.self.Name, a.Node, a.To, a.Why)
		}
	}
}
