package peer

import (
	"errors"
	"fmt"
	"time"
)

// ConnID names a connection to a Machine. Its driver chooses it, and never twice.
type ConnID uint64

// Action is something that the driver of a Machine does, or passes on.
type Action interface{ action() }

// Dial asks for a connection. Its end is Opened, or DialFailed.
type Dial struct{}

// Cut asks for a connection to be closed, after Last was sent over it where that
// is not nil. What comes over it is of no interest.
type Cut struct {
	Conn ConnID
	Last []byte
	Why  string
}

// Deliver passes messages on, in order. Whoever has handled them says so with
// Consumed. They are parts of the frame that was given to Receive.
type Deliver struct {
	From     Node
	Messages [][]byte
}

// Misfit tells, once of each incarnation of this side or the peer, that the peer is
// another program: no session comes about.
type Misfit struct{ Why string }

// Change tells how a session is now.
type Change struct {
	Node Node
	To   Status
	Why  string
}

func (Dial) action()    {}
func (Cut) action()     {}
func (Deliver) action() {}
func (Misfit) action()  {}
func (Change) action()  {}

// stage is how far a connection is.
type stage uint8

const (
	noConn   stage = iota
	dialing        // asked for
	greeting       // it is there, and our hello was or will be sent
	open           // both have said hello
)

// Machine is one side of the sessions with one peer, one after the other. Time
// comes as a parameter, from any zero, and never goes back. It is not safe for
// concurrent use.
type Machine struct {
	cfg  Config
	self Node
	peer string

	// The session.
	incarnation uint64 // the peer's; 0 while it is not known
	fenced      uint64 // incarnations up to this one are over
	up          bool   // the last Change was Up
	wanted      bool   // a connection is to be there
	misfit      bool   // a Misfit was told since the last session

	// What is sent. kept[0] has the number acked+1.
	kept      [][]byte
	keptBytes int
	acked     uint64 // the last that the peer has acknowledged
	sent      uint64 // the last that went over this connection

	// What is received.
	received     uint64 // the last
	pendingBytes int    // delivered and not consumed
	consumed     uint64 // the last that was handled
	ackedBytes   int    // consumed since an acknowledgement was sent
	ackSent      uint64

	// The connection.
	stage      stage
	conn       ConnID
	dialed     bool // by this side
	epoch      uint64
	helloDue   bool
	heard      time.Duration // the last frame, or the connection's begin
	spoke      time.Duration // the last frame of ours
	dialAt     time.Duration // not before
	retry      time.Duration
	retryAsked bool // the driver is dialing
}

// NewMachine returns the sessions of self with the node of a name.
func NewMachine(c Config, self Node, peer string) *Machine {
	return &Machine{cfg: c.withDefaults(), self: self, peer: peer}
}

// node is the peer's incarnation of this session.
func (m *Machine) node() Node { return Node{m.peer, m.incarnation} }

// Learn tells that the peer is there as an incarnation. A session with an older
// one ends.
func (m *Machine) Learn(now time.Duration, incarnation uint64) []Action {
	if incarnation <= m.incarnation || incarnation <= m.fenced {
		return nil
	}
	var out []Action
	if m.incarnation != 0 {
		out = m.end(out, fmt.Sprintf("it is back as incarnation %d", incarnation))
	}
	m.incarnation = incarnation
	return out
}

// Dead tells that an incarnation of the peer is dead, and that it, and those
// before, are never to be spoken to again.
func (m *Machine) Dead(now time.Duration, incarnation uint64, why string) []Action {
	m.fenced = max(m.fenced, incarnation)
	if m.incarnation == 0 || incarnation < m.incarnation {
		return nil
	}
	out := m.end(nil, why)
	m.wanted = false
	return out
}

// end ends the session with the incarnation, and forgets all that was of it.
func (m *Machine) end(out []Action, why string) []Action {
	if m.stage == open || m.stage == greeting {
		out = append(out, Cut{Conn: m.conn, Why: why})
	}
	out = append(out, Change{Node: m.node(), To: Down, Why: why})
	m.fenced = max(m.fenced, m.incarnation)
	*m = Machine{cfg: m.cfg, self: m.self, peer: m.peer, fenced: m.fenced, retryAsked: m.retryAsked, wanted: m.wanted}
	return out
}

// Connect has a connection made, and kept, though nothing is to be sent.
func (m *Machine) Connect(now time.Duration) []Action {
	m.wanted = true
	return m.Tick(now)
}

