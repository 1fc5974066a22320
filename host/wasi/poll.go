package wasi

import (
	"encoding/binary"
	"math"
)

// Layouts of poll_oneoff.
const (
	sizeSubscription = 48
	subUserdata      = 0
	subType          = 8
	subFd            = 16 // of fd_read and fd_write
	subClock         = 16 // of clock
	subTimeout       = 24
	subFlags         = 40
	subAbstime       = 1

	sizeEvent     = 32
	eventUserdata = 0
	eventError    = 8
	eventType     = 10
	eventNbytes   = 16
	eventFlags    = 24

	eventClock = 0
	eventRead  = 1
	eventWrite = 2
)

// poller is one call of poll_oneoff.
type poller struct {
	s       *System
	mem     memory
	out     uint32
	events  uint32
	start   int64 // monotonic time of the call, which relative timeouts count from
	now     int64
	next    int64 // the earliest deadline that is not reached, or math.MaxInt64
	waiting []Interest
}

// pollOneoff looks at all subscriptions and writes an event for each that has
// come, and waits in Config.Poller while there is none. It is the one place
// where a guest with nothing to do waits.
func pollOneoff(s *System, mem memory, a []uint64) Errno {
	in, out, n, nevents := uint32(a[0]), uint32(a[1]), uint32(a[2]), uint32(a[3])
	if n == 0 || uint64(n) > uint64(s.cfg.Limits.MaxSubscriptions) {
		return EINVAL
	}
	if !mem.has(in, uint64(n)*sizeSubscription) || !mem.has(out, uint64(n)*sizeEvent) || !mem.has(nevents, sizePtr) {
		return EFAULT
	}
	s.moved += uint64(n) * sizeSubscription
	start := s.mono()
	p := poller{s: s, mem: mem, out: out, start: start, now: start, waiting: s.waiting[:0]}
	s.waiting = nil // a nested call makes its own
	e := p.run(in, n)
	clear(p.waiting)
	s.waiting = p.waiting[:0]
	if e != Success {
		return e
	}
	s.moved += uint64(p.events) * sizeEvent
	mem.put32(nevents, p.events)
	return Success
}

func (p *poller) run(in, n uint32) Errno {
	for {
		p.events, p.next = 0, math.MaxInt64
		clear(p.waiting)
		p.waiting = p.waiting[:0]
		for i := uint32(0); i < n; i++ {
			if e := p.look(p.mem[in+i*sizeSubscription:][:sizeSubscription]); e != Success {
				return e
			}
		}
		if p.events > 0 {
			return Success
		}
		deadline := int64(-1)
		if p.next != math.MaxInt64 {
			deadline = p.next
		}
		if e := p.s.cfg.Poller.Wait(deadline, p.waiting); e != Success {
			return e
		}
		p.now = p.s.mono()
	}
}

// look writes the event of one subscription, or notes what it waits for.
func (p *poller) look(sub []byte) Errno {
	switch typ := sub[subType]; typ {
	case eventClock:
		p.clock(sub)
	case eventRead, eventWrite:
		p.file(sub, typ == eventWrite)
	default:
		return EINVAL
	}
	return Success
}

func (p *poller) clock(sub []byte) {
	id := binary.LittleEndian.Uint32(sub[subClock:])
	timeout := binary.LittleEndian.Uint64(sub[subTimeout:])
	absolute := binary.LittleEndian.Uint16(sub[subFlags:])&subAbstime != 0

	// The deadline on the monotonic clock, which stands still at its end.
	var deadline int64
	switch {
	case id != clockRealtime && id != clockMonotonic:
		p.event(sub, EINVAL, 0)
		return
	case !absolute:
		deadline = after(p.start, timeout)
	case id == clockMonotonic:
		deadline = after(0, timeout)
	default:
		// The wall clock may be set while the guest waits; so this is worked
		// out again each time.
		wall := uint64(p.s.wall())
		if timeout <= wall {
			deadline = p.now
		} else {
			deadline = after(p.now, timeout-wall)
		}
	}
	if deadline <= p.now {
		p.event(sub, Success, 0)
		return
	}
	// The clock moves in steps; wait for the step that reaches the deadline.
	if r := deadline % p.s.cfg.Resolution; r != 0 {
		deadline = after(deadline, uint64(p.s.cfg.Resolution-r))
	}
	p.next = min(p.next, deadline)
}

// after returns t+d, or the end of time where that would overflow.
func after(t int64, d uint64) int64 {
	if d > uint64(math.MaxInt64-t) {
		return math.MaxInt64
	}
	return t + int64(d)
}

func (p *poller) file(sub []byte, write bool) {
	need := RightFdRead
	if write {
		need = RightFdWrite
	}
	sl, e := p.s.get(uint64(binary.LittleEndian.Uint32(sub[subFd:])))
	switch {
	case e != Success:
		p.event(sub, e, 0)
	case sl.dir:
		p.event(sub, EBADF, 0)
	case sl.base&need == 0 || sl.base&RightPollFdReadwrite == 0:
		p.event(sub, ENOTCAPABLE, 0)
	case sl.disk != nil:
		p.event(sub, Success, available(sl.disk, write))
	default:
		r, w := sl.file.Ready()
		if write && w || !write && r {
			p.event(sub, Success, 1)
			return
		}
		p.waiting = append(p.waiting, Interest{File: sl.file, Write: write})
	}
}

// available returns how much of a regular file can be read.
func available(d *diskFile, write bool) uint64 {
	if write {
		return 1
	}
	st, e1 := d.Stat()
	off, e2 := d.SeekTo(0, SeekCur)
	if e1 != Success || e2 != Success || uint64(off) >= st.Size {
		return 0
	}
	return st.Size - uint64(off)
}

// event writes an event. There is room, since there is at most one for each
// subscription.
func (p *poller) event(sub []byte, e Errno, nbytes uint64) {
	userdata, typ := binary.LittleEndian.Uint64(sub[subUserdata:]), sub[subType]
	ev := p.mem[p.out+p.events*sizeEvent:][:sizeEvent]
	clear(ev)
	binary.LittleEndian.PutUint64(ev[eventUserdata:], userdata)
	binary.LittleEndian.PutUint16(ev[eventError:], uint16(e))
	ev[eventType] = typ
	binary.LittleEndian.PutUint64(ev[eventNbytes:], nbytes)
	p.events++
}
