package liveness

import "time"

// Self is a node's knowledge of its own lease. It is not safe for concurrent
// use.
//
// Time is the node's own, of a clock that only goes forward, and is measured
// from before a renewal was sent: the store counts from later. So that, as long
// as both clocks are about as fast, MayAct ends before anybody else's lease on
// what this node holds begins.
type Self struct {
	ttl, margin time.Duration
	until       time.Duration
	condemned   bool
}

// NewSelf returns the knowledge of a node whose lease was granted in answer to
// a request sent at the given time. Margin is what the node needs to end what
// it has begun: a quarter of the lease where it is zero.
func NewSelf(c Config, margin, sent time.Duration) *Self {
	c = c.withDefaults()
	if margin <= 0 {
		margin = c.TTL / 4
	}
	return &Self{ttl: c.TTL, margin: margin, until: sent + c.TTL - margin}
}

// Renewed says that a renewal sent at the given time was answered.
func (s *Self) Renewed(sent time.Duration) {
	if !s.condemned {
		s.until = max(s.until, sent+s.ttl-s.margin)
	}
}

// Lapsed says that the control state knows nothing of the lease any more: the
// node must register again, and may be dead already.
func (s *Self) Lapsed() { s.until = 0 }

// Condemned says that the node was called dead. It may never act again, in this
// incarnation.
func (s *Self) Condemned() { s.condemned, s.until = true, 0 }

// MayAct reports whether the node may acknowledge what must be done once:
// durable calls, and calls of named actors.
func (s *Self) MayAct(now time.Duration) bool { return !s.condemned && now < s.until }

// Until is when MayAct ends, if nothing is renewed.
func (s *Self) Until() time.Duration { return s.until }