// Send takes a message for an incarnation, and owns it. Nothing more is in the
// way of its arrival than the end of the session.
func (m *Machine) Send(now time.Duration, incarnation uint64, message []byte) ([]Action, error) {
	switch {
	case len(message) > MaxMessage:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(message), MaxMessage)
	case incarnation == 0 || incarnation != m.incarnation:
		return nil, fmt.Errorf("node %v: %w", Node{m.peer, incarnation}, ErrGone)
	case len(m.kept) >= m.cfg.Messages || len(m.kept) > 0 && m.keptBytes+len(message) > m.cfg.Window:
		return nil, ErrFull
	}
	m.kept = append(m.kept, message)
	m.keptBytes += len(message)
	if m.stage == open {
		return nil, nil
	}
	m.wanted = true
	return m.Tick(now), nil
}

// Opened tells of a connection: one that was dialed, or one that came, whose
// first frame is yet to be received.
func (m *Machine) Opened(now time.Duration, conn ConnID, dialed bool) []Action {
	if !dialed {
		return nil // it is nothing before its hello
	}
	m.retryAsked = false
	if m.stage == greeting || m.stage == open || !m.wanted {
		return []Action{Cut{Conn: conn, Why: "another connection is there, or none is wanted"}}
	}
	m.stage, m.conn, m.dialed = greeting, conn, true
	m.helloDue, m.heard, m.spoke = true, now, now
	return nil
}

// DialFailed tells that there was no connection.
func (m *Machine) DialFailed(now time.Duration) []Action {
	m.retryAsked = false
	if m.stage == dialing {
		m.stage = noConn
		m.later(now)
	}
	return m.Tick(now)
}

// later sets when to dial next.
func (m *Machine) later(now time.Duration) {
	m.retry = min(max(2*m.retry, minRetry), maxRetry)
	m.dialAt = now + m.retry
}

// Closed tells that a connection has ended by itself.
func (m *Machine) Closed(now time.Duration, conn ConnID, why string) []Action {
	if !m.current(conn) {
		return nil
	}
	return m.lost(now, nil, why)
}

func (m *Machine) current(conn ConnID) bool {
	return m.conn == conn && (m.stage == greeting || m.stage == open)
}

// lost goes on without the connection.
func (m *Machine) lost(now time.Duration, out []Action, why string) []Action {
	m.stage = noConn
	if m.dialAt <= now {
		m.later(now)
		if m.up && m.self.Name < m.peer {
			m.dialAt = now // one of the two goes first
		}
	}
	if m.up {
		m.up = false
		out = append(out, Change{Node: m.node(), To: Unreachable, Why: why})
	}
	return append(out, m.Tick(now)...)
}

// cut is lost, and has the connection closed.
func (m *Machine) cut(now time.Duration, why string) []Action {
	return m.lost(now, []Action{Cut{Conn: m.conn, Why: why}}, why)
}

// Tick tells that time has passed. It is due at Next.
func (m *Machine) Tick(now time.Duration) []Action {
	switch m.stage {
	case greeting, open:
		if now-m.heard >= m.cfg.Silence {
			return m.cut(now, fmt.Sprintf("nothing was heard for %v", m.cfg.Silence))
		}
	case noConn:
		if m.wanted && !m.retryAsked && now >= m.dialAt {
			m.stage, m.retryAsked = dialing, true
			return []Action{Dial{}}
		}
	}
	return nil
}

// Next is when Tick, or Frame, has something to do at the latest.
func (m *Machine) Next() (time.Duration, bool) {
	switch m.stage {
	case open:
		return min(m.heard+m.cfg.Silence, m.spoke+m.cfg.Beat), true
	case greeting:
		return m.heard + m.cfg.Silence, true
	case noConn:
		return m.dialAt, m.wanted && !m.retryAsked
	}
	return 0, false
}

// Receive takes a frame, and owns it.
func (m *Machine) Receive(now time.Duration, conn ConnID, frame []byte) []Action {
	if len(frame) == 0 {
		return m.bad(now, conn, errFrame)
	}
	r := &reader{b: frame[1:]}
	switch frame[0] {
	case kindHello:
		h, err := decodeHello(r)
		if other := (*versionError)(nil); errors.As(err, &other) {
			return m.misfits(now, conn, other)
		}
		if err == nil && h.from.Name != m.peer {
			err = fmt.Errorf("%w: a greeting of node %q", errFrame, h.from.Name)
		}
		if err != nil {
			return m.bad(now, conn, err)
		}
		if m.current(conn) && m.dialed {
			return m.answered(now, h)
		}
		if m.current(conn) {
			return nil // doubled on its way
		}
		return m.greeted(now, conn, h)
	case kindBye:
		f, err := decodeBye(r)
		if err != nil {
			return m.bad(now, conn, err)
		}
		return m.refused(now, conn, f)
	case kindData:
		if !m.current(conn) {
			return []Action{Cut{Conn: conn, Why: "it is not the session's connection"}}
		}
		if m.stage != open {
			return m.cut(now, "a message came before a greeting")
		}
		ack, first, messages, err := decodeData(r, m.cfg.Messages)
		if err != nil {
			return m.bad(now, conn, err)
		}
		return m.data(now, ack, first, messages)
	}
	return m.bad(now, conn, fmt.Errorf("%w: kind %d", errFrame, frame[0]))
}

func (m *Machine) bad(now time.Duration, conn ConnID, err error) []Action {
	if m.current(conn) {
		return m.cut(now, err.Error())
	}
	return []Action{Cut{Conn: conn, Why: err.Error()}}
}

// misfits refuses a greeting of another version.
func (m *Machine) misfits(now time.Duration, conn ConnID, err *versionError) []Action {
	out := m.tellMisfit(err.Error())
	if m.current(conn) {
		return append(out, m.cut(now, err.Error())...)
	}
	why := fmt.Sprintf("node %s speaks version %d of the protocol between nodes, this one version %d: run the same wray on all nodes of a cluster, upgrade the older", m.self.Name, version, err.theirs)
	last := byeFrame{code: byeVersion, incarnation: m.self.Incarnation, why: why}.append(nil)
	return append(out, Cut{Conn: conn, Last: last, Why: err.Error()})
}

// tellMisfit tells of a peer that does not fit, if it was not told.
func (m *Machine) tellMisfit(why string) []Action {
	if m.misfit {
		return nil
	}
	m.misfit = true
	return []Action{Misfit{Why: why}}
}

// greeted takes the hello of a connection that the peer made.
func (m *Machine) greeted(now time.Duration, conn ConnID, h helloFrame) []Action {
	refuse := func(code byeCode, why string) []Action {
		last := byeFrame{code: code, incarnation: m.self.Incarnation, why: why}.append(nil)
		return []Action{Cut{Conn: conn, Last: last, Why: why}}
	}
	if h.to != 0 && h.to != m.self.Incarnation {
		return refuse(byeIncarnation, fmt.Sprintf("incarnation %d of node %s is meant, this is %d", h.to, m.self.Name, m.self.Incarnation))
	}
	if h.from.Incarnation <= m.fenced || h.from.Incarnation < m.incarnation {
		return refuse(byeOld, fmt.Sprintf("incarnation %d of node %s is over", h.from.Incarnation, m.peer))
	}
	out := m.Learn(now, h.from.Incarnation)
	switch {
	case h.epoch < m.epoch,
		h.epoch == m.epoch && m.stage == open && m.dialed && m.self.Name < m.peer,
		h.epoch == m.epoch+1 && m.stage == greeting && m.self.Name < m.peer:
		return append(out, refuse(byeOther, "another connection stays")...)
	}
	if !m.resumes(h) {
		return append(out, refuse(byeOther, fmt.Sprintf("message %d was received, of %d that were sent and %d that were acknowledged", h.received, m.last(), m.acked))...)
	}
	if m.stage == greeting || m.stage == open {
		out = append(out, Cut{Conn: m.conn, Why: "a newer connection is there"})
	}
	m.conn, m.dialed, m.helloDue = conn, false, true
	return append(out, m.opened(now, h)...)
}

// last is the number of the newest message.
func (m *Machine) last() uint64 { return m.acked + uint64(len(m.kept)) }

// resumes reports whether what the peer has received is possible.
func (m *Machine) resumes(h helloFrame) bool { return h.received >= m.acked && h.received <= m.last() }

// answered takes the hello that answers ours.
func (m *Machine) answered(now time.Duration, h helloFrame) []Action {
	if m.stage == open {
		return nil // doubled on its way
	}
	switch {
	case h.to != m.self.Incarnation, h.epoch != m.epoch+1, h.from.Incarnation <= m.fenced, h.from.Incarnation < m.incarnation:
		return m.cut(now, "an answer to another greeting")
	case h.from.Incarnation > m.incarnation && m.incarnation != 0:
		// It cannot be: the greeting named the incarnation.
		return m.cut(now, "another incarnation answered")
	}
	m.incarnation = h.from.Incarnation
	if !m.resumes(h) {
		return m.cut(now, fmt.Sprintf("message %d was received, of %d that were sent", h.received, m.last()))
	}
	return m.opened(now, h)
}

func (m *Machine) opened(now time.Duration, h helloFrame) []Action {
	m.stage, m.epoch, m.sent = open, h.epoch, h.received
	m.heard, m.spoke, m.retry, m.dialAt, m.wanted = now, now, 0, 0, true
	m.ackSent, m.ackedBytes = m.consumed, 0
	if m.up {
		return nil
	}
	m.up, m.misfit = true, false
	return []Action{Change{Node: m.node(), To: Up}}
}

// refused takes a bye.
func (m *Machine) refused(now time.Duration, conn ConnID, f byeFrame) []Action {
	if !m.current(conn) || m.stage != greeting {
		return nil
	}
	var out []Action
	switch f.code {
	case byeIncarnation:
		// It is another now. What was meant for the last is lost with it.
		if f.incarnation > m.incarnation && f.incarnation > m.fenced {
			// The connection is closed by who refused.
			m.stage, m.dialAt = noConn, now
			out = append(out, Cut{Conn: conn, Why: f.why})
			out = append(out, m.Learn(now, f.incarnation)...)
			return append(out, m.Tick(now)...)
		}
	case byeOther:
		// The other connection may be on its way; give it time.
		m.later(now)
	case byeVersion:
		out = m.tellMisfit(f.why)
	}
	return append(out, m.cut(now, "refused: "+f.why)...)
}

// data takes messages and an acknowledgement.
func (m *Machine) data(now time.Duration, ack, first uint64, messages [][]byte) []Action {
	if ack > m.sent {
		return m.cut(now, fmt.Sprintf("message %d was acknowledged, %d was sent", ack, m.sent))
	}
	if first > m.received+1 {
		return m.cut(now, fmt.Sprintf("messages %d to %d are missing", m.received+1, first-1))
	}
	m.heard = now
	for ; m.acked < ack; m.acked++ {
		m.keptBytes -= len(m.kept[0])
		m.kept[0] = nil
		m.kept = m.kept[1:]
	}
	if skip := m.received + 1 - first; skip >= uint64(len(messages)) {
		return nil // all of it came before
	} else {
		messages = messages[skip:]
	}
	size := 0
	for _, b := range messages {
		size += len(b)
	}
	waiting := m.received - m.consumed
	if waiting+uint64(len(messages)) > uint64(m.cfg.Messages) || m.pendingBytes+size > m.cfg.Window && waiting+uint64(len(messages)) > 1 {
		return m.cut(now, "more came than the window holds")
	}
	m.received += uint64(len(messages))
	m.pendingBytes += size
	return []Action{Deliver{From: m.node(), Messages: messages}}
}

// Consumed tells that messages which were delivered, the oldest, are handled:
// how many, and how many bytes they had. from is whose they were.
func (m *Machine) Consumed(from Node, messages, bytes int) {
	if from.Incarnation != m.incarnation {
		return
	}
	m.consumed += uint64(messages)
	m.pendingBytes -= bytes
	m.ackedBytes += bytes
}

// ackDue reports whether the peer may be waiting for an acknowledgement.
func (m *Machine) ackDue() bool {
	return m.ackedBytes >= m.cfg.Window/4 || m.consumed-m.ackSent >= max(1, uint64(m.cfg.Messages)/4)
}

// Due reports whether Frame has one.
func (m *Machine) Due(now time.Duration) bool {
	switch m.stage {
	case greeting:
		return m.helloDue
	case open:
		return m.helloDue || m.sent < m.last() || m.ackDue() || now >= m.spoke+m.cfg.Beat
	}
	return false
}

// Conn is the connection that Frame is about, or zero.
func (m *Machine) Conn() ConnID {
	if m.stage == greeting || m.stage == open {
		return m.conn
	}
	return 0
}

// Frame appends to b the next frame to send over Conn. It is called when Due,
// again and again, as fast as the connection takes them: what was sent while the
// last one was on its way goes together.
func (m *Machine) Frame(now time.Duration, b []byte) []byte {
	m.spoke = now
	if m.helloDue {
		m.helloDue = false
		h := helloFrame{from: m.self, to: m.incarnation, epoch: m.epoch, received: m.received}
		if m.stage == greeting {
			h.epoch++
		}
		return h.append(b)
	}
	m.ackSent, m.ackedBytes = m.consumed, 0
	b = appendDataHead(b, m.consumed, m.sent+1)
	at := int(m.sent - m.acked)
	for size := 0; at < len(m.kept) && (size == 0 || size+len(m.kept[at]) <= frameTarget); at++ {
		size += len(m.kept[at]) + 4
		b = appendMessage(b, m.kept[at])
	}
	m.sent = m.acked + uint64(at)
	return b
}

// Room reports whether Send would take a message of that size now.
func (m *Machine) Room(size int) bool {
	return len(m.kept) < m.cfg.Messages && (len(m.kept) == 0 || m.keptBytes+size <= m.cfg.Window)
}
